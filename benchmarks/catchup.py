"""What a peer that is a million messages behind costs the others, and itself.

    python benchmarks/catchup.py --out docs/relay                 # some minutes
    python benchmarks/catchup.py --messages 20000                 # a try

A real relay starts with a log of a million messages in a hundred streams. Two peers that have them exchange a
message over it every half second. Then a joiner in a process of its own, without a model, fetches all of it and
writes it to its log; another one is killed half-way and started again. Told are how long the relay takes to start
and what memory it holds, what the joiner takes, and how long the two peers' messages take before and meanwhile.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from relaying import process, report
from relaying.process import Measured
from relaying.run import Writer, write_log
from shared_seed.folder import LOG_NAME
from shared_seed.identity import Key

LONGEST = 900.0
"""Seconds that each part may take."""


@dataclass(frozen=True)
class Extent:
    """Streams, messages of each, seconds between two messages of the pair, and seconds of calm before."""

    streams: int = 100
    messages: int = 10_000
    pause: float = 0.5
    calm: float = 20.0


@dataclass(frozen=True)
class Start:
    """A relay's start: seconds and processor seconds until it listens, bytes of memory then and at most, and bytes
    of its log.
    """

    seconds: float
    processor: float
    resident: int
    most_resident: int
    log_bytes: int


@dataclass(frozen=True)
class Fetched:
    """What a joiner fetched: messages it began with and ended with, seconds between, bytes received, its memory at
    most, its processor seconds and the relay's.
    """

    began_with: int
    messages: int
    seconds: float
    received: int
    most_resident: int
    processor: float
    relay_processor: float


@dataclass(frozen=True)
class Delays:
    """Seconds that the pair's messages took."""

    count: int
    p50: float
    p99: float
    longest: float
    lost: int


@dataclass(frozen=True)
class Found:
    """Everything that is told."""

    empty: Start
    full: Start
    whole: Fetched
    halves: tuple[Fetched, Fetched]
    calm: Delays
    meanwhile: Delays


def start(folder: Path, key: Key) -> tuple[Measured, str, Start]:
    """A relay of what a folder holds, its address, and what its start took."""
    began = time.monotonic()
    relay = process.relay(folder, key)
    address = relay.word("address", LONGEST)
    seconds = time.monotonic() - began
    size = (folder / LOG_NAME).stat().st_size
    return relay, address, Start(seconds, relay.cpu, relay.resident, relay.most_resident, size)


def fetch(relay: Measured, address: str, folder: Path, key: Key, messages: int, until: float = 1.0) -> Fetched:
    """Have a joiner fetch so many messages, and kill it once it has a share of them."""
    before = relay.cpu
    words = ["-m", "relaying.joiner", address, str(folder / "run"), str(messages)]
    with Measured(words, key, folder) as joiner:
        joiner.word('{"event": "began"', LONGEST)
        deadline = time.monotonic() + LONGEST
        while time.monotonic() < deadline:
            events = joiner.events("fetched")
            if events and events[-1]["messages"] >= until * messages:
                break
            time.sleep(0.02)
        else:
            raise RuntimeError(f"the joiner has not come so far: {joiner.lines()}")
        began, last = joiner.events("began")[0], events[-1]
        return Fetched(
            began["messages"],
            last["messages"],
            last["at"] - began["at"],
            last["received"],
            joiner.most_resident,
            joiner.cpu,
            relay.cpu - before,
        )


def delays(passed: Sequence[dict[str, Any]], since: float, until: float) -> Delays:
    """Of what was sent between two times."""
    within = [event for event in passed if since <= event["at"] < until]
    seconds = [event["seconds"] for event in within]
    if not seconds:
        return Delays(0, 0.0, 0.0, 0.0, 0)
    p99 = quantiles(seconds, n=100)[98] if len(seconds) > 1 else seconds[0]
    return Delays(
        len(within), median(seconds), min(p99, max(seconds)), max(seconds), sum(not e["came"] for e in within)
    )


