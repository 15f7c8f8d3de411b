"""The report: its figures, exactly, and its HTML, strictly, whatever peers call themselves."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import reports
from shared_seed import codec, log, report
from shared_seed.errors import LogError
from shared_seed.folder import LOG_NAME, REPORT_NAME
from shared_seed.metrics import NAME as METRICS_NAME
from shared_seed.report import charts, figures, material, page, timeline, units
from shared_seed.report.costs import Shape, alternatives
from swarming import BEN, stream_of

Call = Callable[..., tuple[int, str, str]]
VOID = {"meta", "br", "input", "img", "link", "hr"}


class Strict(HTMLParser):
    """Checks nesting, and keeps tags with their attributes and all text outside of them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, name: str) -> list[str | None]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return reports.folder(tmp_path / "run")


@pytest.fixture
def found(run: Path) -> figures.Figures:
    return figures.compute(material.read(run))


def html(path: Path) -> tuple[str, Strict]:
    text = report.write(path).read_text()
    return text, Strict(text)


def lane(found: figures.Figures, name: str) -> timeline.Lane:
    return next(each for each in found.timeline.lanes if each.name.startswith(name))


def test_counts_are_those_of_the_log(found: figures.Figures) -> None:
    assert (found.peers, found.streams, found.messages, found.gradients) == (4, 5, 45, 45)
    assert (found.done, found.rounds, found.parameters, found.restarts) == (20, 20, 64 * 32 + 8, 1)
    assert found.finished
    assert found.digest == "00" * 32


def test_lanes_tell_of_joins_restarts_abstentions_bans_and_forks(found: figures.Figures) -> None:
    ben, clo = lane(found, "<script>"), next(each for each in found.timeline.lanes if each.out)
    assert [(life.first, life.last) for life in ben.lives] == [(0, 7), (12, 19)]
    assert ben.lives[1].abstained == (13,)
    assert ben.abstained == 1
    assert (clo.out, clo.first, clo.messages) == ("banned by the owner", 5, 5)
    assert [each.forked for each in found.timeline.lanes if each.forked is not None] == [4]
    assert lane(found, "ann").late == 2, "both folders' metrics say that ann was late once"
    assert [found.timeline.present[r] for r in (0, 4, 5, 8, 10, 12)] == [3, 2, 3, 2, 1, 2]


def test_rounds_without_a_message_are_pauses() -> None:
    messages = reports.say(BEN, [0, 1, 4, 5, 9], [0x38] * 5).messages
    assert timeline._life(stream_of(BEN), messages).pauses == ((2, 3), (6, 8))


def test_the_curve_adds_up_processes_and_means_peers(found: figures.Figures) -> None:
    curve = found.curve
    assert curve.rounds == list(range(20))
    assert curve.loss == pytest.approx([1 - r / 100 for r in range(20)])
    assert curve.window == 1
    assert curve.seconds == [float(r + 1) for r in range(20)]
    # Ann 50 bytes a round; Ben's first process ends with 400, and his second begins at 0 in round 12.
    assert curve.received[7] == 8 * 50 * 2
    assert curve.received[11] == 12 * 50 + 400
    assert curve.received[19] == 20 * 50 + 16 * 50
    assert curve.at(0, curve.received) == 0
    assert curve.at(10, curve.seconds) == 10
    assert [(t.name, t.sent, t.received) for t in found.traffic] == [
        ("ann", 2000, 1000),
        (material.shown(reports.HOSTILE), 1600, 800),
    ]


def test_what_counts_is_distributed_as_it_is(found: figures.Figures) -> None:
    spread = found.spread
    # Without the banned five: 20 of +-1 and 4 of 1, then Ben's 9 of 2, 6 of -2 and his abstention.
    assert (spread.count, spread.positive, spread.abstained, spread.saturated) == (39, 10 + 4 + 9, 1, 0)
    assert spread.rms == math.sqrt((24 * 1 + 15 * 4) / 39)
    assert spread.quantiles == (-2, -1, 1, 1, 2)


def test_a_histogram_loses_nothing_and_shares_what_lies_between_two_bars() -> None:
    codes = Counter(
        {codec.encode(v): n for v, n in ((1.0, 300), (-1.0, 100), (0.03125, 4), (200.0, 1), (-300.0, 2))}
    )
    found = figures.histogram(codes, 0)
    assert (found.width, found.bins) == (1 / 16, 16)
    assert (found.below, found.above) == (2, 1)
    assert found.counts[32] == 300
    assert found.counts[0] == 100
    assert found.counts[16] == found.counts[17] == 2
    assert sum(found.counts) + 3 == 407
    assert figures.histogram(Counter(), 0).counts == [0.0] * 33
    zeros = figures.histogram(Counter({0: 5}), 0)
    assert zeros.counts[zeros.bins] == 5


