"""What one side adds to a projected gradient: curvature, which is taken off again.

A probe along several directions evaluates each at one side only, so its projected gradients are
``G z + epsilon / 2 * z H z`` (Spall 1997 on one-sided SPSA). The first part is 0 on average over directions, the
second is ``epsilon / 2 * tr H``, nearly the same along all of them, and says nothing of where to go: a step would
take it for gradient. A peer follows the mean of its own and publishes what is above it. It follows it by the bytes
that it has published, so whoever has these can tell what was taken off: a peer that resumes, and an audit.

The mean is a measurement of the trace of the Hessian as well, which decides how far a step should go
(:mod:`shared_seed.rate`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from shared_seed import codec

WINDOW = 32
"""Messages that the mean goes by, the newer the more."""


class Curvature:
    """Follows one peer's projected gradients.

    Args:
        scale_exponent: of the codes.
        directions: of a batch; a single one is evaluated at both sides, where curvature cancels.

    Attributes:
        excess: what is to be taken off the next projected gradients.
        square: mean square of what remains of them.
        count: of the messages so far.
    """

    def __init__(self, scale_exponent: int, directions: int) -> None:
        self._scale_exponent = scale_exponent
        self._one_sided = directions > 1
        self.excess, self.square, self.count = 0.0, 0.0, 0

    def note(self, codes: Iterable[int]) -> None:
        """Follow a message's codes, in the order in which they were published; abstentions say nothing."""
        known = codec.said(codes, self._scale_exponent)
        if not self._one_sided or not known:
            return
        self.count += 1
        weight = 1 / min(self.count + 1, WINDOW)
        self.square += (math.fsum(g * g for g in known) / len(known) - self.square) / min(self.count, WINDOW)
        self.excess += weight * math.fsum(known) / len(known)

    def follow(self, messages: Iterable[Iterable[int]]) -> None:
        """Begin anew, with the codes of these messages."""
        self.excess, self.square, self.count = 0.0, 0.0, 0
        for codes in messages:
            self.note(codes)

    def trace(self, epsilon: float) -> float:
        """Of the Hessian, in the loss's unit: ``2 / epsilon`` times what one side adds."""
        return 2 * self.excess / epsilon
