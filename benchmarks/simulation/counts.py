"""How many frames and bytes went by, by what they are for."""

from __future__ import annotations

from shared_seed.messages import KIND
from shared_seed.swarm import wire

GRADIENT, HEARTBEAT, CATCH_UP, GREETING = range(4)
"""What a frame is for."""

NAMES = ("gradient", "heartbeat", "catch-up", "greeting")

_TAGS = {0: GREETING, 1: GREETING, 2: GREETING, 3: HEARTBEAT, 4: CATCH_UP, 5: CATCH_UP}


def kind(frame: bytes) -> int:
    """What a frame is for, by its first bytes: a control frame is 0x10 and a msgpack array of tag and fields."""
    if frame[0] == KIND:
        return GRADIENT
    assert frame[0] == wire.CONTROL
    return _TAGS[frame[2]]


class Counts:
    """Frames and payload bytes, as :class:`~shared_seed.swarm.traffic.Traffic` counts them, by :func:`kind`."""

    __slots__ = ("bytes", "frames")

    def __init__(self) -> None:
        self.frames = [0, 0, 0, 0]
        self.bytes = [0, 0, 0, 0]

    def add(self, kind: int, copies: int, size: int) -> None:
        """Note a frame and its copies."""
        self.frames[kind] += copies
        self.bytes[kind] += copies * size

    def gather(self, other: Counts) -> None:
        """Add what another has counted."""
        for kind in range(4):
            self.frames[kind] += other.frames[kind]
            self.bytes[kind] += other.bytes[kind]
