"""The signal's share in a row's gradient, from what rows of batches have in common.

A batch shows the share (:mod:`shared_seed.rows`) with an error whose variance is ``2 / directions * (share + 1 /
rows)**2``, as that of squares of normal variables; the share wanders as training goes on. Both are followed by a
scalar Kalman filter (Kalman 1960).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from shared_seed.rows import Shared

DOUBT = 0.05
"""Standard deviation of the share before anything is known."""

DRIFT = 0.02
"""How far the share may wander from one step to the next, as a part of it, as a standard deviation, and further as
steps have moved the loss.
"""

SMALL = 0.001
"""Of a share below it, as that of one: there may come to be more to learn again."""


@dataclass
class Signal:
    """Follows the share.

    Attributes:
        share: may be a little below 0, where rows have nothing in common.
        variance: of the share; 0 as long as no batch has shown any.
    """

    share: float
    variance: float = 0.0

    @property
    def is_known(self) -> bool:
        """Whether any batch has shown its rows."""
        return self.variance > 0

    def note(self, found: Shared, moved: float = 0.0) -> None:
        """Follow a batch; one whose gradients are not finite, or all 0, says nothing.

        Args:
            found: what its rows have in common.
            moved: which part of the loss the steps since the last batch have promised to take away.
        """
        if not (math.isfinite(found.signal) and math.isfinite(found.square) and found.square > 0):
            return
        before = self.variance + ((DRIFT + moved) * max(self.share, SMALL)) ** 2 if self.is_known else DOUBT**2
        error = 2 / found.directions * (max(self.share, 0.0) + 1 / found.rows) ** 2
        gain = before / (before + error)
        self.share += gain * (found.signal / found.square - self.share)
        self.variance = (1 - gain) * before

    def at(self, doubts: float) -> float:
        """The share, so many standard deviations above what is known."""
        return max(0.0, self.share + doubts * math.sqrt(self.variance))
