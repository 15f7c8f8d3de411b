"""The message set: what a run is.

A *stream* is one writer's append-only sequence: a peer and an incarnation, which is fresh at every process
start so that a crash can never reuse a number. A *message* is one step of one stream: the codes of the
probes it took, and the learning rate that goes with them. A run is the grow-only set of messages; the
weights are a function of the set, whatever the order it came in.
"""

from __future__ import annotations

import math
import secrets
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from shared_seed.errors import EquivocationError, MessageError
from shared_seed.noise import Sample, stream_key

KIND = 0x01
"""First byte of an encoded message."""

MOST_CODES = 255
"""Samples that one message may carry."""

MOST_STREAMS = 4096
"""Streams that a set accepts."""

WINDOW = 1 << 16
"""How far beyond the first gap of a stream a number may lie."""

_HEADER = struct.Struct("<B16sIIf")
SMALLEST, LARGEST = _HEADER.size + 1, _HEADER.size + MOST_CODES


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
    @lru_cache(2 * MOST_STREAMS)  # Every heartbeat names every stream.
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
        """The canonical bytes, as sent and as stored (``docs/format.md``)."""
        header = (self.stream.to_bytes(), self.number, self.round, self.learning_rate)
        return _HEADER.pack(KIND, *header) + self.codes

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
        message = cls(Stream.from_bytes(stream), number, round_, learning_rate, data[_HEADER.size :])
        if message.encode() != data:
            raise MessageError("the bytes are not in canonical form")
        return message

    def samples(self, run: bytes) -> Iterator[tuple[Sample, int]]:
        """Each sample's direction identifier and code."""
        key = stream_key(run, self.stream.to_bytes())
        for index, code in enumerate(self.codes):
            yield Sample(key, self.number, index), code


def as_float32(value: float) -> float:
    """The float32 nearest to a number, NaN for one beyond them: what a message carries of a learning rate."""
    try:
        nearest: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.nan
    return nearest if math.isfinite(nearest) else math.nan


class MessageSet:
    """A grow-only set of messages with, for every stream, the length of its gapless beginning."""

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self._streams: dict[Stream, dict[int, Message]] = {}
        self._complete: dict[Stream, int] = {}
        self._count = 0
        self.add_all(messages)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, message: Message) -> bool:
        return self._streams.get(message.stream, {}).get(message.number) == message

    def has(self, stream: Stream, number: int) -> bool:
        """Whether a message of this stream and number is here."""
        return number in self._streams.get(stream, {})

    def __iter__(self) -> Iterator[Message]:
        """Streams in order of first arrival, each in order of number."""
        for numbered in self._streams.values():
            for number in sorted(numbered):
                yield numbered[number]

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that have messages here."""
        return tuple(self._streams)

    def add(self, message: Message) -> bool:
        """Put a message in; ``False`` for one that was here already.

        Raises:
            EquivocationError: another message has the same stream and number.
            MessageError: too many streams, or a number too far beyond the stream's first gap.
        """
        known = self._streams.get(message.stream)
        if known is None:
            if len(self._streams) >= MOST_STREAMS:
                raise MessageError(f"more than {MOST_STREAMS} streams in one run")
            known = {}
        before = known.get(message.number)
        if before is not None:
            if before != message:
                raise EquivocationError(
                    f"stream {message.stream} published two different messages under number {message.number}"
                )
            return False
        complete = self._complete.get(message.stream, 0)
        if message.number >= complete + WINDOW:
            raise MessageError(
                f"message {message.number} of stream {message.stream} lies more than {WINDOW} beyond {complete}"
            )
        known[message.number] = message
        self._streams[message.stream] = known
        while complete in known:
            complete += 1
        if complete:
            self._complete[message.stream] = complete
        self._count += 1
        return True

    def add_all(self, messages: Iterable[Message]) -> list[Message]:
        """The messages that were new."""
        return [message for message in messages if self.add(message)]

    def version(self) -> dict[Stream, int]:
        """The version vector: how many messages of each stream are here without a gap."""
        return dict(self._complete)

    def gapless(self, stream: Stream) -> int:
        """How many messages of one stream are here without a gap."""
        return self._complete.get(stream, 0)

    def lacks(self, version: dict[Stream, int]) -> dict[Stream, tuple[int, int]]:
        """For each stream of which ``version`` has more: the range [from, to) still to fetch."""
        found: dict[Stream, tuple[int, int]] = {}
        if version == self._complete:  # the common case, many times as fast as one by one
            return found
        for stream, count in version.items():
            have = self._complete.get(stream, 0)
            if count > have:
                found[stream] = (have, count)
        return found

    def slice(self, stream: Stream, start: int, stop: int, most: int) -> list[Message]:
        """The messages of a stream numbered in [start, stop) that are here, at most ``most``."""
        numbered = self._streams.get(stream, {})
        out: list[Message] = []
        for number in range(start, min(stop, self._complete.get(stream, 0))):
            if len(out) == most:
                break
            out.append(numbered[number])
        return out
