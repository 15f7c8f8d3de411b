"""What one heartbeat costs whoever hears it: bytes on the wire, seconds in Python."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from statistics import median

from shared_seed.messages import MessageSet, Stream
from shared_seed.swarm import wire
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import State
from simulation.life import TERMS

COUNT = 1000
"""Messages of each stream: the counts that a heartbeat states take three bytes."""


@dataclass(frozen=True)
class Cost:
    """Of a heartbeat that names so many streams; ``seconds`` to hear it and see that nothing is lacking."""

    streams: int
    bytes: int
    seconds: float


def heartbeat(streams: int, repetitions: int = 7) -> Cost:
    """Measure one."""
    chance = random.Random(0)
    version = {Stream(chance.randbytes(12)): COUNT for _ in range(streams)}
    messages = MessageSet()
    # The real set has them all; what is compared are these lengths.
    messages._complete.update(version)
    own, other = Stream(chance.randbytes(12)), next(iter(version))
    protocol = Protocol(own, "hears", TERMS, messages)
    frames = [
        wire.encode(
            wire.Heartbeat(other.to_bytes(), beat, "states", State.TRAINING, 1, wire.pack_version(version))
        )
        for beat in range(repetitions + 1)
    ]
    seconds = []
    for frame in frames:
        start = time.perf_counter()
        protocol.hear(frame, 0.0, forward=False)
        protocol.has_all(0.0)
        seconds.append(time.perf_counter() - start)
    # The first has to get to know the streams.
    return Cost(streams, len(frames[0]), median(seconds[1:]))
