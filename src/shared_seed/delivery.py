"""How much of what steps promise they deliver, from the losses that a peer measures anyway.

A step along ``g z`` lowers the loss of the batch that ``g`` is of by what it promises, ``rate * g**2``. What
another batch's loss falls by is the part that batches have in common, less what the curvature takes (the quadratic
model of :mod:`shared_seed.rate`, with batches of ``B`` rows and ``share = |G|**2 / E[|G_row|**2]``)::

    delivered / promised = B share / (1 + B share) * (1 - promise / (2 share))

Solved for the share, which says how much should be promised::

    share = (delivered / promised / B + promise / 2) / (1 - delivered / promised)

Batches' losses scatter by more than a step moves them, so level and part are followed by a Kalman filter (Kalman
1960; Harvey 1989, "Forecasting, structural time series models and the Kalman filter", section 2.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ROWS = 16
"""Rows of a batch: nobody tells, and the share is asked for to a factor."""

DOUBT = 0.5
"""Standard deviation of the part before anything is known."""

DRIFT = 0.01
"""How far the part may wander from one step to the next, as a standard deviation."""

SCATTER = 0.15
"""Standard deviation of a batch's loss, as a part of it, before anything is known."""

PATIENCE = 0.05
"""Weight of the newest loss in what is known of their scatter."""

MOST_PART = 0.9
"""The largest part that is believed."""


@dataclass
class Delivery:
    """Follows the loss of a peer's batches, and the part of what is promised that they have fallen by.

    Attributes:
        part: delivered of what is promised.
        level: of the loss; NaN before the first one.
        variances: of the level, of both together, of the part.
        scatter: mean square of how far a batch's loss is from the level.
    """

    part: float
    level: float = math.nan
    variances: tuple[float, float, float] = (0.0, 0.0, DOUBT**2)
    scatter: float = 0.0

    @classmethod
    def expecting(cls, share: float, promise: float) -> Delivery:
        """That has seen nothing, and takes steps of a promise to deliver what follows from a share."""
        return cls((share - promise / 2) / (1 / ROWS + share))

    def note(self, loss: float, promised: float) -> None:
        """Follow a loss before a step; one that is not finite says nothing.

        Args:
            loss: of a batch, at the weights.
            promised: nats that everybody's steps since the last loss have promised together.
        """
        if not (math.isfinite(loss) and math.isfinite(promised)):
            return
        if math.isnan(self.level):
            self.level, self.scatter = loss, (SCATTER * loss) ** 2
            self.variances = (self.scatter, *self.variances[1:])
            return
        level, both, part = self.variances
        level, both, part = (
            level - 2 * promised * both + promised**2 * part,
            both - promised * part,
            part + DRIFT**2,
        )
        self.level -= self.part * promised
        surprise, expected = loss - self.level, level + self.scatter
        if expected == 0:
            return
        self.scatter += PATIENCE * (max(surprise**2 - level, self.scatter / 5) - self.scatter)
        self.level += level / expected * surprise
        self.part += both / expected * surprise
        self.variances = (
            level - level**2 / expected,
            both - level * both / expected,
            part - both**2 / expected,
        )

    def share(self, promise: float, doubts: float = 0.0) -> float:
        """The signal's share in one row's gradient, by what steps of ``promise`` nats each have delivered.

        Args:
            promise: nats.
            doubts: how many standard deviations more than is known is taken to be delivered.
        """
        part = min(max(self.part + doubts * math.sqrt(self.variances[2]), 0.0), MOST_PART)
        return (part / ROWS + promise / 2) / (1 - part)