def run(extent: Extent, folder: Path) -> Found:
    """Do it all."""
    writers = [Writer.numbered(number) for number in range(1, extent.streams + 1)]
    total = extent.streams * extent.messages
    write_log(folder / "empty", [])
    write_log(folder / "relay", writers, extent.messages)
    relay, _, empty = start(folder / "empty", Key.fresh())
    relay.kill()
    relay, address, full = start(folder / "relay", Key.fresh())
    with relay:
        held = shutil.copy(folder / "relay" / LOG_NAME, folder / "held")
        words = ["-m", "relaying.pair", address, str(extent.pause), str(held)]
        with Measured(words, Key.fresh(), folder / "pair") as pair:
            pair.word('{"event": "passed"', LONGEST)
            since = time.monotonic()
            time.sleep(extent.calm)
            begun = time.monotonic()
            whole = fetch(relay, address, folder / "whole", Key.fresh(), total)
            key = Key.fresh()
            first = fetch(relay, address, folder / "halves", key, total, 0.5)
            second = fetch(relay, address, folder / "halves", key, total)
            passed, ended = pair.events("passed"), time.monotonic()
    calm, meanwhile = delays(passed, since, begun), delays(passed, begun, ended)
    return Found(empty, full, whole, (first, second), calm, meanwhile)


def text(found: Found, count: int) -> str:
    """As Markdown; ``count`` messages were in the log."""
    held = found.full.resident - found.empty.resident
    starts = [
        [name, f"{s.seconds:.1f}", f"{s.processor:.1f}", f"{s.resident / 1e6:.0f}", f"{s.most_resident / 1e6:.0f}"]
        for name, s in (("an empty log", found.empty), (f"{count:,} messages", found.full))
    ]
    fetched = [
        [
            name,
            f"{f.began_with:,}",
            f"{f.messages:,}",
            f"{f.seconds:.1f}",
            f"{f.received / 1e6:.2f}",
            f"{f.received / 1e6 / f.seconds:.2f}",
            f"{f.most_resident / 1e6:.0f}",
            f"{f.processor:.1f}",
            f"{f.relay_processor:.1f}",
        ]
        for name, f in (
            ("whole", found.whole),
            ("until killed", found.halves[0]),
            ("started again", found.halves[1]),
        )
    ]
    passed = [
        [name, str(d.count), f"{1000 * d.p50:.1f}", f"{1000 * d.p99:.1f}", f"{1000 * d.longest:.1f}", str(d.lost)]
        for name, d in (("before", found.calm), ("meanwhile", found.meanwhile))
    ]
    tables = [
        report.table(("a relay starts with", "s", "processor s", "MB then", "MB at most"), starts),
        f"{held / count:.0f} bytes of memory a message, {found.full.log_bytes / count:.1f} in the log.\n",
        report.table(
            ("joiner", "had", "has", "s", "MB", "MB/s", "MB of memory", "processor s", "relay's processor s"),
            fetched,
        ),
        report.table(("messages of the two others", "number", "p50 ms", "p99 ms", "longest ms", "lost"), passed),
    ]
    return "\n".join(tables)


def measure(extent: Extent, out: Path | None = None) -> Found:
    """Measure, print, and write ``catchup.json`` and ``catchup.md``."""
    before = report.load()
    with tempfile.TemporaryDirectory(prefix="catchup-") as folder:
        found = run(extent, Path(folder))
    shown = text(found, extent.streams * extent.messages)
    print(shown)
    if out is not None:
        figures = {"load": [before, report.load()], "extent": asdict(extent), "found": asdict(found)}
        report.write(out, "catchup", figures, shown)
    return found


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--messages", type=int, default=1_000_000)
    words.add_argument("--out", type=Path, help="write catchup.json and catchup.md here")
    chosen = words.parse_args()
    measure(Extent(messages=chosen.messages // Extent.streams), chosen.out)
