"""MeZO (Malladi et al. 2023, arXiv 2305.17333), Algorithm 1, in our own words.

``z`` is normal and never stored: each pass over the parameters sets the generator to the step's seed and draws
``z`` again, tensor by tensor. Four passes a step: to ``+eps``, to ``-eps``, back, and the update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from common.workloads import Step, Workload

EPSILON = 1e-3
LEARNING_RATE = 1e-7


@torch.no_grad()
def add(model: Any, seed: int, amount: float) -> None:
    """``theta += amount * z(seed)``, one pass over the trainable parameters."""
    generator = torch.Generator(model.device).manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            z = torch.empty_like(parameter).normal_(generator=generator)
            parameter.add_(z, alpha=amount)


def descend(model: Any, value: Callable[[], float], seed: int, learning_rate: float) -> None:
    """One step on what ``value`` gives as the loss, without autograd."""
    add(model, seed, EPSILON)
    plus = value()
    add(model, seed, -2 * EPSILON)
    minus = value()
    add(model, seed, EPSILON)
    add(model, seed, -learning_rate * (plus - minus) / (2 * EPSILON))


def step(work: Workload) -> Step:
    """Two forwards and four passes. The weights are written between the forwards, so each has its own autocast."""
    seeds = iter(range(1 << 62))

    def run() -> None:
        descend(work.model, work.value, next(seeds), LEARNING_RATE)

    return run
