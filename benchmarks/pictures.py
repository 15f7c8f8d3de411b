"""The pictures in docs/: of a report, and of a run's model card.

    python benchmarks/pictures.py                         # writes docs/report/*.png
    python benchmarks/pictures.py --quick --out /tmp/pictures
    python benchmarks/pictures.py --card runs/quickstart  # writes docs/hub/*.png

The report is of a real run in which peers join, one is killed, and one is banned. The card is that of a run
folder, its Markdown made HTML, and loads nothing but the folder's own loss curve.

The commands that users give, in processes of their own, on the tiny model of the tests. All are forked from one
process that has imported everything, since starting Python takes longer than many of a tiny model's rounds. What
they say goes to stderr.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from shared_seed import cli, identity, metrics, report
from shared_seed.integrations.transformers import fit, models
from shared_seed.report import material, timeline
from shared_seed.run import take_part
from shared_seed.run_facts import CURVE_NAME
from shared_seed.swarm.zmq import free_ports

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))
LOADED, HOSTILE = (fit, models, take_part), "<script>alert(1)</script>"
SHOTS = {"desktop-light": (1000, 1960), "phone-dark": (390, 1850)}
"""Each picture's name, which ends with its colours; width and height in CSS pixels."""

CARD_SHOTS = {"card-desktop": 900, "card-phone": 390}
"""Each picture's name, and its width in CSS pixels; they are as high as the card."""

