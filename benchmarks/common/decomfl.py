"""DeComFL (Li et al. 2024, arXiv 2405.15861), Algorithms 3 and 4, in our own words.

Peers exchange seeds and scalars. A client finds its scalar by a forward difference, ``(f(x + mu z) - f(x)) / mu``,
and brings its model up to date by regenerating ``z`` once for every scalar that it is told. Its local update is
taken back before that, and with one local step both are left out here, in DeComFL's favour.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common.mezo import add, draw
from common.workloads import Step, Workload

MU = 1e-3
LEARNING_RATE = 1e-7


def rebuild(model: Any, scalars: Iterable[tuple[int, float]]) -> None:
    """Apply every peer's ``(seed, scalar)``: one pass over the parameters each."""
    for seed, scalar in scalars:
        add(draw(model, seed), -LEARNING_RATE * scalar)


def step(work: Workload) -> Step:
    """One client, one perturbation: two forwards and three passes."""
    seeds = iter(range(1 << 62))

    def run() -> None:
        seed = next(seeds)
        here = work.value()
        add(draw(work.model, seed), MU)
        there = work.value()
        add(draw(work.model, seed), -MU)
        rebuild(work.model, [(seed, (there - here) / MU)])

    return run
