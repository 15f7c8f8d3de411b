"""What a run is made of.

A *stream* is one writer's append-only sequence: a peer and an incarnation, which is fresh at every process
start so that a crash can never reuse a number. A *message* is one step of one stream: the codes of the
probes it took, and the learning rate that goes with them. A run is the grow-only set of messages
(:mod:`shared_seed.archive`); the weights are a function of the set, whatever the order it came in.
"""

from __future__ import annotations

import math
import secrets
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from shared_seed.errors import MessageError
from shared_seed.noise import Sample, stream_key

KIND = 0x01
"""First byte of an encoded message."""

MOST_CODES = 255
"""Samples that one message may carry."""

MOST_STREAMS = 1 << 16
"""Streams that one run may have."""

_HEADER = struct.Struct("<B16sIIf")
_FLOAT = struct.Struct("<f")
SMALLEST, LARGEST = _HEADER.size + 1, _HEADER.size + MOST_CODES
"""Bytes of an encoded message."""

BODY = 21
"""Bytes of an encoded message before its round: kind, stream, number."""


@dataclass(frozen=True, slots=True, order=True)
class Stream:
    """One writer: ``peer`` 12 bytes, ``incarnation`` below 2**32."""

    peer: bytes
    incarnation: int = 0

    def __post_init__(self) -> None:
        if len(self.peer) != 12 or not 0 <= self.incarnation < 1 << 32:
            raise MessageError(
                f"stream ({self.peer!r}, {self.incarnation}) is not valid; "
                "expected 12 bytes and an unsigned 32-bit incarnation"
            )

    @classmethod
    def fresh(cls) -> Stream:
        """A stream that nobody has had before."""
        return cls(secrets.token_bytes(12), 0)

    @classmethod
    @lru_cache(1 << 14)  # Every frame names a stream, and the same ones again and again.
    def from_bytes(cls, data: bytes) -> Stream:
        """The stream that :meth:`to_bytes` wrote."""
        if len(data) != 16:
            raise MessageError(f"a stream has 16 bytes, got {len(data)}")
        return cls(data[:12], int.from_bytes(data[12:], "little"))

    def to_bytes(self) -> bytes:
        """16 bytes."""
        return self.peer + self.incarnation.to_bytes(4, "little")

    def restarted(self) -> Stream:
        """The stream of the same peer's next process."""
        return Stream(self.peer, self.incarnation + 1)

    def __str__(self) -> str:
        return f"{self.peer[:4].hex()}/{self.incarnation}"


@dataclass(frozen=True, slots=True)
class Message:
    """One step of one stream.

    ``number`` counts the stream's messages from 0; ``round`` is the step of the run that it was made for;
    ``learning_rate`` is a finite, non-negative float32; ``codes`` holds one byte a sample
    (:mod:`shared_seed.codec`).
    """

    stream: Stream
    number: int
    round: int
    learning_rate: float
    codes: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.codes) <= MOST_CODES:
            raise MessageError(f"a message carries 1 to {MOST_CODES} codes, got {len(self.codes)}")
        if not (0 <= self.number < 1 << 32 and 0 <= self.round < 1 << 32):
            raise MessageError("number and round must be unsigned 32-bit integers")
        if not (math.copysign(1, self.learning_rate) > 0 and as_float32(self.learning_rate) == self.learning_rate):
            raise MessageError(f"learning rate {self.learning_rate} is not a finite, non-negative float32")

    def encode(self) -> bytes:
        """The canonical bytes, as signed and as stored (``docs/format.md``)."""
        header = (self.stream.to_bytes(), self.number, self.round, self.learning_rate)
        return _HEADER.pack(KIND, *header) + self.codes

    def body(self) -> bytes:
        """What :meth:`encode` says beyond stream and number, as catch-up carries it."""
        return self.encode()[BODY:]

    @classmethod
    def of_body(cls, stream: Stream, number: int, body: bytes) -> Message:
        """The message whose :meth:`body` this is.

        Raises:
            MessageError: it is not one.
        """
        if not 0 <= number < 1 << 32:
            raise MessageError(f"message number {number} is not an unsigned 32-bit integer")
        return cls.decode(bytes([KIND]) + stream.to_bytes() + number.to_bytes(4, "little") + body)

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """Parse strictly.

        Raises:
            MessageError: the bytes are not exactly one valid message.
        """
        if not SMALLEST <= len(data) <= LARGEST:
            raise MessageError(f"a message has {SMALLEST} to {LARGEST} bytes, got {len(data)}")
        kind, stream, number, round_, learning_rate = _HEADER.unpack_from(data)
        if kind != KIND:
            raise MessageError(f"kind {kind} is not a gradient message")
        # Canonical, since every byte is part of a field, and the one number with several forms, NaN, is refused.
        return cls(Stream.from_bytes(stream), number, round_, learning_rate, data[_HEADER.size :])

    def samples(self, run: bytes, shared: bool = False) -> Iterator[tuple[Sample, int]]:
        """Each sample's direction identifier, of :func:`directions_of`, and code."""
        key, number = directions_of(run, self.stream, self.number, self.round, shared)
        for index, code in enumerate(self.codes):
            yield Sample(key, number, index), code


def directions_of(run: bytes, stream: Stream, number: int, round_: int, shared: bool) -> tuple[int, int]:
    """The key and the number that, with an index, name a message's directions, for its probes and for the update.

    Args:
        run: the 16 bytes that key the run's noise.
        stream: of the message.
        number: of the message in its stream.
        round_: of the message.
        shared: whether the samples of one index in one round have the same direction in all streams.
    """
    if shared:
        return stream_key(run, b""), round_
    return stream_key(run, stream.to_bytes()), number


def as_float32(value: float) -> float:
    """The float32 nearest to a number, NaN for one beyond them: what a message carries of a learning rate."""
    try:
        nearest: float = _FLOAT.unpack(_FLOAT.pack(value))[0]
    except OverflowError:
        return math.nan
    return nearest if math.isfinite(nearest) else math.nan


def written_before(messages: Iterable[Message], stream: Stream, number: int) -> list[Message]:
    """A peer's messages, in all its streams, before its one of this number in this stream, in order."""
    own = [m for m in messages if m.stream.peer == stream.peer and (m.stream, m.number) < (stream, number)]
    return sorted(own, key=lambda m: (m.stream, m.number))
