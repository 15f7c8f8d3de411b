"""What is drawn of simulations, over the number of peers."""

from __future__ import annotations

from collections.abc import Sequence

from shared_seed.swarm.heartbeats import CROWD
from shared_seed.swarm.output import Timing
from simulation.cost import Cost
from simulation.drawing import Plot, Points
from simulation.result import Result
from simulation.topology import TOPOLOGIES

GIGABIT = 125e6
"""Bytes a second."""

TREES = ("flat", "relayed", "tree")
"""The shapes that are drawn where there are many lines."""


def plots(rows: Sequence[Result], costs: Sequence[Cost], step: float) -> list[Plot]:
    """What nodes carry, time to equal sets, time in Python; a step takes ``step`` seconds."""
    rate, some = ("1 Gbit/s", GIGABIT), ("flat", "tree")
    received = _lines(rows, "calm", "rate", TREES) | _lines(rows, "rough", "rate", TREES)
    frames = _lines(rows, "calm", "frame_rate", TREES) | _lines(rows, "rough", "frame_rate", TREES)
    busiest = _lines(rows, "calm", "busiest_rate")
    equal = _lines(rows, "calm", "equal") | _lines(rows, "narrow", "equal", some)
    rough = _lines(rows, "rough", "equal") | _lines(rows, "free", "equal", some)
    share = _shares(costs, step)
    return [
        Plot("received", "what a peer receives", "bytes a second", received, rate),
        Plot("kinds", "what it is for, in a calm tree", "bytes a second", _kinds(rows), rate),
        Plot("frames", "frames that a peer receives", "a second", frames),
        Plot("busiest", "what the busiest node sends, calm", "bytes a second", busiest, rate),
        Plot("equal", "from the last publication to equal sets", "seconds", equal),
        Plot("rough", "the same with loss, churn and a partition", "seconds", rough),
        Plot("python", "time that a peer takes to hear all others", "of one core", share, ("a whole core", 1.0)),
    ]


def _lines(
    rows: Sequence[Result], setting: str, value: str, shapes: Sequence[str] = tuple(TOPOLOGIES)
) -> dict[str, Points]:
    """A line for each shape."""
    out: dict[str, dict[int, float]] = {}
    for row in _whole_last(rows):
        found = getattr(row, value)
        if row.setting == setting and row.shape in shapes and found is not None:
            out.setdefault(f"{row.shape}, {setting}", {})[row.peers] = found
    return {name: sorted(points.items()) for name, points in out.items()}


def _kinds(rows: Sequence[Result]) -> dict[str, Points]:
    """What a peer of a calm tree receives, by what it is for."""
    found = {row.peers: row for row in _whole_last(rows) if (row.setting, row.shape) == ("calm", "tree")}
    return {
        kind: [(peers, row.received_bytes[kind] / row.seconds) for peers, row in sorted(found.items())]
        for kind in ("gradient", "heartbeat", "catch-up", "greeting")
    }


def _whole_last(rows: Sequence[Result]) -> list[Result]:
    """Where a swarm was simulated both ways, the one without stand-ins comes last, and counts."""
    return sorted(rows, key=lambda row: row.whole - row.peers - row.relays)


def _shares(costs: Sequence[Cost], step: float) -> dict[str, Points]:
    """Shares of a core that hearing a swarm takes each peer."""
    beat = Timing().heartbeat
    return {
        "heartbeats": [(c.peers, min(c.peers, CROWD) / beat * c.heartbeat) for c in costs],
        f"messages, a step in {step:g} s": [(c.peers, c.peers / step * c.message) for c in costs],
        "digests of the set, for neighbours": [(c.peers, c.digest / beat) for c in costs],
    }