def test_costs_are_computed_as_they_say(found: figures.Figures) -> None:
    # Streams in a round: 3 in rounds 0-3 and 5-7, 2 in 4, 8, 9 and 12-19, 1 in 10 and 11.
    steps = 7 * 3 + 11 * 2
    totals = {cost.name: cost.total for cost in found.costs}
    assert totals["full gradients"] == 2056 * 4 * steps
    assert totals["LoRA gradients"] == 8 * (64 + 32) * 4 * steps
    assert totals["whole model, once each"] == 2056 * 4 * 4
    assert totals["here, gradients"] == (30 + 64) * (7 * 3 * 2 + 11 * 2 * 1)
    assert "here, everything" not in totals, "two of four peers' metrics are here"
    assert "rank 8 on q_proj and v_proj" in next(c.how for c in found.costs if c.name == "LoRA gradients")


def test_an_adapter_s_run_does_not_invent_the_size_of_its_base_model() -> None:
    recipe = {"lora": {"rank": 4, "targets": ["q_proj"]}, "weights": "bf16"}
    costs = alternatives(reports.TERMS.model_copy(update={"recipe": recipe}), Shape(10, 2))
    assert [(cost.name, cost.total) for cost in costs] == [
        ("LoRA gradients", 2056 * 2 * 10),
        ("the adapter, once each", 2056 * 2 * 2),
    ]
    assert "rank 4 on q_proj" in costs[0].how
    assert "not known" in costs[1].how


def test_a_result_of_all_peers_is_taken_to_the_end_and_one_of_a_last_process_is_not(run: Path) -> None:
    scores = {"accuracy": 0.5, "loss": 0.7, "rows": 40, "auc": None, "median_accuracy": None}
    result = {
        "before": scores,
        "after": scores,
        "digest": "00",
        "replicas": {"ann": "00", "ben": "01"},
        "peers": 2,
    }
    result |= dict.fromkeys(("messages", "gradients", "streams", "sent", "log_bytes"), 1)
    for received, expected in ((5000, 5000), (700, 1800)):
        more = {"received": received, "gradient_received": 10, "seconds": 7.5, "of_a_later_release": {}}
        (run / "result.json").write_text(json.dumps(result | more))
        found = figures.compute(material.read(run))
        assert (found.received, found.received_by, found.seconds) == (expected, 2, 7.5)
    assert "The replicas state different digests." in html(run)[1].text
    (run / "result.json").write_text(json.dumps(result | {"received": "<b>much</b>"}))
    assert material.read(run).summary is None


def test_the_page_is_well_formed_and_loads_nothing(run: Path) -> None:
    text, parsed = html(run)
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe", "object", "base", "form"} == set()
    names = {name for _, attributes in parsed.tags for name in attributes}
    assert names & {"src", "href", "srcset", "action", "data"} == set()
    assert [name for name in names if name.startswith("on")] == []
    policy = next(a for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] is not None
    assert policy["content"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    ids = [i for i in parsed.attributes("id") if i]
    assert len(ids) == len(set(ids))


def test_what_peers_and_models_are_called_is_escaped(run: Path) -> None:
    text, parsed = html(run)
    assert reports.HOSTILE[:60] in parsed.text
    assert "<script" not in text
    assert "<img" not in text


def test_every_chart_has_a_title_and_a_table(run: Path) -> None:
    _, parsed = html(run)
    labels = {i for i in parsed.attributes("id") if i}
    drawings = [attributes for tag, attributes in parsed.tags if tag == "svg"]
    assert len(drawings) == 2 * (3 + 1)
    for drawing in drawings:
        assert drawing["role"] == "img"
        assert set((drawing["aria-labelledby"] or "").split()) <= labels
    pictures = [attributes for _, attributes in parsed.tags if attributes.get("role") == "img"]
    assert all(each.get("aria-label") or each.get("aria-labelledby") for each in pictures)
    assert sum(tag == "table" for tag, _ in parsed.tags) >= 5


def test_many_peers_are_told_of_together_but_liars_are_shown(tmp_path: Path) -> None:
    path = tmp_path / LOG_NAME
    path.write_bytes(log.encode(reports.crowd(120)))
    found = figures.compute(material.read(path))
    assert len(found.timeline.lanes) == 120
    assert len(found.timeline.shown) == timeline.MOST_LANES
    assert [each.forked for each in found.timeline.shown if each.forked is not None] == [2]
    assert "80 more peers have no lane here" in html(path)[1].text


@pytest.mark.parametrize(
    ("recipe", "temperature"),
    [
        ({"task": {"temperature": 4}}, 4),
        ({"task": {"temperature": 0.5}}, 0.5),
        ({}, 1),
        ({"task": ["temperature"]}, 1),
        ({"task": {"temperature": "hot"}}, 1),
        ({"task": {"temperature": True}}, 1),
        ({"task": {"temperature": -4}}, 1),
    ],
)
def test_a_temperature_is_told_where_a_recipe_says_one(
    recipe: dict[str, Any], temperature: float, found: figures.Figures
) -> None:
    assert figures._temperature(recipe) == temperature
    told = [str(picture) for _, picture in page._learning(dataclasses.replace(found, temperature=temperature))]
    assert told
    first = f"trained on at temperature {temperature:g} at first"
    assert all((first in each) == (temperature != 1) for each in told)


def test_a_bare_log_gives_a_page_that_says_what_it_does_not_know(run: Path) -> None:
    text, parsed = html(run / LOG_NAME)
    assert (run / REPORT_NAME).read_text() == text
    assert "losses, times, accuracy and bytes at the sockets are not in it" in parsed.text
    assert parsed.text.count("not known") >= 3
    assert "Bytes of each peer" in parsed.text
    assert "nan" not in text


def test_a_run_under_way_has_a_page_too(run: Path) -> None:
    whole = (run / LOG_NAME).read_bytes()
    (run / LOG_NAME).write_bytes(whole[:-50])
    with (run / METRICS_NAME).open("a") as file:
        file.write('{"round": 20, "lo')
    _, parsed = html(run)
    assert "The log does not end with a digest" in parsed.text
    assert "not stated: the run has not finished" in parsed.text


def test_a_log_without_messages_has_a_page(tmp_path: Path) -> None:
    path = tmp_path / LOG_NAME
    path.write_bytes(log.encode(log.Contents(reports.TERMS, signature=reports.TERMS.sign(reports.OWNER))))
    _, parsed = html(path)
    assert "The log holds no messages yet." in parsed.text
    assert "there is nothing to compare" in parsed.text


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        "not json",
        "[" * 100_000,
        '{"round": -1, "loss": 1, "sent": 1, "received": 1, "seconds": 1}',
        '{"round": 1e9, "loss": 1, "sent": 1, "received": 1, "seconds": 1}',
        '{"round": 1, "loss": 1, "sent": 1, "received": 1, "seconds": NaN}',
        '{"round": 1, "loss": 1, "sent": true, "received": 1, "seconds": 1}',
    ],
)
def test_metrics_that_are_not_as_expected_are_left_out_and_counted(run: Path, line: str) -> None:
    before = material.read(run).parts[0].lines
    with (run / METRICS_NAME).open("a") as file:
        file.write(line + "\n")
    part = material.read(run).parts[0]
    assert part.unreadable == 1
    assert part.lines == before
    assert "1 lines of metrics are not as expected" in html(run)[1].text


