"""LOZO (Chen et al. 2024, arXiv 2410.07698), Algorithm 1, in our own words.

A matrix moves along ``U V^T`` with normal ``U`` [rows, r] and ``V`` [columns, r]; ``U`` is new in each step and
regenerated from the seed, ``V`` is kept for ``nu`` steps. It is written into the weights: four passes a step, each
a product of rank ``r`` instead of a draw of the whole matrix. Vectors move along a normal ``z`` as in MeZO.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.workloads import Step, Workload

EPSILON = 1e-3
LEARNING_RATE = 1e-7
RANK = 2
INTERVAL = 50


class Lozo:
    """The state between two steps: ``V`` of each matrix."""

    def __init__(self, work: Workload) -> None:
        self._work = work
        self._steps = 0
        self._parameters = [p for p in work.model.parameters() if p.requires_grad]
        self._v: dict[int, Tensor] = {}

    def __call__(self) -> None:
        """One step."""
        seed = self._steps
        if seed % INTERVAL == 0:
            self._draw_v(seed)
        self._steps += 1
        self._add(seed, EPSILON)
        plus = self._work.value()
        self._add(seed, -2 * EPSILON)
        minus = self._work.value()
        self._add(seed, EPSILON)
        self._add(seed, -LEARNING_RATE * (plus - minus) / (2 * EPSILON) / RANK)

    def _draw_v(self, seed: int) -> None:
        generator = torch.Generator(self._work.model.device).manual_seed(-1 - seed)
        for index, parameter in enumerate(self._parameters):
            if parameter.ndim == 2:
                self._v[index] = parameter.new_empty(parameter.shape[1], RANK).normal_(generator=generator)

    @torch.no_grad()
    def _add(self, seed: int, amount: float) -> None:
        generator = torch.Generator(self._work.model.device).manual_seed(seed)
        for index, parameter in enumerate(self._parameters):
            if index in self._v:
                u = parameter.new_empty(parameter.shape[0], RANK).normal_(generator=generator)
                parameter.addmm_(u, self._v[index].T, alpha=amount)
            else:
                parameter.add_(torch.empty_like(parameter).normal_(generator=generator), alpha=amount)


def step(work: Workload) -> Step:
    """Two forwards and four passes of rank-``r`` products."""
    return Lozo(work)
