"""How far does a swarm grow? Up to ten thousand peers on a simulated network, everything from one seed.

    python benchmarks/simulate.py --out docs/swarm        # plots and swarm.json; about an hour on one idle core
    python benchmarks/simulate.py --quick --out /tmp/swarm
    python benchmarks/simulate.py --one tree 300 --loss 0.02 --churn 0.3 --free
    python benchmarks/simulate.py --one tree 3000 --whole 16

The protocols are those that real peers run, with keys and signatures; sockets, processes and the clock are
simulated (``benchmarks/simulation``). *Calm*: nothing is lost, nobody comes or goes. *Rough*: 2 % of the
published copies get lost, a third of the peers come late, leave, die or die and come back, a relay dies and comes
back empty, and the upper half is cut off for 12 seconds. *Free*: the same, and nobody waits for anybody. *Narrow*:
calm, no node sends more than 100 Mbit/s, and after two minutes the run is given up. Afterwards all survivors must
hold equal sets, with every message of their own and none that nobody published; the program fails if they do not,
unless they had too narrow a line. The same seed prints the same digest, of everything that was sent and of the
ends.

Every node of a smaller swarm is simulated whole. Of a larger one some are, with all relays above them; the others
are stand-ins that sign and publish as peers do and look through the eyes of a whole one instead of hearing
(``benchmarks/simulation/stand_in.py``). What is counted and checked is then of the whole ones.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common import options
from simulation.cost import cost
from simulation.curves import GIGABIT, TREES, plots
from simulation.drawing import draw
from simulation.network import Weather
from simulation.result import Result, result
from simulation.shared import shared_decoding
from simulation.topology import TOPOLOGIES
from simulation.world import Scenario, World

SAMPLE = 16
"""Peers that are simulated whole where not all are."""

CALM = Scenario(rounds=3)
ROUGH = Scenario(rounds=8, churn=1 / 3, weather=Weather(loss=0.02, parted=(10_000, 22_000)))
SETTINGS: Mapping[str, Scenario] = {
    "calm": CALM,
    "rough": ROUGH,
    "free": replace(ROUGH, lockstep=False),
    "narrow": replace(CALM, longest=120, weather=Weather(rate=GIGABIT / 10)),
}

Sizes = Mapping[str, Sequence[int]]
"""Numbers of peers, by the shape of the swarm."""

SMALL: Sizes = dict.fromkeys(TOPOLOGIES, (10, 30, 100))


LARGE = dict.fromkeys(TREES, (300, 1000, 3000))


@dataclass(frozen=True)
class Extent:
    """What to simulate, in each setting: swarms of which every node is whole, and swarms with stand-ins; and for
    how many peers to measure what hearing them costs.
    """

    whole: Mapping[str, Sizes]
    sampled: Mapping[str, Sizes]
    costs: Sequence[int]

    def runs(self) -> list[tuple[str, Scenario]]:
        """Setting and scenario of each run, the small ones first."""
        found = [
            (setting, replace(SETTINGS[setting], shape=shape, peers=peers, whole=whole))
            for part, whole in ((self.whole, None), (self.sampled, SAMPLE))
            for setting, sizes in part.items()
            for shape, all_peers in sizes.items()
            for peers in all_peers
        ]
        return sorted(found, key=lambda run: run[1].peers * (run[1].whole or run[1].peers))


FULL = Extent(
    whole={
        "calm": {**SMALL, **dict.fromkeys(TREES, (10, 30, 100, 300)), "tree": (10, 30, 100, 300, 1000)},
        "rough": {**SMALL, **dict.fromkeys(TREES, (10, 30, 100, 300))},
        "free": SMALL,
    },
    sampled={
        "calm": dict.fromkeys(TREES, (300, 1000, 3000, 10_000)),
        "rough": {**LARGE, "tree": (300, 1000, 3000, 10_000)},
        "free": {"tree": (1000,)},
        "narrow": {"flat": (100, 300, 400, 500, 700), "relayed": (700, 1000, 2000), "tree": (3000,)},
    },
    costs=(10, 100, 1000, 10_000),
)
QUICK = Extent(
    whole={"calm": SMALL, "rough": dict.fromkeys(TREES, (10, 30))},
    sampled={"calm": {"tree": (1000,)}, "narrow": {"flat": (100,)}},
    costs=(10, 100, 1000),
)


def simulate(setting: str, scenario: Scenario) -> Result:
    """Run one scenario and print a line about it."""
    began = time.process_time()
    world = World(scenario)
    # Collecting garbage goes through millions of live objects, again and again, and finds none.
    gc.disable()
    try:
        with shared_decoding(4 * world.topology.nodes + 1000):
            world.run()
    finally:
        gc.enable()
    row = result(setting, world)
    equal = "never" if row.equal is None else f"{row.equal:.1f} s"
    print(
        f"{setting:6} {row.shape:8} {row.peers:5d} peers, {row.whole:5d} whole: {row.messages:5d} messages"
        f" in {row.seconds:6.1f} s; a peer received {row.received / 1e6:8.3f} MB, {row.rate / 1e3:7.1f} kB/s;"
        f" busiest node {row.busiest_rate / 1e6:8.3f} MB/s; equal after {equal}, gone after {row.ended:.1f} s;"
        f" digest {row.digest}; processor time {time.process_time() - began:.1f} s",
        *(f"\n  BROKEN: {line}" for line in row.broken),
        flush=True,
    )
    return row


def measure(out: Path, extent: Extent) -> list[Result]:
    """Run everything, write it down as it comes, draw it."""
    out.mkdir(parents=True, exist_ok=True)
    costs = [cost(peers) for peers in extent.costs]
    for each in costs:
        print(
            f"{each.peers:5d} peers: heartbeat {each.heartbeat_bytes} bytes, {1e6 * each.heartbeat:.0f} us;"
            f" message {each.message_bytes} bytes, {1e6 * each.message:.0f} us to hear; a look at who is waited"
            f" for {1e6 * each.look:.0f} us; digest of a set that is all new {1e6 * each.digest:.0f} us",
            flush=True,
        )
    rows: list[Result] = []
    for setting, scenario in extent.runs():
        rows.append(simulate(setting, scenario))
        found = {"runs": [asdict(row) for row in rows], "costs": [asdict(each) for each in costs]}
        options.write(out / "swarm.json", found, "cpu")
    for plot in plots(rows, costs, CALM.step):
        draw(out, plot)
    return rows


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--out", type=Path, default=Path("docs/swarm"))
    words.add_argument("--quick", action="store_true", help="up to 100 peers, and 1,000 once")
    words.add_argument("--one", nargs=2, metavar=("SHAPE", "PEERS"), help="run this alone, as the rest says")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--rounds", type=int, default=4)
    words.add_argument("--step", type=float, default=Scenario("flat").step, help="seconds, on average")
    words.add_argument("--loss", type=float, default=0.0, help="share of published copies")
    words.add_argument("--churn", type=float, default=0.0, help="share of peers that do not just stay")
    words.add_argument("--rate", type=float, help="bytes a second that a node can send")
    words.add_argument("--parted", nargs=2, type=float, metavar=("FROM", "TO"), default=(0.0, 0.0), help="seconds")
    words.add_argument("--whole", type=int, help="peers that are no stand-ins; all by default")
    words.add_argument("--free", action="store_true", help="nobody waits for anybody")
    return words


def main() -> int:
    """Do what the command line asks for; 1 if anything was broken."""
    words = parser().parse_args()
    if words.one:
        shape, peers = words.one
        start, end = (int(1000 * seconds) for seconds in words.parted)
        weather = Weather(loss=words.loss, rate=words.rate, parted=(start, end))
        scenario = Scenario(
            shape,
            int(peers),
            words.seed,
            words.rounds,
            words.step,
            lockstep=not words.free,
            churn=words.churn,
            whole=words.whole,
            weather=weather,
        )
        rows = [simulate("one", scenario)]
    else:
        rows = measure(words.out, QUICK if words.quick else FULL)
    return 1 if any(row.broken and row.setting != "narrow" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
