"""How many frames and bytes went by, by what they are for."""

from __future__ import annotations

from shared_seed.signed import SIGNED_KIND
from shared_seed.swarm import wire

GRADIENT, HEARTBEAT, CATCH_UP, GREETING, STATEMENT = range(5)
"""What a frame is for; pulses, and what neighbours tell each other that they hold, count as heartbeats."""

NAMES = ("gradient", "heartbeat", "catch-up", "greeting", "statement")

_GREETINGS = (0, 1, 2)
_CONSULT = 9
_HOLDING = 12


def kind(frame: bytes) -> int:
    """What a frame is for, by its first bytes: a control frame is 0x10 and a msgpack array of tag and fields."""
    first = frame[0]
    if first in (wire.HEARTBEAT, wire.PULSE):
        return HEARTBEAT
    if first == SIGNED_KIND:
        return GRADIENT
    if first != wire.CONTROL or frame[2] == _CONSULT:
        return STATEMENT
    if frame[2] == _HOLDING:
        return HEARTBEAT
    return GREETING if frame[2] in _GREETINGS else CATCH_UP


class Counts:
    """Frames and payload bytes, as :class:`~shared_seed.swarm.traffic.Traffic` counts them, by :func:`kind`."""

    __slots__ = ("bytes", "frames")

    def __init__(self) -> None:
        self.frames = [0] * len(NAMES)
        self.bytes = [0] * len(NAMES)

    def add(self, kind: int, copies: int, size: int) -> None:
        """Note a frame and its copies."""
        self.frames[kind] += copies
        self.bytes[kind] += copies * size

    def gather(self, other: Counts) -> None:
        """Add what another has counted."""
        for kind in range(len(NAMES)):
            self.frames[kind] += other.frames[kind]
            self.bytes[kind] += other.bytes[kind]
