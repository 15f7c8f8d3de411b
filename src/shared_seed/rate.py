"""A learning rate that nobody has to guess.

A step of ``rate * g`` against a direction lowers the loss by ``rate * g**2`` nats, to first order. Here that is
what is chosen, the *promise*, and the rate follows from the projected gradients g as they come::

    rate = min(far * promise / size**2, epsilon / size)      size**2 = mean(g**2) * (1 + 8 / count)

Why nats, and not a distance, are the same for all models: descent along random directions goes best at the rate
``|G|**2 / (E[g**2] * tr H)``, with G the gradient and H the Hessian of the expected loss (the quadratic model of
Spall 1992, section III; Malladi et al. 2023, lemma 3). A cross-entropy's Hessian is near its Fisher information
(Martens 2020, "New insights and perspectives on the natural gradient method", section 9), whose trace is the mean
squared norm of one example's gradient. So the best ``rate * E[g**2]`` is near ``|G|**2 / E[|G_example|**2]``: the
share of the signal in one example's gradient, a number without a unit that knows nothing of parameters, batch size
or adapters. It is measured in ``docs/convergence.md``. Where the loss is above 1, as that over a whole vocabulary
may be, there is further to go, and ``far`` is the loss, but 4 at most; else it is 1. The second bound keeps a step
from going further than its probe has looked.

Every peer takes its own projected gradients, and messages carry the rate, so nobody has to agree on anything.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from shared_seed import codec
from shared_seed.messages import Message, Stream

PROMISE = 0.01
"""Nats that a probe's step is to lower its loss by, to first order; chosen in ``docs/convergence.md``."""

WINDOW = 32
"""Projected gradients whose mean square is taken: the newest ones."""

FAR = 4.0
"""Times the promise that is promised at most where the loss is large."""

CAUTION = 8
"""How many times larger a single gradient is taken to be in square, and less the more there are: the first ones
may be small by chance, and a step by them would be far too long.
"""


class Rate:
    """Follows one peer's projected gradients.

    Args:
        promise: nats, positive.
        epsilon: how far a probe looks.
        scale_exponent: of the codes.
    """

    def __init__(self, promise: float, epsilon: float, scale_exponent: int) -> None:
        self._promise = promise
        self._epsilon = epsilon
        self._scale_exponent = scale_exponent
        self._squares: deque[float] = deque(maxlen=WINDOW)

    def note(self, codes: Iterable[int]) -> None:
        """Follow what has been published; abstentions say nothing.

        Codes, and not what was rounded to them: a peer that resumes has nothing else.
        """
        for code in codes:
            if not codec.is_abstention(code):
                self._squares.append(codec.decode(code, self._scale_exponent) ** 2)

    def resume(self, messages: Iterable[Message], stream: Stream, number: int) -> None:
        """Follow what a peer has published in its streams up to a message of this number in this one."""
        own = [m for m in messages if m.stream.peer == stream.peer and (m.stream, m.number) < (stream, number)]
        self._squares.clear()
        for message in sorted(own, key=lambda m: (m.stream, m.number))[-WINDOW:]:
            self.note(message.codes)

    @property
    def size(self) -> float:
        """Root mean square of the newest projected gradients, cautiously; 0 without any."""
        count = max(1, len(self._squares))
        return math.sqrt(math.fsum(self._squares) / count * (1 + CAUTION / count))

    def value(self, loss: float) -> float:
        """Of the next step of one probe, at a loss that may be NaN; 0 as long as no gradient was other than 0."""
        far = min(loss, FAR) if loss > 1 else 1.0
        return min(far * self._promise / self.size**2, self._epsilon / self.size) if self.size else 0.0
