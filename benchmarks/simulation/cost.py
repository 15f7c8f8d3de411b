"""What a heartbeat and a message cost whoever hears them: bytes on the wire, seconds in Python."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from shared_seed.messages import Message
from shared_seed.swarm.output import Output, Publish
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import State
from simulation.agreement import Agreement
from simulation.life import RATE

ROUNDS = 3
"""Messages of each stream before anything is measured."""


@dataclass(frozen=True)
class Cost:
    """Of frames in a swarm of so many peers, all of which have been heard of.

    ``heartbeat_bytes`` and ``message_bytes`` are of one frame; ``heartbeat`` and ``message`` seconds to hear one,
    its signature checked, ``look`` to see whether anybody is waited for and everything is there, ``digest`` to
    digest the whole set anew after a message of each peer has come in.
    """

    peers: int
    heartbeat_bytes: int
    message_bytes: int
    heartbeat: float
    message: float
    look: float
    digest: float


def cost(peers: int, repetitions: int = 50) -> Cost:
    """Measure a peer that hears so many others."""
    chance = random.Random(0)
    agreed = Agreement.of(1 << 20, peers, True)
    hears = Protocol(agreed.author("hears", chance), agreed.terms, agreed.archive())
    others = [
        Protocol(agreed.author(f"peer{i}", chance), agreed.terms, agreed.archive(), first_beat=1)
        for i in range(peers)
    ]
    hears.enter(State.TRAINING, 0, 0.0)

    def beats() -> list[bytes]:
        return [_frame(other.enter(State.TRAINING, other.round, 0.0)) for other in others]

    def messages(number: int) -> list[bytes]:
        codes = [bytes([chance.randrange(0x70)]) for _ in others]
        streams = [other.author.stream for other in others]
        pairs = zip(others, streams, codes, strict=True)
        return [_frame(o.publish(Message(s, number, number, RATE, code), 0.0)) for o, s, code in pairs]

    def hear(frame: bytes) -> None:
        hears.hear(frame, 0.0, forward=False)

    def look() -> None:
        hears.waits_for(hears.round, 0.0)
        hears.has_all(0.0)

    for frame in beats():
        hear(frame)
    digests = []
    for number in range(ROUNDS):
        for frame in messages(number):
            hear(frame)
        digests.append(_seconds(hears.archive.digest))
    last_beats, last_messages = beats(), messages(ROUNDS)
    message = median(_seconds(hear, frame) for frame in last_messages)
    heartbeat = median(_seconds(hear, frame) for frame in last_beats)
    looks = median(_seconds(look) for _ in range(repetitions))
    return Cost(peers, len(last_beats[0]), len(last_messages[0]), heartbeat, message, looks, median(digests))


def _frame(outputs: Sequence[Output]) -> bytes:
    (output,) = outputs
    assert isinstance(output, Publish)
    return output.frame


def _seconds(call: Callable[..., object], *words: object) -> float:
    start = time.perf_counter()
    call(*words)
    return time.perf_counter() - start