SHEET = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>card</title><style>
body { margin: 0 auto; padding: 16px; max-width: 800px; font: 16px/1.6 system-ui, sans-serif; color: #1f2328 }
h1, h2 { line-height: 1.25; border-bottom: 1px solid #d1d9e0; padding-bottom: .3em }
code { font: 85% ui-monospace, monospace; background: #eff1f3; padding: .2em .4em; border-radius: 6px }
p code, td code, li code { overflow-wrap: anywhere }
pre { overflow: auto; background: #f6f8fa; padding: 16px; border-radius: 6px; line-height: 1.45 }
pre code { background: none; padding: 0 }
table { border-collapse: collapse; display: block; overflow: auto; max-width: 100% }
th, td { border: 1px solid #d1d9e0; padding: 6px 13px }
img { max-width: 100% }
</style></head><body>
"""
"""Much as the Hub and GitHub show Markdown."""


class Scene:
    """A folder with a recipe, and the processes of its run: real commands with keys of their own."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self.folder, self.run, self.rounds = folder, folder / "run", rounds
        self.place = f"127.0.0.1:{free_ports()}"
        self.address = f"tcp://{self.public('key')}@{self.place}"
        self.children: list[int] = []

    def public(self, key: str) -> str:
        """What others know a key by; makes it where there is none."""
        return identity.show(identity.load(self.folder / key).public)

    def fork(self, work: Callable[[], object]) -> int:
        """Do it in a process of its own, which may exit by itself; gives its number."""
        child, code = os.fork(), 0
        if child == 0:
            try:
                os.dup2(2, 1)
                work()
            except BaseException as end:
                code = int(str(end.code or 0)) if isinstance(end, SystemExit) else 1
            finally:
                os._exit(code)
        self.children.append(child)
        return child

    def command(self, *words: object, key: str = "key") -> int:
        """Give a command, in a process that inherits its words and its key."""
        os.environ[identity.VARIABLE] = str(self.folder / key)
        sys.argv = ["shared-seed", *map(str, words)]
        return self.fork(cli.main)

    def join(self, number: int, name: str, key: str = "key") -> int:
        """Another peer, whose folder is where the report looks for it."""
        own = ("-o", self.run / f"peers/{number}", "--name", name, "--number", number, "--progress", "json")
        return self.command("join", self.address, *own, key=key)

    def until(self, share: float, where: str = ".") -> None:
        """Wait for a peer, the first by default, to have made a round at this share of the run, or a later one."""
        while not any(line["round"] >= share * self.rounds for line in metrics.read(self.run / where)):
            if any(os.waitid(os.P_PID, c, os.WEXITED | os.WNOHANG | os.WNOWAIT) for c in self.children):
                raise RuntimeError(f"a process ended before {where} had round {share * self.rounds:.0f}")
            time.sleep(0.05)

    def end(self, *children: int) -> list[int]:
        """How processes ended: exit codes, or signals, negative."""
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        self.children = [child for child in self.children if child not in children]
        return codes


def play(scene: Scene) -> None:
    """Ada and one whom a crash befalls begin; Grace joins; Mallory joins, publishes, and is banned. Print it."""
    training = {"steps": scene.rounds, "batch_size": 16, "learning_rate": 2e-3}
    assert scene.end(scene.fork(lambda: importlib.import_module("tiny").recipe(scene.folder, **training))) == [0]
    terms = ("task.validation_rows=20", f"task.evaluate_every={scene.rounds // 6}")
    own = ("-o", scene.run, "--listen", f"tcp://{scene.place}", "--start-with", 2, "--name", "ada")
    ada = scene.command("run", scene.folder / "tiny.yaml", *terms, *own, "--progress", "json")
    victim = scene.join(2, HOSTILE)
    scene.until(0.05)
    mallory = scene.join(4, "mallory", key="mallory")
    scene.until(0.15)
    grace = scene.join(3, "grace")
    scene.until(0.3, "peers/2")
    os.kill(victim, signal.SIGKILL)
    assert scene.end(victim) == [-signal.SIGKILL]
    victim = scene.join(2, HOSTILE)
    scene.until(0.4, "peers/4")
    assert scene.end(scene.command("ban", scene.public("mallory"), "--run", scene.address), mallory) == [0, 1]
    assert scene.end(ada, grace, victim) == [0, 0, 0]
    # What came too late is not to be seen.
    lanes = {lane.name: lane for lane in timeline.trace(material.read(scene.run), []).lanes}
    for name, lane in lanes.items():
        print(f"{name}: {', '.join(f'{life.first} to {life.last}' for life in lane.lives)} {lane.out}".rstrip())
    assert (len(lanes[HOSTILE].lives), lanes["mallory"].out) == (2, "banned by the owner")


def shoot(scene: Scene, out: Path) -> None:
    """Take the pictures, with a model's name that says what it is, whatever its folder."""
    from playwright.sync_api import sync_playwright

    chromium, path = importlib.import_module("chromium"), report.write(scene.run)
    path.write_text(path.read_text().replace(str(scene.folder / "model"), "tests/tiny.py"))
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = chromium.launch(playwright, chromium.found())
        for name, (width, height) in SHOTS.items():
            page = browser.new_page(color_scheme=name.rpartition("-")[2])
            page.set_viewport_size({"width": width, "height": height})
            page.goto(path.as_uri())
            page.screenshot(path=out / f"{name}.png")


def shoot_card(folder: Path, out: Path) -> None:
    """Take the pictures of a run folder's card, without its metadata, which the Hub does not show as text."""
    from huggingface_hub import ModelCard
    from markdown_it import MarkdownIt
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = importlib.import_module("chromium")
    text = MarkdownIt("commonmark").enable("table").render(ModelCard.load(folder / "README.md").text)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        path = Path(scratch) / "card.html"
        path.write_text(SHEET + text, encoding="utf-8")
        if (folder / CURVE_NAME).exists():
            shutil.copyfile(folder / CURVE_NAME, path.with_name(CURVE_NAME))
        browser = chromium.launch(playwright, chromium.found())
        for name, width in CARD_SHOTS.items():
            page = browser.new_page(java_script_enabled=False)
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(path.as_uri())
            taken = Image.open(io.BytesIO(page.screenshot(full_page=True)))
            taken.quantize(256).save(out / f"{name}.png", optimize=True)


def main() -> None:
    """Play, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--card", type=Path, metavar="RUN", help="instead, a run folder whose card is pictured")
    parser.add_argument("--out", type=Path, help="folder of the pictures; docs/report or docs/hub by default")
    options = parser.parse_args()
    if options.card is not None:
        shoot_card(options.card, options.out or ROOT / "docs" / "hub")
        return
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), 120 if options.quick else 600)
        try:
            play(scene)
        finally:
            for child in scene.children:
                os.kill(child, signal.SIGKILL)
            scene.end(*scene.children)
        shoot(scene, options.out or ROOT / "docs" / "report")


if __name__ == "__main__":
    main()
