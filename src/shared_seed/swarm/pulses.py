"""Pulses: signs of life of 25 bytes, each a number that its sender alone can have known.

A heartbeat is signed and states the end of a hash chain; each pulse after it reveals the number before, or, when
its sender has published a message meanwhile, the one before that. Whoever has heard the heartbeat, or any pulse
since, checks one with a hash (Lamport, "Password Authentication with Insecure Communication", 1981), and sees
whether anything got lost. ``docs/format.md`` gives the bytes.
"""

from __future__ import annotations

from hashlib import blake2b

from shared_seed.identity import Key
from shared_seed.messages import Stream

PULSE_SIZE = 8
"""Bytes of a number; who finds one makes its owner seem alive, until the next has to be found."""

LENGTH = 1024
"""Numbers of a chain that can be revealed."""

DEPTH = 128
"""Numbers of a peer that may be missed, one after another, until only its heartbeat is believed again."""


def following(stream: bytes, number: bytes) -> bytes:
    """The number that was revealed before this one."""
    return blake2b(stream + number, digest_size=PULSE_SIZE, person=b"shared-seed beat").digest()


def steps(stream: bytes, number: bytes, known: bytes) -> int:
    """How many numbers after one that is known another was revealed; 0 if it was not, or is beyond ``DEPTH``."""
    for count in range(1, DEPTH + 1):
        number = following(stream, number)
        if number == known:
            return count
    return 0


class Pulses:
    """Our own chain: of one stream, with a number that tells it from the stream's other chains."""

    def __init__(self, key: Key, stream: Stream, seal: bytes, number: int) -> None:
        self.stream = stream
        name = stream.to_bytes()
        secret = key.sign(b"shared-seed pulses" + seal + name + number.to_bytes(4, "little"))
        numbers = [blake2b(secret, digest_size=PULSE_SIZE, person=b"shared-seed beat").digest()]
        for _ in range(LENGTH):
            numbers.append(following(name, numbers[-1]))
        self._numbers = b"".join(numbers)

    @property
    def last(self) -> bytes:
        """The number that was revealed last."""
        return self._numbers[-PULSE_SIZE:]

    def __len__(self) -> int:
        """Numbers that are left."""
        return len(self._numbers) // PULSE_SIZE - 1

    def beat(self, has_published: bool) -> bytes:
        """Reveal the next number, or the one after that.

        Raises:
            IndexError: none is left.
        """
        steps = 1 + has_published
        if steps > len(self):
            raise IndexError(f"a chain has {LENGTH} numbers")
        self._numbers = self._numbers[: -steps * PULSE_SIZE]
        return self.last
