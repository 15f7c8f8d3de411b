"""What is believed of the signal's share in one row's gradient, from what rows say and how losses fall.

A grid filter (Bucy and Senne 1971): a chance for each of some shares, times how likely each makes what is seen,
moved on as steps take from what there is to learn. Seen are

- what rows of a batch have in common (:mod:`shared_seed.rows`): the mean square of the batch's projected
  gradients over that of its rows' is ``share + (1 - share) / rows``, times a chi-square variable over its degrees
  of freedom;
- the loss before each step. By the quadratic model of :mod:`shared_seed.rate`, steps that promise ``P`` nats
  together, ``promise`` each, lower it by ``P * rows * (share - stiffness * promise / 2) / (1 + rows * share)``.
  Batches scatter by more than a step moves them, so for each share the level of the loss is followed by a Kalman
  filter (Kalman 1960), which is the same for all of them but for where it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared_seed.rows import Shared

Numbers = NDArray[np.float64]

SHARES: Numbers = np.geomspace(2.0**-13, 0.9, 40)
"""The shares that chances are kept of."""

GAP = float(np.log(SHARES[1] / SHARES[0]))
"""Between two of them, in their logarithm."""

SPREAD = 1.0
"""Standard deviation of the share's logarithm before anything is seen: two thirds are within a factor of e."""

ROWS = 16
"""Rows of a batch, for what losses say: nobody tells, and the share is asked for to a factor."""

FALL, WANDER = 0.6, 0.3
"""What a nat that steps promise takes from the share's logarithm, since what can be learnt fastest is learnt first
(measured in ``docs/experiments.md``), and the standard deviation of that.
"""

ALL = 40.0
"""Nats after which nothing that was believed before is left."""

DRIFT = 0.02
"""Standard deviation of the share's logarithm from one step to the next besides."""

SCATTER = 0.15
"""Standard deviation of a batch's loss, as a part of it, before anything is known."""

PATIENCE = 0.05
"""Weight of the newest loss in what is known of their scatter."""


def prior(share: float) -> Numbers:
    """Chances of the shares, whose mean is about this one: a normal distribution of the logarithm."""
    centre = math.log(share) - SPREAD**2 / 2
    chances: Numbers = np.exp(-(((np.log(SHARES) - centre) / SPREAD) ** 2) / 2)
    chances /= chances.sum()
    return chances


@dataclass
class Belief:
    """Chances of shares, and the level of the loss for each.

    Attributes:
        chances: float64 [shares].
        levels: of the loss, float64 [shares]; NaN before the first one.
        variance: of each level.
        scatter: mean square of how far a batch's loss is from the level.
    """

    chances: Numbers
    levels: Numbers = field(default_factory=lambda: np.full(len(SHARES), math.nan))
    variance: float = 0.0
    scatter: float = 0.0

    @property
    def share(self) -> float:
        """The mean: by the quadratic model, what a step gains goes by it alone, whatever else the share may be."""
        return float(self.chances @ SHARES)

    @property
    def state(self) -> tuple[float, ...]:
        """All numbers, for :meth:`of`; NaN before the first loss."""
        return (self.variance, self.scatter, *self.chances.tolist(), *self.levels.tolist())

    @classmethod
    def of(cls, state: Sequence[float]) -> Belief:
        """What :attr:`state` was taken of."""
        variance, scatter, *known = state
        chances, levels = np.array(known).reshape(2, len(SHARES))
        return cls(chances, levels, variance, scatter)

    def learnt(self, nats: float) -> None:
        """Steps have promised so much, as gradients of a loss count whose curvature is a row's square."""
        nats = min(nats, ALL)
        variance = max(DRIFT**2 + WANDER**2 * nats, FALL * nats * GAP)
        # Not further at once than a walk between neighbours can go.
        parts = math.ceil(2 * variance / GAP**2)
        fall = FALL * nats / parts
        up = ((variance / parts + fall**2) / GAP - fall) / (2 * GAP)
        for _ in range(parts):
            self._walk(up, up + fall / GAP)

    def _walk(self, up: float, down: float) -> None:
        """Each chance goes to the share's neighbours by these parts; none leaves the grid."""
        before = self.chances
        after = before * (1 - up - down)
        after[1:] += up * before[:-1]
        after[:-1] += down * before[1:]
        after[-1] += up * before[-1]
        after[0] += down * before[0]
        self.chances = after

    def saw_rows(self, found: Shared) -> None:
        """Follow a batch; one whose gradients are not finite, or all 0, says nothing."""
        if not (math.isfinite(found.signal) and math.isfinite(found.square) and found.square > 0):
            return
        share = found.signal / found.square
        # What rows of a label have in common is an estimate, and may leave less than there can be.
        power = max(0.0, share + (1 - share) / found.rows)
        expected = SHARES + (1 - SHARES) / found.rows
        self._weigh(-found.directions / 2 * (np.log(expected) + power / expected))

    def saw_loss(self, loss: float, promised: float, most: float, curved: float) -> None:
        """Follow a loss before a step; one that is not finite says nothing.

        Args:
            loss: of a batch, at the weights.
            promised: nats that everybody's steps since the last loss have promised together.
            most: nats that one step promised.
            curved: the share at which such steps deliver nothing.
        """
        if not (math.isfinite(loss) and math.isfinite(promised)):
            return
        if np.isnan(self.levels[0]):
            self.levels = np.full(len(SHARES), loss)
            self.variance = self.scatter = (SCATTER * loss) ** 2
            return
        part = ROWS / (1 + ROWS * SHARES)
        self.levels = self.levels - promised * part * (SHARES - curved)
        # A step goes by one batch's noise: how far it moves the others' loss is as uncertain as that.
        self.variance += promised * most * float(self.chances @ (part * SHARES))
        surprises, expected = loss - self.levels, self.variance + self.scatter
        if expected == 0:
            return
        surprise = float(self.chances @ surprises)
        self.scatter += PATIENCE * (max(surprise**2 - self.variance, self.scatter / 5) - self.scatter)
        self._weigh(-(surprises**2) / expected / 2)
        gain = self.variance / expected
        self.levels = self.levels + gain * surprises
        self.variance *= 1 - gain

    def shift(self, nats: float) -> None:
        """The loss is another from now on, by so much at the same weights."""
        self.levels = self.levels + nats

    def _weigh(self, likelihoods: Numbers) -> None:
        """By the logarithm of how likely each share makes what is seen."""
        chances = self.chances * np.exp(likelihoods - likelihoods.max())
        # What was seen may be so unlikely that nothing is left of the share that makes it likely.
        self.chances = np.maximum(chances / chances.sum(), 1e-12)
        self.chances /= self.chances.sum()
