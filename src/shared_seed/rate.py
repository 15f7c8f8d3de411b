"""A learning rate that nobody has to guess.

A step of ``rate * g`` against a direction lowers the loss by ``rate * g**2`` nats, to first order. Here that is
what is chosen, the *promise*, and the rate follows from the projected gradients g as they come::

    rate = min(promise / size**2, reach * epsilon / size)      size**2 = mean(g**2) * (1 + 8 / count)

Why nats, and not a distance, are the same for all models: descent along random directions goes best at the rate
``|G|**2 / (E[g**2] * tr H)``, with G the gradient and H the Hessian of the expected loss (the quadratic model of
Spall 1992, section III; Malladi et al. 2023, lemma 3). So the best promise is ``|G|**2 / tr H``, or, with the
square of one row's gradient between the two::

    promise = share / stiffness      share = |G|**2 / E[|G_row|**2]      stiffness = tr H / E[|G_row|**2]

Both are numbers that know nothing of parameters, batch size or adapters. A cross-entropy's Hessian is near its
Fisher information (Martens 2020, "New insights and perspectives on the natural gradient method", section 9), whose
trace is the mean square of one row's gradient, so the stiffness is some small number, and the curvature that
probes at one side see anyway says which (:mod:`shared_seed.curvature`). The share is large where all examples ask
for the same, as of a model that does not know yet what is wanted of it, and falls as there is less to learn; what
rows of a batch have in common and what losses fall by say which it is (:mod:`shared_seed.belief`).

That is the best promise for one step. Steps take from what there is to learn, :data:`FALL` from the share's
logarithm a nat, and the best of many together are shorter. Where all go by the same part of the share, boldness,
N of them take it from ``share`` to ``share / (1 + FALL * N * share * boldness)``. A step is as bold as leaves for
the last one what is best for it::

    boldness = 1 / (1 + FALL * N * share * boldness) = 2 / (1 + sqrt(1 + 4 * FALL * N * share))

The second bound keeps a step near where its probe has looked: no further, or, where rows ask for more than usual,
as many times as far, eight at most.

Every peer takes its own projected gradients and losses, and messages carry the rate, so nobody has to agree on
anything.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from shared_seed import codec
from shared_seed.belief import FALL, ROWS, SHARES, Belief, prior
from shared_seed.curvature import Curvature
from shared_seed.messages import Message
from shared_seed.rows import Shared

PROMISE = 0.01
"""Nats that a probe's step is to lower its loss by at first, to first order; chosen in ``docs/convergence.md``."""

BOLDNESS = 0.5
"""Times the best promise of one step that is promised where nobody knows how many are to come and rows say what it
is: that gains three quarters of what a step can gain, and adds a quarter of the noise. Where losses alone say it,
they say it late, and all of it is promised.
"""

SHARE = PROMISE / BOLDNESS
"""Of the signal, that is expected at first."""

LEAST, MOST = 1 / 32, 32.0
"""Times the promise that is given that is promised at least, so that something can be learnt of what it delivers,
and at most.
"""

FAR = 4.0
"""Times the promise that a run begins with at most, where its first loss is large."""

PACE = 2.0
"""Times the last step's promise that a step promises at most."""

WINDOW = 32
"""Projected gradients whose mean square is taken: the newest ones."""

REACH = 8.0
"""How many times as far as a probe looks a step goes at most, where rows ask for as many times more than usual."""

CAUTION = 8
"""How many times larger a single gradient is taken to be in square, and less the more there are: the first ones
may be small by chance, and a step by them would be far too long.
"""

USUAL = 8
"""Messages whose curvature counts as much as what is usual."""

STIFFEST = 32.0
"""The most that the stiffness is taken to be; the least is a half."""

NEWS = 1 / 8
"""Weight of the newest step in how many gradients everybody makes at a time."""

LEARNT = 7 + 2 * len(SHARES)
"""Numbers of :attr:`Rate.state`."""


def boldness(nats: float) -> float:
    """Part of the best promise of one step that each of many promises; see above.

    Args:
        nats: that all of them together would take from the share's logarithm if it stayed as it is, each as long
            as suits one.
    """
    return 2 / (1 + math.sqrt(1 + 4 * nats))


