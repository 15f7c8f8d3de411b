"""What a peer does from its start to its end: the order of calls of :class:`shared_seed.session.Session`.

A life is a generator that yields what it waits for and is sent whether that came, so that it reads as the session
does and a thousand of them take turns in one thread.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

from shared_seed.log import Contents
from shared_seed.messages import Message
from shared_seed.pace import Pace
from shared_seed.settings import Settings
from shared_seed.swarm.output import Output
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import State

RATE = 2.0**-10

PATIENCE = 600.0
"""Seconds that a peer waits for others at its start and end."""

Question = Callable[[Protocol, float], bool]


def never(protocol: Protocol, now: float) -> bool:
    """What one waits for who just lets time pass."""
    return False


@dataclass(frozen=True)
class Wait:
    """Until ``done(protocol, now)``, or for so many seconds."""

    done: Question
    seconds: float


Life = Generator[Wait, bool, None]


@dataclass(frozen=True)
class Habits:
    """How peers go about it: rounds of the run, mean seconds of a step, lockstep or free, how many begin."""

    rounds: int
    step: float
    lockstep: bool
    start_with: int


class Peer:
    """One process of a peer.

    ``weights`` stand for those of a model, ``applied`` counts the messages in them, ``late`` the deadlines that
    others have missed. ``log`` is what would lie on disk, where somebody wants it.
    """

    def __init__(self, protocol: Protocol, log: Contents | None, habits: Habits, seed: str) -> None:
        self.protocol = protocol
        self.log = log
        self.late = 0
        self.agreed = False
        self.done = False
        # Processes of one peer come one after another, so what an earlier one has applied is in its log.
        held = [signed.message for signed in log.signed] if log is not None else []
        self.applied = len(held)
        self.weights = sum(map(pull, held)) & _MASK
        self._round = max((message.round + 1 for message in held), default=0)
        self._habits = habits
        self._chance = random.Random(seed)
        self._speed = self._chance.uniform(0.7, 1.3)
        self._pace = Pace(Settings(patience=PATIENCE))

    def allowed(self, now: float) -> tuple[float, float]:
        """Seconds of work that others may need for this step, and seconds to wait for them."""
        return self._pace.left(self.protocol.roster, now)

    def digest(self) -> bytes:
        """What it states of its weights."""
        return self.weights.to_bytes(8, "big")

    def live(self, carry: Callable[[Iterable[Output]], None], now: Callable[[], float]) -> Life:
        """Load, begin, make steps, finish."""
        protocol = self.protocol
        yield Wait(never, self._chance.uniform(0.5, 3.0))
        carry(protocol.enter(State.READY, self._round, now()))
        if not (yield Wait(self._may_begin, PATIENCE)):
            return
        self._apply()
        self._round = max(self._round, protocol.swarm_round(now()))
        carry(protocol.enter(State.TRAINING, self._round, now()))
        number = 0
        self._pace.begin(now())
        while self._round < self._habits.rounds:
            yield Wait(never, self._habits.step * self._speed * self._chance.uniform(0.9, 1.1))
            code = bytes([self._chance.randrange(0x70)])
            message = Message(protocol.author.stream, number, self._round, RATE, code)
            carry(protocol.publish(message, now()))
            number += 1
            protocol.pace = self._pace.end(now())
            if self._habits.lockstep:
                work, wait = self.allowed(now())
                if not (yield self._others(work, wait)):
                    self.late += len(protocol.give_up_on(self._round, now()))
            self._pace.begin(now())
            ahead = protocol.swarm_round(now())
            self._round = ahead if ahead > self._round + 2 else self._round + 1
            self._apply()
        yield from self._finish(carry, now)

    # Inside

    def _may_begin(self, protocol: Protocol, now: float) -> bool:
        if self._habits.start_with > 1 and not protocol.live(now):
            return False
        under_way = len(protocol.archive) > 0 or protocol.swarm_round(now) > 0
        able = under_way or protocol.ready(now) >= self._habits.start_with
        return able and protocol.has_all(now)

    def _others(self, work: float, seconds: float) -> Wait:
        """What a step ends with in lockstep."""
        return Wait(lambda protocol, now: not protocol.is_waiting(self._round, now, work), seconds)

    def _finish(self, carry: Callable[[Iterable[Output]], None], now: Callable[[], float]) -> Life:
        protocol = self.protocol
        carry(protocol.enter(State.FINISHED, self._round, now()))
        yield Wait(lambda p, at: p.is_quiet(at), PATIENCE)
        while True:
            self._apply()
            carry(protocol.enter(State.FINISHED, self._round, now(), self.digest()))
            self.agreed = yield Wait(lambda p, at: p.is_settled(at), 4 * protocol.timing.timeout)
            if protocol.untaken == 0:
                break
        self.done = True
        carry(protocol.enter(State.LEAVING, self._round, now(), protocol.digest))

    def _apply(self) -> None:
        news = self.protocol.take()
        if self.log is not None:
            self.log.signed.extend(news.heard)
            self.log.statements.extend(news.statements)
        for message in news.fresh:
            self.weights = (self.weights + pull(message)) & _MASK
        for message in news.withdrawn:
            self.weights = (self.weights - pull(message)) & _MASK
        self.applied += len(news.fresh) - len(news.withdrawn)


_MASK = (1 << 64) - 1


def pull(message: Message) -> int:
    """What a message adds to the "weights", one 64-bit number: order does not matter, every message does."""
    peer = int.from_bytes(message.stream.peer[:8], "big") + message.stream.incarnation
    return (peer * 0x9E3779B97F4A7C15 + message.number * 0xC2B2AE3D27D4EB4F + message.codes[0] + 1) & _MASK
