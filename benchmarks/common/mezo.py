"""MeZO (Malladi et al. 2023, arXiv 2305.17333), Algorithm 1, in our own words.

``z`` is normal and never stored: each pass over the parameters sets the generator to the step's seed and draws
``z`` again, tensor by tensor. Four passes a step: to ``+eps``, to ``-eps``, back, and the update.
"""

from __future__ import annotations

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


def step(work: Workload) -> Step:
    """Two forwards and four passes. The weights are written between the forwards, so each has its own autocast."""
    seeds = iter(range(1 << 62))

    def run() -> None:
        seed = next(seeds)
        add(work.model, seed, EPSILON)
        plus = work.value()
        add(work.model, seed, -2 * EPSILON)
        minus = work.value()
        add(work.model, seed, EPSILON)
        add(work.model, seed, -LEARNING_RATE * (plus - minus) / (2 * EPSILON))

    return run
