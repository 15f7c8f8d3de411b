"""A learning rate that nobody has to guess.

A step of ``rate * g`` against a direction lowers the loss by ``rate * g**2`` nats, to first order. Here that is
what is chosen, the *promise*, and the rate follows from the projected gradients g as they come::

    rate = min(promise / size**2, reach * epsilon / size)      size**2 = mean(g**2) * (1 + 8 / count)

Why nats, and not a distance, are the same for all models: descent along random directions goes best at the rate
``|G|**2 / (E[g**2] * tr H)``, with G the gradient and H the Hessian of the expected loss (the quadratic model of
Spall 1992, section III; Malladi et al. 2023, lemma 3). A cross-entropy's Hessian is near its Fisher information
(Martens 2020, "New insights and perspectives on the natural gradient method", section 9), whose trace is the mean
squared norm of one example's gradient. So the best ``rate * E[g**2]`` is near ``|G|**2 / E[|G_example|**2]``: the
share of the signal in one example's gradient, a number without a unit that knows nothing of parameters, batch size
or adapters. It is measured in ``docs/convergence.md``.

That share is large where all examples ask for the same, as of a model that does not know yet what is wanted of
it, and falls as there is less to learn. So the promise begins at a usual share, :data:`PROMISE`, or more where the
loss is above 1, and follows what steps deliver of what they promise (:mod:`shared_seed.delivery`), or, where the
losses of single rows are known, what rows have in common (:mod:`shared_seed.signal`), which shows at once. The
second bound keeps a step near where its probe has looked: no further, or, where rows ask for more than usual, as
many times as far, eight at most.

Every peer takes its own projected gradients and losses, and messages carry the rate, so nobody has to agree on
anything.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from shared_seed import codec
from shared_seed.delivery import Delivery
from shared_seed.messages import Message, Stream
from shared_seed.rows import Shared
from shared_seed.signal import Signal

PROMISE = 0.01
"""Nats that a probe's step is to lower its loss by, to first order, where that is the signal's share; chosen in
``docs/convergence.md``.
"""

LEAST, MOST = 1 / 8, 32.0
"""Times the promise that is given that is promised at least, so that something can be learnt of what it delivers,
and at most.
"""

FAR = 4.0
"""Times the promise that a run begins with at most, where its first loss is large."""

BY_LOSSES = 0.5, 1.0, 2**0.25
"""Standard deviations by which losses must say that more, or less, should be promised; and how many times the last
step's promise is promised at most, and how small a part of it at least.
"""

BY_ROWS = 2.0, 0.5, 2.0
"""The same where rows say what they have in common: more soon, but only if it is sure, since a step that promises
twice the share gains nothing, and one of half of it most of what can be gained.
"""

WINDOW = 32
"""Projected gradients whose mean square is taken: the newest ones."""

REACH = 8.0
"""How many times as far as a probe looks a step goes at most, where rows ask for as many times more than usual."""

CAUTION = 8
"""How many times larger a single gradient is taken to be in square, and less the more there are: the first ones
may be small by chance, and a step by them would be far too long.
"""


LEARNT = 10
"""Numbers of :attr:`Rate.state`."""


class Rate:
    """Follows one peer's projected gradients.

    Args:
        promise: nats, positive: of a step where the share of the signal is the usual one.
        epsilon: how far a probe looks.
        scale_exponent: of the codes.
        follow: what steps deliver; otherwise the promise stays as it is.
    """

    def __init__(self, promise: float, epsilon: float, scale_exponent: int, *, follow: bool = True) -> None:
        self._promise = promise
        self._epsilon = epsilon
        self._scale_exponent = scale_exponent
        self._follow = follow
        self._squares: deque[float] = deque(maxlen=WINDOW)
        # Where more is asked for than usual, as of a loss in another unit, that is taken for the unit.
        self._unit = max(1.0, promise / PROMISE)
        self._gone = 0.0
        self._begin(promise)
        self._fresh = True

    def note(self, codes: Iterable[int]) -> None:
        """Follow what has been published; abstentions say nothing.

        Codes, and not what was rounded to them: a peer that resumes has nothing else.
        """
        for code in codes:
            if not codec.is_abstention(code):
                self._squares.append(codec.decode(code, self._scale_exponent) ** 2)

    def went(self, messages: Iterable[Message]) -> None:
        """Note that the weights have gone by these messages, everybody's, since the last loss."""
        if self._follow:
            self._gone = math.fsum((self._gone, *map(self._promised_by, messages)))

    def learn(self, loss: float, found: Shared | None = None) -> None:
        """Follow the loss before a step, which may be NaN, and what has been delivered of what was promised.

        Args:
            loss: of the batch.
            found: what its rows have in common, where the task tells.
        """
        if not self._follow:
            return
        if self._fresh:
            if not math.isfinite(loss):
                return
            self._begin(self._promise * min(max(1.0, loss), FAR))
        self._delivery.note(loss, self._gone)
        if found is not None:
            self._signal.note(found, min(1.0, self._gone / loss) if loss > 0 else 0.0)
        self._gone = 0.0
        rise, fall, pace = BY_LOSSES
        least, most = (self._delivery.share(self._now / self._unit, doubts) for doubts in (-rise, fall))
        if self._signal.is_known:
            # What rows have in common can be had; losses still say if it is not.
            rise, fall, pace = BY_ROWS
            least, most = self._signal.at(-rise), min(most, self._signal.at(fall))
        wanted = min(max(self._now, self._asked(least)), self._asked(most))
        self._promise_now(min(max(wanted, self._now / pace), self._now * pace))

    def _asked(self, share: float) -> float:
        """What a share asks to promise."""
        return self._promise * share / PROMISE

    def _begin(self, promise: float) -> None:
        """Promise so much, and take that to be right until losses say otherwise."""
        self._fresh = False
        self._promise_now(promise)
        share = PROMISE * self._now / self._promise
        self._delivery = Delivery.expecting(share, self._now / self._unit)
        self._signal = Signal(share)

    def _promise_now(self, promise: float) -> None:
        self._now = min(max(promise, self._promise * LEAST), self._promise * MOST)

    def _promised_by(self, message: Message) -> float:
        squares = (codec.decode(c, self._scale_exponent) ** 2 for c in message.codes if not codec.is_abstention(c))
        return message.learning_rate * math.fsum(squares)

    @property
    def state(self) -> tuple[float, ...]:
        """What is known beside the messages, for :meth:`restore`; nothing before the first loss."""
        known, signal = self._delivery, self._signal
        if math.isnan(known.level):
            return ()
        delivered = known.level, known.part, known.scatter, *known.variances
        return self._now, self._gone, *delivered, signal.share, signal.variance

    def restore(self, state: Sequence[float]) -> None:
        """Go on from a state, before :meth:`resume`; from none, begin anew."""
        if state:
            now, self._gone, level, part, scatter, *variances, share, variance = state
            self._begin(now)
            self._delivery = Delivery(part, level, (variances[0], variances[1], variances[2]), scatter)
            self._signal = Signal(share, variance)

    def resume(
        self, messages: Iterable[Message], stream: Stream, number: int, schedule: Callable[[int], float]
    ) -> None:
        """Follow what a peer has published in its streams up to a message of this number in this one.

        What it has learnt is not in messages; unless that is restored, it begins with what the newest ones,
        everybody's, have promised.

        Args:
            messages: everybody's, in any order.
            stream: the peer's newest one.
            number: of its next message in there.
            schedule: the part of :meth:`value` that steps of a round go by.
        """
        messages = list(messages)
        newest = sorted(messages, key=lambda m: (m.round, m.stream))[-WINDOW:]
        full = math.fsum(len(message.codes) * schedule(message.round) for message in newest)
        if self._follow and self._fresh and full > 0:
            self._begin(math.fsum(map(self._promised_by, newest)) / full)
        own = [m for m in messages if m.stream.peer == stream.peer and (m.stream, m.number) < (stream, number)]
        self._squares.clear()
        for message in sorted(own, key=lambda m: (m.stream, m.number))[-WINDOW:]:
            self.note(message.codes)

    @property
    def size(self) -> float:
        """Root mean square of the newest projected gradients, cautiously; 0 without any."""
        count = max(1, len(self._squares))
        return math.sqrt(math.fsum(self._squares) / count * (1 + CAUTION / count))

    @property
    def most(self) -> float:
        """The largest value that the gradients allow, whatever has been learnt."""
        return self._of(self._promise * MOST, REACH)

    def value(self) -> float:
        """Of the next step of one probe; 0 as long as no gradient was other than 0."""
        further = self._now / self._promise if self._signal.is_known else 1.0
        return self._of(self._now, min(max(1.0, further), REACH))

    def _of(self, promise: float, reach: float) -> float:
        return min(promise / self.size**2, reach * self._epsilon / self.size) if self.size else 0.0
