"""MeZO (Malladi et al. 2023, arXiv 2305.17333), Algorithm 1, in our own words.

``z`` is normal and never stored: each pass over the parameters sets the generator to the step's seed and draws
``z`` again, tensor by tensor. Four passes a step: to ``+eps``, to ``-eps``, back, and the update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from common.workloads import Step, Workload

EPSILON = 1e-3
LEARNING_RATE = 1e-7


def draw(model: Any, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The trainable parameters, each with its part of ``z(seed)``, drawn as it is asked for."""
    generator = torch.Generator(model.device).manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            yield parameter, torch.empty_like(parameter).normal_(generator=generator)


@torch.no_grad()
def add(direction: Iterable[tuple[Tensor, Tensor]], amount: float) -> None:
    """``theta += amount * z``, one pass over the trainable parameters."""
    for parameter, z in direction:
        parameter.add_(z, alpha=amount)


def descend(
    model: Any, value: Callable[[], float], seed: int, learning_rate: float, *, keep: bool = False
) -> None:
    """One step on what ``value`` gives as the loss, without autograd.

    With ``keep``, ``z`` is drawn once and kept for the step: the same step, faster, in twice the memory.
    """
    kept = list(draw(model, seed)) if keep else None

    def move(amount: float) -> None:
        add(draw(model, seed) if kept is None else kept, amount)

    move(EPSILON)
    plus = value()
    move(-2 * EPSILON)
    minus = value()
    move(EPSILON)
    move(-learning_rate * (plus - minus) / (2 * EPSILON))


def step(work: Workload) -> Step:
    """Two forwards and four passes. The weights are written between the forwards, so each has its own autocast."""
    seeds = iter(range(1 << 62))

    def run() -> None:
        descend(work.model, work.value, next(seeds), LEARNING_RATE)

    return run
