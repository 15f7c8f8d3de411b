"""The report in headless Chromium: on a desk and on a phone, by day and by night."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import chromium
import reports
from shared_seed import log, report
from shared_seed.folder import LOG_NAME

WIDTHS = (1280, 390, 320)
SCHEMES = ("light", "dark")

TEXT_CONTRAST = """() => {
  const parse = text => (text.match(/[0-9.]+/g) || []).map(Number);
  const linear = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const ink = light(parse(element.closest("svg") ? style.fill : style.color)), paper = light(ground(element));
    const size = parseFloat(style.fontSize) * (element.closest("svg")?.getScreenCTM().a ?? 1);
    found.push([text, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05), size]);
  }
  return found;
}"""
"""Each visible text, the contrast to what is behind it (WCAG 2.2, 1.4.3), and its size in CSS pixels."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if why := chromium.left_out():
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    path = chromium.found()
    if path is None:
        pytest.fail(chromium.ADVICE)
    with sync_playwright() as playwright:
        opened = chromium.launch(playwright, path)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of a run in which much happened, of a bare log, and of 120 peers."""
    folder = tmp_path_factory.mktemp("reports")
    lively = report.write(reports.folder(folder / "run"))
    bare = report.write(folder / "run" / LOG_NAME, folder / "bare.html")
    (folder / LOG_NAME).write_bytes(log.encode(reports.crowd(120)))
    return {"lively": lively, "bare": bare, "crowd": report.write(folder / LOG_NAME, folder / "crowd.html")}


def visit(browser: Any, path: Path, width: int, scheme: str) -> tuple[Any, list[str]]:
    """The page, opened, and what its console and its network had to say."""
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url))
    page.goto(path.as_uri())
    return page, said


@pytest.mark.parametrize("name", ["lively", "bare", "crowd"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_fits_is_legible_and_asks_for_nothing(
    browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    page, said = visit(browser, pages[name], width, scheme)
    try:
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert said == [pages[name].as_uri()]
        texts = page.evaluate(TEXT_CONTRAST)
        assert len(texts) > 50
        assert [text for text in texts if text[1] < 4.5] == []
        least = 12 if width >= 390 else 10
        assert [text for text in texts if text[2] < least] == []
        assert page.title().endswith("shared-seed report")
    finally:
        page.context.close()


def test_nothing_that_peers_have_written_runs(browser: Any, pages: dict[str, Path]) -> None:
    page, said = visit(browser, pages["lively"], 1280, "light")
    try:
        assert page.title().startswith("<script>")
        assert page.evaluate("document.scripts.length + document.images.length") == 0
        assert said == [pages["lively"].as_uri()]
    finally:
        page.context.close()


def test_the_policy_forbids_scripts_and_pictures_that_somebody_puts_in(
    browser: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    marred = tmp_path / "marred.html"
    extra = "<script>document.title='taken'</script><img src='http://127.0.0.1:9/x.png'></body>"
    marred.write_text(pages["lively"].read_text().replace("</body>", extra))
    page, said = visit(browser, marred, 1280, "light")
    try:
        assert page.title() != "taken"
        assert len([each for each in said if "Content Security Policy" in each]) == 2
    finally:
        page.context.close()


def test_night_has_other_colours(browser: Any, pages: dict[str, Path]) -> None:
    seen = []
    for scheme in SCHEMES:
        page, _ = visit(browser, pages["lively"], 1280, scheme)
        look = "e => { const s = getComputedStyle(e); return [s.backgroundColor, s.color, s.fill, s.stroke]; }"
        seen.append([page.locator(which).first.evaluate(look) for which in ("body", ".card", ".life", ".line.a")])
        page.context.close()
    assert all(day != night for day, night in zip(*seen, strict=True))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_curve_is_shown_over_steps_time_and_bytes_without_a_script(
    browser: Any, pages: dict[str, Path], width: int
) -> None:
    page, _ = visit(browser, pages["lively"], width, "light")
    try:
        shown = """[...document.querySelectorAll('.pane svg')].filter(each => each.getClientRects().length)
            .map(each => each.getAttribute('aria-labelledby'))"""
        kind = "wide" if width == 1280 else "narrow"
        for what in ("bytes", "time", "steps"):
            page.get_by_text(f"over {what}", exact=True).click()
            assert page.evaluate(shown) == [f"learning-{what}-{kind}-t learning-{what}-{kind}-d"]
        page.get_by_role("radio", name="over steps").focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate(shown) == [f"learning-time-{kind}-t learning-time-{kind}-d"]
    finally:
        page.context.close()


def test_lanes_are_where_their_rounds_are(browser: Any, pages: dict[str, Path]) -> None:
    page, _ = visit(browser, pages["lively"], 1280, "light")
    try:
        lane = page.locator(".lane", has_text="restarted").first
        track = lane.locator(".track").bounding_box()
        places = [
            ((box["x"] - track["x"]) / track["width"] * 20, box["width"] / track["width"] * 20)
            for box in (each.bounding_box() for each in lane.locator(".life").all())
        ]
        assert [tuple(map(round, place)) for place in places] == [(0, 8), (12, 8)]
        assert page.locator(".track .fork").count() == page.locator(".track .out").count() == 1
        assert page.locator(".lane", has_text="banned by the owner").count() == 1
    finally:
        page.context.close()