def test_names_are_shown_without_what_turns_text_around() -> None:
    assert material.shown("a\u202eb\x00\nc") == "a?b??c"
    assert len(material.shown("x" * 10_000)) == material.LONGEST_NAME + 1


def test_losses_that_are_not_finite_leave_a_gap(run: Path) -> None:
    own = reports.lines(reports.ANN, range(20))
    for each in own[5:8]:
        each["loss"] = math.nan
    reports.write(run / METRICS_NAME, own)
    reports.write(run / "peers" / "2" / METRICS_NAME, [])
    found = figures.compute(material.read(run))
    assert all(map(math.isnan, found.curve.loss[5:8]))
    assert "nan" not in page.render(found, 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (81_600, "81.6 kB"), (999_600, "1 MB"), (4.3e10, "43 GB")],
)
def test_bytes_are_written_to_three_digits(given: float, expected: str) -> None:
    assert units.of_bytes(given) == expected


def test_times_and_factors_and_ticks() -> None:
    assert [units.of_seconds(s) for s in (0, 42.51, 170, 3600, 90_000)] == [
        "0 s",
        "42.5 s",
        "2 min 50 s",
        "1 h",
        "1 d 1 h",
    ]
    assert [units.of_factor(f) for f in (1.34, 46.2, 758_123)] == ["1.3", "46", "758,000"]
    assert units.ticks(0, 40, 4) == [0, 10, 20, 30, 40]
    assert units.ticks(1, 1, 4) == [1]
    assert units.time_ticks(170, 3) == [0, 60, 120]


def test_thinning_keeps_the_extremes() -> None:
    points = [(float(i), math.sin(i)) for i in range(10_000)] + [(10_000.0, 99.0)]
    kept = charts.thinned(points, 700)
    assert len(kept) <= 702
    assert max(y for _, y in kept) == 99


def test_the_command_writes_the_page(run: Path, call: Call, tmp_path: Path) -> None:
    code, out, err = call("report", run, "-o", tmp_path / "page.html")
    assert code == 0, err
    assert "page.html" in out
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    code, _, err = call("report", tmp_path / "nowhere")
    assert code == 1
    assert "cannot read the gradient log" in " ".join(err.split())
    with pytest.raises(LogError, match="choose another with -o"):
        report.write(run, tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_page_that_cannot_be_written_leaves_the_earlier_one(run: Path, tmp_path: Path) -> None:
    page = report.write(run)
    before = page.read_bytes()
    page.with_name(f".new-{page.name}").symlink_to("/dev/full")
    with pytest.raises(LogError, match="No space left"):
        report.write(run)
    assert page.read_bytes() == before
    assert not page.with_name(f".new-{page.name}").is_symlink()


def test_a_run_does_not_fail_for_its_page(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no report was written: cannot read"):
        report.attempt(tmp_path)