class Rate:
    """Follows one peer's projected gradients.

    Args:
        promise: nats, positive: of a step where the share of the signal is the usual one.
        epsilon: how far a probe looks.
        scale_exponent: of the codes.
        curvature: of the same gradients, followed by whoever has them; without it, that is what is usual.
        follow: what can be learnt; otherwise the promise stays as it is.
        peers: that take part at first, each with as many gradients.
    """

    def __init__(
        self,
        promise: float,
        epsilon: float,
        scale_exponent: int,
        curvature: Curvature | None = None,
        *,
        follow: bool = True,
        peers: int = 1,
    ) -> None:
        self._promise = promise
        self._epsilon = epsilon
        self._scale_exponent = scale_exponent
        self._curvature = curvature or Curvature(scale_exponent, 1)
        self._follow = follow
        self._squares: deque[float] = deque(maxlen=WINDOW)
        # Where more is asked for than usual, as of a loss in another unit, that is taken for the unit.
        self._unit = max(1.0, promise / PROMISE)
        self._peers = peers
        # Everybody's, since the last loss: nats promised, gradients; and gradients of a step in general.
        self._gone, self._heard, self._made = 0.0, 0, 0.0
        self._rows_told = False
        self._others: float | None = None
        self._begin(promise, SHARE)
        self._fresh = True

    def note(self, codes: Iterable[int]) -> None:
        """Follow what has been published; abstentions say nothing.

        Codes, and not what was rounded to them: a peer that resumes has nothing else.
        """
        codes = bytes(codes)
        self._made = self._made or float(self._peers * len(codes))
        self._squares.extend(gradient**2 for gradient in codec.said(codes, self._scale_exponent))

    def went(self, messages: Iterable[Message]) -> None:
        """Note that the weights have gone by these messages, everybody's, since the last loss."""
        if self._follow:
            messages = list(messages)
            self._gone = math.fsum((self._gone, *map(self._promised_by, messages)))
            self._heard += sum(len(message.codes) for message in messages)

    def learn(self, loss: float, found: Shared | None = None, left: int | None = None) -> None:
        """Follow the loss before a step, which may be NaN, and what has been delivered of what was promised.

        Args:
            loss: of the batch.
            found: what its rows have in common, where the task tells.
            left: steps that are to come, this one among them, where somebody knows.
        """
        if not self._follow:
            return
        if self._heard:
            self._made += NEWS * (self._heard - self._made)
            self._heard = 0
        self._rows_told = self._rows_told or found is not None
        to_come = None if left is None else left * self._made
        if self._fresh:
            if self._others is not None:
                self._begin(self._others, self._behind(self._others, to_come))
            elif not math.isfinite(loss):
                return
            else:
                further = min(max(1.0, loss), FAR)
                self._begin(self._promise * further, SHARE * further)
        unit, stiffness, gone = self._unit, self.stiffness, self._gone
        self._gone = 0.0
        if found is not None:
            self._belief.shift(found.shift / unit)
        self._belief.saw_loss(loss / unit, gone / unit, self._now / unit, stiffness * self._now / unit / 2)
        self._belief.learnt(stiffness * gone / unit)
        if found is not None:
            self._belief.saw_rows(found)
        self._promise_now(min(self._bold(to_come) * self.share / stiffness * unit, self._now * PACE))

    @property
    def share(self) -> float:
        """Of the signal in one row's gradient, as it is believed to be."""
        return self._belief.share

    @property
    def stiffness(self) -> float:
        """Trace of the Hessian over the mean square of one row's gradient, as far as it is known."""
        usual, seen = max(1.0, PROMISE / self._promise), self._curvature
        if not seen.square:
            return usual
        found = seen.trace(self._epsilon) / (ROWS * seen.square) * self._unit
        weight = min(seen.count, WINDOW)
        return (USUAL * usual + weight * min(max(found, 0.5), STIFFEST)) / (USUAL + weight)

    def _bold(self, to_come: float | None) -> float:
        """Part of the best promise of one step that is promised if so many gradients are to come."""
        if not self._rows_told:
            return 1.0
        return BOLDNESS if to_come is None else boldness(FALL * to_come * self.share)

    def _behind(self, promise: float, to_come: float | None) -> float:
        """The share by which somebody promises so much."""
        part = promise * self.stiffness / self._unit
        if to_come is None or not self._rows_told:
            return part / self._bold(None)
        # Boldness is part / share, too.
        return part * (1 + FALL * to_come * part)

    def _begin(self, promise: float, share: float) -> None:
        """Promise so much at first, and expect this share."""
        self._fresh = False
        self._promise_now(promise)
        self._belief = Belief(prior(min(max(share, float(SHARES[0])), float(SHARES[-1]))))

    def _promise_now(self, promise: float) -> None:
        self._now = min(max(promise, self._promise * LEAST), self._promise * MOST)

    def _promised_by(self, message: Message) -> float:
        said = codec.said(message.codes, self._scale_exponent)
        return message.learning_rate * math.fsum(gradient**2 for gradient in said)

    @property
    def state(self) -> tuple[float, ...]:
        """What is known beside the messages, for :meth:`restore`; nothing before the first loss."""
        known = self._belief
        if math.isnan(known.levels[0]):
            return ()
        return (self._now, self._gone, float(self._heard), self._made, float(self._rows_told), *known.state)

    def restore(self, state: Sequence[float]) -> None:
        """Go on from a state, before :meth:`resume`; from none, begin anew."""
        if state:
            now, self._gone, heard, self._made, told, *known = state
            self._fresh, self._heard, self._rows_told = False, int(heard), bool(told)
            self._promise_now(now)
            self._belief = Belief.of(known)

    def resume(
        self, messages: Iterable[Message], own: Sequence[Message], schedule: Callable[[int], float]
    ) -> None:
        """Follow what a peer has published.

        What it has learnt is not in messages; unless that is restored, it begins with what the newest ones,
        everybody's, have promised.

        Args:
            messages: everybody's, in any order.
            own: the peer's, in order.
            schedule: the part of :meth:`value` that steps of a round go by.
        """
        newest = sorted(messages, key=lambda m: (m.round, m.stream))[-WINDOW:]
        full = math.fsum(len(message.codes) * schedule(message.round) for message in newest)
        if self._follow and self._fresh and full > 0:
            self._others = math.fsum(map(self._promised_by, newest)) / full
            rounds = 1 + newest[-1].round - newest[0].round
            self._made, self._heard = sum(len(message.codes) for message in newest) / rounds, 0
        self._squares.clear()
        for message in own[-WINDOW:]:
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
        further = self._now / self._promise if self._rows_told else 1.0
        return self._of(self._now, min(max(1.0, further), REACH))

    def _of(self, promise: float, reach: float) -> float:
        return min(promise / self.size**2, reach * self._epsilon / self.size) if self.size else 0.0
