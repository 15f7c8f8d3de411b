"""What a peer does from its start to its end: the order of calls of :class:`shared_seed.session.Session`.

A life is a generator that yields what it waits for and is sent whether that came, so that it reads as the session
does and a thousand of them take turns in one thread.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from shared_seed.messages import Message, MessageSet, Stream
from shared_seed.session import FIRST_DEADLINE
from shared_seed.swarm.protocol import Output, Protocol, Terms
from shared_seed.swarm.wire import State

TERMS = Terms(bytes(32), b"", 1, 1.0)
"""All peers agree; what else a manifest says does not matter here."""

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
    """One process of a peer. What it publishes and states goes to ``carry``."""

    def __init__(self, stream: Stream, name: str, held: Sequence[Message], habits: Habits, seed: str) -> None:
        self.protocol = Protocol(stream, name, TERMS, MessageSet(held))
        # Processes of one peer come one after another, so what an earlier one has applied is in its log.
        self.weights = sum(map(pull, held)) & _MASK
        self.log = list(held)
        self.late = 0
        self.agreed = False
        self.done = False
        self._habits = habits
        self._chance = random.Random(seed)
        self._speed = self._chance.uniform(0.7, 1.3)
        self._round = max((message.round + 1 for message in held), default=0)
        self._durations: list[float] = []

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
        while self._round < self._habits.rounds:
            began = now()
            yield Wait(never, self._habits.step * self._speed * self._chance.uniform(0.9, 1.1))
            code = bytes([self._chance.randrange(0x70)])
            carry(protocol.publish(Message(protocol.stream, number, self._round, RATE, code), now()))
            number += 1
            if self._habits.lockstep:
                met = yield Wait(lambda p, at: not p.waits_for(self._round, at), self._deadline())
                if met:
                    self._durations.append(now() - began)
                else:
                    self.late += len(protocol.give_up_on(self._round, now()))
            ahead = protocol.swarm_round(now())
            self._round = ahead if ahead > self._round + 2 else self._round + 1
            self._apply()
        yield from self._finish(carry, now)

    # Inside

    def _may_begin(self, protocol: Protocol, now: float) -> bool:
        if self._habits.start_with > 1 and not protocol.live(now):
            return False
        under_way = len(protocol.messages) > 0 or protocol.swarm_round(now) > 0
        able = under_way or protocol.ready(now) >= self._habits.start_with
        return able and protocol.has_all(now)

    def _finish(self, carry: Callable[[Iterable[Output]], None], now: Callable[[], float]) -> Life:
        protocol = self.protocol
        carry(protocol.enter(State.FINISHED, self._round, now()))
        yield Wait(Protocol.is_quiet, PATIENCE)
        while True:
            self._apply()
            carry(protocol.enter(State.FINISHED, self._round, now(), self.weights.to_bytes(8, "big")))
            self.agreed = yield Wait(Protocol.is_settled, 4 * protocol.timing.timeout)
            if protocol.untaken == 0:
                break
        self.done = True
        carry(protocol.enter(State.LEAVING, self._round, now(), protocol.digest))

    def _apply(self) -> None:
        fresh = self.protocol.take()
        self.log += fresh
        for message in fresh:
            self.weights = (self.weights + pull(message)) & _MASK

    def _deadline(self) -> float:
        if len(self._durations) < 3:
            return FIRST_DEADLINE
        return max(2.0, 3 * median(self._durations[-20:]))


_MASK = (1 << 64) - 1


def pull(message: Message) -> int:
    """What a message adds to the "weights", one 64-bit number: order does not matter, every message does."""
    peer = int.from_bytes(message.stream.peer[:8], "big") + message.stream.incarnation
    return (peer * 0x9E3779B97F4A7C15 + message.number * 0xC2B2AE3D27D4EB4F + message.codes[0] + 1) & _MASK
