"""How far does a swarm grow? Up to a thousand real protocols on a simulated network, everything from one seed.

    python benchmarks/simulate.py --out docs/swarm        # plots and swarm.json; about ten minutes
    python benchmarks/simulate.py --quick --out /tmp/swarm
    python benchmarks/simulate.py --one tree 300 --loss 0.02 --churn 0.3 --free

The protocols are those that real peers run; sockets, processes and the clock are simulated
(``benchmarks/simulation``). *Calm*: nothing is lost, nobody comes or goes. *Rough*: 2 % of the published copies
get lost, a third of the peers come late, leave, die or die and come back, a relay dies and comes back empty, and
the upper half is cut off for 12 seconds. *Free*: the same, and nobody waits for anybody. *Narrow*: calm, no node
sends more than 100 Mbit/s, and after two minutes the run is given up. Afterwards all survivors must hold equal
sets, with every message of their own and none that nobody published; the program fails if they do not, unless
they had too narrow a line. The same seed prints the same digest, of everything that was sent and of the ends.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common import options
from shared_seed.swarm.protocol import POSTPONED, Timing
from simulation.cost import Cost, heartbeat
from simulation.drawing import Plot, Points, draw
from simulation.network import Weather
from simulation.result import Result, result
from simulation.shared import shared_decoding
from simulation.topology import TOPOLOGIES
from simulation.world import Scenario, World

GIGABIT = 125e6
"""Bytes a second."""

MOST = {"hubs": 100, "relayed": 300}
"""Peers at most, by shape; what copies more takes longer to simulate."""

CALM = Scenario(rounds=3)
ROUGH = Scenario(rounds=8, churn=1 / 3, weather=Weather(loss=0.02, parted=(10_000, 22_000)))
FREE = replace(ROUGH, lockstep=False)
NARROW = Scenario(rounds=3, longest=120, weather=Weather(rate=GIGABIT / 10))


@dataclass(frozen=True)
class Extent:
    """How many peers, in each setting; ``costs`` are numbers of streams in a heartbeat."""

    calm: Sequence[int] = (10, 30, 100, 300, 1000)
    rough: Sequence[int] = (10, 30, 100)
    free: Sequence[int] = (10, 30, 100)
    narrow: Sequence[int] = (10, 30, 60, 100, 150, 200)
    costs: Sequence[int] = (10, 30, 100, 300, 1000, 4000)
    shapes: Sequence[str] = tuple(TOPOLOGIES)


QUICK = Extent((10, 30, 100), (10, 30), (10, 30), (10, 30), (10, 100, 1000))


def simulate(setting: str, scenario: Scenario) -> Result:
    """Run one scenario and print a line about it."""
    began = time.perf_counter()
    world = World(scenario)
    # Collecting garbage goes through millions of live objects, again and again, and finds none.
    gc.disable()
    try:
        with shared_decoding(2 * world.topology.nodes + 200):
            world.run()
    finally:
        gc.enable()
    row = result(setting, world)
    beats = row.received_bytes["heartbeat"] / max(1, row.received_bytes["gradient"])
    equal = "never" if row.equal is None else f"{row.equal:.1f} s"
    print(
        f"{setting:6} {row.shape:8} {row.peers:5d} peers: {row.messages:5d} messages in {row.seconds:6.1f} s;"
        f" a peer received {row.received / 1e6:9.3f} MB, heartbeats {beats:6.0f} times the gradients;"
        f" busiest node {row.busiest_rate / 1e6:9.3f} MB/s; equal after {equal};"
        f" digest {row.digest}; took {time.perf_counter() - began:.1f} s",
        *(f"\n  BROKEN: {line}" for line in row.broken),
        flush=True,
    )
    return row


def _lines(
    rows: Sequence[Result], setting: str, value: str, shapes: Sequence[str] = tuple(TOPOLOGIES)
) -> dict[str, Points]:
    out: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        found = getattr(row, value)
        if row.setting == setting and row.shape in shapes and found is not None:
            out.setdefault(f"{row.shape}, {setting}", []).append((row.peers, found))
    return dict(out)


def plots(rows: Sequence[Result], costs: Sequence[Cost]) -> list[Plot]:
    """What is drawn: traffic of a peer, of the busiest node, time to equal sets, time in Python."""
    flat = [row for row in rows if row.setting == "calm" and row.shape == "flat"]
    kinds = {
        kind: [(row.peers, row.received_bytes[kind] / row.seconds) for row in flat]
        for kind in ("gradient", "heartbeat", "greeting")
    }
    rate, some = ("1 Gbit/s", GIGABIT), ("flat", "tree")
    busiest = _lines(rows, "calm", "busiest_rate")
    equal = _lines(rows, "calm", "equal") | _lines(rows, "narrow", "equal", some)
    rough = _lines(rows, "rough", "equal") | _lines(rows, "free", "equal", some)
    # One heartbeat of each peer in this time; who publishes often postpones them.
    every, rarely = Timing().heartbeat, Timing().heartbeat * (POSTPONED + 1)
    share: dict[str, Points] = {
        f"a heartbeat every {interval:g} s, {when}": [(c.streams, c.streams * c.seconds / interval) for c in costs]
        for interval, when in ((every, "steps of 2 s or more"), (rarely, "short steps"))
    }
    return [
        Plot("received", "what a peer receives, flat and calm", "bytes a second", kinds, rate),
        Plot("busiest", "what the busiest node sends, calm", "bytes a second", busiest, rate),
        Plot("equal", "from the last publication to equal sets", "seconds", equal),
        Plot("rough", "the same with loss, churn and a partition", "seconds", rough),
        Plot("python", "time to hear all peers' heartbeats", "of one core", share, ("a whole core", 1.0)),
    ]


def measure(out: Path, extent: Extent) -> list[Result]:
    """Run everything, draw it, write it down."""
    rows = []
    for setting, scenario, sizes in (
        ("rough", ROUGH, extent.rough),
        ("free", FREE, extent.free),
        ("narrow", NARROW, extent.narrow),
        ("calm", CALM, extent.calm),
    ):
        for peers in sizes:
            for shape in extent.shapes:
                if peers <= MOST.get(shape, peers):
                    rows.append(simulate(setting, replace(scenario, shape=shape, peers=peers)))
    costs = [heartbeat(streams) for streams in extent.costs]
    for cost in costs:
        print(
            f"heartbeat of {cost.streams:5d} streams: {cost.bytes:6d} bytes, {1e6 * cost.seconds:8.1f} us to hear"
        )
    out.mkdir(parents=True, exist_ok=True)
    for plot in plots(rows, costs):
        draw(out, plot)
    found = {"runs": [asdict(row) for row in rows], "heartbeats": [asdict(cost) for cost in costs]}
    options.write(out / "swarm.json", found, "cpu")
    return rows


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--out", type=Path, default=Path("docs/swarm"))
    words.add_argument("--quick", action="store_true", help="up to 100 peers")
    words.add_argument("--one", nargs=2, metavar=("SHAPE", "PEERS"), help="run this alone, as the rest says")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--rounds", type=int, default=4)
    words.add_argument("--loss", type=float, default=0.0, help="share of published copies")
    words.add_argument("--churn", type=float, default=0.0, help="share of peers that do not just stay")
    words.add_argument("--rate", type=float, help="bytes a second that a node can send")
    words.add_argument("--free", action="store_true", help="nobody waits for anybody")
    return words


def main() -> int:
    """Do what the command line asks for; 1 if anything was broken."""
    words = parser().parse_args()
    if words.one:
        shape, peers = words.one
        weather = Weather(loss=words.loss, rate=words.rate)
        scenario = Scenario(
            shape,
            int(peers),
            words.seed,
            words.rounds,
            lockstep=not words.free,
            churn=words.churn,
            weather=weather,
        )
        rows = [simulate("one", scenario)]
    else:
        rows = measure(words.out, QUICK if words.quick else Extent())
    return 1 if any(row.broken and row.setting != "narrow" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
