"""What does a relay take? Real relay processes, signed messages, encrypted links.

    python benchmarks/relay.py --out docs/relay                  # a few minutes
    python benchmarks/relay.py --quick
    python benchmarks/relay.py --against OTHER/src               # the same with another version, in turn

Messages that are signed already go from eight keys into a relay and from there to one subscriber. *Saturated*: all
are sent at once; messages a second from the first sending to the last receipt, and processor time that the relay's
process takes for one. Then at a fifth and at half of that rate: time from sending to receipt. Beside it, in the
same round, what bounds it: libzmq's own proxy, which checks nothing, with and without encryption, and the
verification of one Ed25519 signature.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from relaying import process, report
from relaying.driver import Driver, Passage, Way
from relaying.process import Measured
from relaying.run import Writer, write_log
from shared_seed import identity
from shared_seed.identity import Key
from shared_seed.proofs import signed_head
from shared_seed.swarm.address import parse

REST = 0.3
"""Seconds after the last receipt until a relay has written everything down."""


@dataclass(frozen=True)
class Extent:
    """How much is measured: rounds, keys, messages of each, samples a message, and seconds at a given rate."""

    rounds: int = 3
    writers: int = 8
    messages: int = 2500
    samples: tuple[int, ...] = (1, 8, 64)
    shares: tuple[float, ...] = (0.2, 0.5)
    seconds: float = 4.0


QUICK = Extent(1, 4, 250, (1,), (0.2,), 1.0)


@dataclass(frozen=True)
class Row:
    """One passage; milliseconds of processor time a message are those of all relays together."""

    what: str
    samples: int
    share: float
    rate: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    lost: int


class Bench:
    """Starts what is measured, once for each round, and loads it."""

    def __init__(self, extent: Extent, folder: Path, against: Path | None) -> None:
        self.extent = extent
        self.rows: list[Row] = []
        self._folder = folder
        self._against = against
        self._writers = iter(range(1, 1 << 20))

    def round(self, number: int) -> None:
        """Measure everything once."""
        folder, extent = self._folder / str(number), self.extent
        self._proxy("proxy", "plain", folder)
        self._proxy("proxy, encrypted", "curve", folder)
        self._verification()
        if self._against is not None:
            with self._relays("relay before", folder / "before", 1, self._against) as (one, way):
                self._load("relay before", one, way, 1, ())
        with self._relays("relay", folder / "one", 1) as (one, way):
            for samples in extent.samples:
                self._load("relay", one, way, samples, extent.shares)
        with self._relays("two relays", folder / "two", 2) as (two, way):
            self._load("two relays", two, way, 1, extent.shares)

    def _batch(self) -> list[Writer]:
        """Writers that nobody has heard of."""
        return [Writer.numbered(next(self._writers)) for _ in range(self.extent.writers)]

    def _load(self, what: str, relays: list[Measured], way: Way, samples: int, shares: tuple[float, ...]) -> None:
        rate = self._pass(what, relays, way, samples, None, 1.0)
        for share in shares:
            self._pass(what, relays, way, samples, share * rate, share)

    def _pass(
        self, what: str, relays: list[Measured], way: Way, samples: int, rate: float | None, share: float
    ) -> float:
        """Load it once, print and note what came of it; messages a second."""
        extent, writers = self.extent, self._batch()
        count = extent.messages if rate is None else max(2, int(rate * extent.seconds / extent.writers))
        frames = [writer.frames(count, samples) for writer in writers]
        driver = Driver(way, writers)
        try:
            if way.relays:
                driver.introduce(writers)
            before = sum(each.cpu for each in relays)
            passage = driver.pass_on(frames, rate)
            time.sleep(REST)
            used = sum(each.cpu for each in relays) - before
        finally:
            driver.close()
        self._note(what, samples, share, passage, used)
        return passage.rate

    def _note(self, what: str, samples: int, share: float, passage: Passage, used: float) -> None:
        came = len(passage.delays)
        p50, p99 = (1000 * passage.percentile(share) for share in (50, 99))
        row = Row(what, samples, share, passage.rate, 1000 * used / max(came, 1), p50, p99, passage.sent - came)
        self.rows.append(row)
        print(
            f"{what:18} {samples:3} samples, {100 * share:3.0f} %: {row.rate:8.0f} messages/s, "
            f"{row.cpu_ms:.4f} ms of processor time each, p50 {p50:7.1f} ms, p99 {p99:7.1f} ms, lost {row.lost}",
            flush=True,
        )

    def _verification(self) -> None:
        """How long one signature takes, in the processor time of this process."""
        key, text = Key(b"\x01" * 32), signed_head(bytes(32))
        signature, count = key.sign(text), 2000
        began = time.process_time()
        assert all(identity.verify(key.public, text, signature) for _ in range(count))
        seconds = (time.process_time() - began) / count
        self.rows.append(Row("verification", 1, 1.0, 1 / seconds, 1000 * seconds, 0.0, 0.0, 0))
        print(f"verification: {1000 * seconds:.4f} ms of processor time", flush=True)

    def _proxy(self, what: str, way: str, folder: Path) -> None:
        key = Key.fresh()
        with Measured(["-m", "relaying.proxy", way], key, folder / way) as proxy:
            keys = (key.public, key.public) if way == "curve" else None
            ends = Way(proxy.word("ingress"), proxy.word("publications"), keys)
            self._pass(what, [proxy], ends, 1, None, 1.0)

    @contextmanager
    def _relays(
        self, what: str, folder: Path, count: int, source: Path | None = None
    ) -> Iterator[tuple[list[Measured], Way]]:
        """So many relays, each of which dials the one before, and the way through all of them."""
        running: list[Measured] = []
        addresses: list[str] = []
        try:
            for number in range(count):
                own = folder / str(number)
                write_log(own, [])
                dial = ["--join", addresses[-1]] if addresses else []
                running.append(process.relay(own, Key.fresh(), *dial, source=source))
                addresses.append(running[-1].word("address"))
            first, last = parse(addresses[0]), parse(addresses[-1])
            assert first.key is not None
            assert last.key is not None
            yield running, Way(first.endpoint(2), last.endpoint(1), (first.key, last.key), count)
        finally:
            for relay in running:
                relay.kill()


def summary(rows: list[Row]) -> list[Row]:
    """The medians over rounds of what was measured alike."""
    kinds = dict.fromkeys((row.what, row.samples, row.share) for row in rows)
    out = []
    for what, samples, share in kinds:
        same = [row for row in rows if (row.what, row.samples, row.share) == (what, samples, share)]
        rate, cpu, p50, p99 = (
            median(getattr(row, name) for row in same) for name in ("rate", "cpu_ms", "p50_ms", "p99_ms")
        )
        out.append(Row(what, samples, share, rate, cpu, p50, p99, sum(row.lost for row in same)))
    return out


def ratios(rows: list[Row]) -> dict[str, float]:
    """Processor time a message of a relay to that of others: the medians of the ratios within rounds."""
    saturated = [row for row in rows if row.share == 1 and row.samples == 1]
    by_kind: dict[str, list[float]] = {}
    for row in saturated:
        by_kind.setdefault(row.what, []).append(row.cpu_ms)
    pairs = [("relay", "verification"), ("relay", "proxy, encrypted"), ("relay", "relay before")]
    return {
        f"{one} / {other}": round(median(a / b for a, b in zip(by_kind[one], by_kind[other], strict=True) if b), 3)
        for one, other in pairs
        if other in by_kind and any(by_kind[other])
    }


def text(rows: list[Row], found: dict[str, float]) -> str:
    """As Markdown."""
    cells = [
        [
            f"{row.what}, {row.samples} samples" if row.what != "verification" else "one signature verified",
            "saturated" if row.share == 1 else f"{100 * row.share:.0f} %",
            f"{row.rate:,.0f}",
            f"{row.cpu_ms:.3f}",
            *([f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}"] if row.share < 1 else ["", ""]),
            str(row.lost),
        ]
        for row in rows
    ]
    head = ("what", "load", "messages/s", "processor ms a message", "p50 ms", "p99 ms", "lost")
    lines = "".join(f"- {name}: {value:g} times the processor time a message\n" for name, value in found.items())
    return report.table(head, cells) + "\n" + lines


def measure(extent: Extent, out: Path | None = None, against: Path | None = None) -> list[Row]:
    """Measure, print, and write ``relay.json`` and ``relay.md``; the medians."""
    before = report.load()
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        bench = Bench(extent, Path(folder), against)
        for number in range(extent.rounds):
            bench.round(number)
    middle, found = summary(bench.rows), ratios(bench.rows)
    shown = text(middle, found)
    print(shown)
    if out is not None:
        figures: dict[str, Any] = {"load": [before, report.load()], "extent": asdict(extent), "ratios": found}
        figures |= {"medians": [asdict(row) for row in middle], "rows": [asdict(row) for row in bench.rows]}
        report.write(out, "relay", figures, shown)
    return middle


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--out", type=Path, help="write relay.json and relay.md here")
    words.add_argument("--against", type=Path, help="the sources of another version, for a comparison")
    words.add_argument("--quick", action="store_true", help="one short round")
    chosen = words.parse_args()
    measure(QUICK if chosen.quick else Extent(), chosen.out, chosen.against)
