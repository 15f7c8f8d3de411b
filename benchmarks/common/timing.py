"""Time contestants side by side on a machine that others use too.

Other work comes and goes over seconds, so contestants take turns: each round runs every one of them once, in an
order that shifts from round to round, and a ratio is taken within a round, between neighbours in time. What is
reported is the median of those ratios; a round that something disturbed is an outlier, not a shift. The least time
of each contestant is kept too: noise only ever adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from statistics import median

import torch


def seconds(run: Callable[[], object], device: str = "cpu") -> float:
    """How long one call takes; a GPU is idle before and after."""
    _synchronize(device)
    began = time.perf_counter()
    run()
    _synchronize(device)
    return time.perf_counter() - began


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


class Times:
    """Seconds of each contestant by round."""

    def __init__(self) -> None:
        self.rounds: dict[str, dict[int, float]] = {}

    def note(self, name: str, round_: int, taken: float) -> None:
        """Keep one measurement."""
        self.rounds.setdefault(name, {})[round_] = taken

    def median(self, name: str) -> float:
        """The median of a contestant's seconds."""
        return median(self.rounds[name].values())

    def least(self, name: str) -> float:
        """The least of a contestant's seconds."""
        return min(self.rounds[name].values())

    def ratio(self, name: str, base: str) -> float:
        """How many times as long as ``base``: the median of the ratios within each round that both ran in."""
        ours, theirs = self.rounds[name], self.rounds[base]
        return median(ours[r] / theirs[r] for r in ours if r in theirs)

    def least_ratio(self, name: str, base: str) -> float:
        """The ratio of the least times."""
        return self.least(name) / self.least(base)


def contest(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    every: Mapping[str, int] | None = None,
    warm: Collection[str] = (),
    device: str = "cpu",
) -> Times:
    """Run contestants in turn, after one run of each that does not count.

    Args:
        contestants: what to call, by name.
        rounds: how many times each runs.
        every: for slow ones, in which rounds: each so many, from the first on.
        warm: names of those that need no run before.
        device: synchronized around each call.
    """
    for name, run in contestants.items():
        if name not in warm:
            seconds(run, device)
    times, names = Times(), list(contestants)
    for round_ in range(rounds):
        shift = round_ % len(names)
        for name in names[shift:] + names[:shift]:
            if round_ % (every or {}).get(name, 1) == 0:
                times.note(name, round_, seconds(contestants[name], device))
    return times
