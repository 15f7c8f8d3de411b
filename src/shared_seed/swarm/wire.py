"""The frames: msgpack by msgspec, typed, bounded, parsed strictly.

====  =========================================================================================
byte  what follows
====  =========================================================================================
0x04  a signed message (:mod:`shared_seed.signed`); published
0x05  an introduction that shows an invite (:mod:`shared_seed.admission`); sent over links
0x06  an order of the owner (:mod:`shared_seed.proofs`); published, and sent over links
0x07  a fork (:mod:`shared_seed.proofs`) with its writer's introduction before it; likewise
0x10  a control frame; sent over links
0x11  a heartbeat with 64 bytes of signature; published
0x12  a pulse (:mod:`shared_seed.swarm.pulses`): its stream and number; published
====  =========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec

from shared_seed.admission import INTRODUCTION_KIND, TICKET_SIZE, Introduction
from shared_seed.buckets import BUCKETS, Bucket
from shared_seed.errors import MessageError
from shared_seed.identity import SIGNATURE_SIZE
from shared_seed.ledger import BLOCK, Stretch
from shared_seed.manifest import LARGEST_PACKED
from shared_seed.messages import BODY, LARGEST, MOST_STREAMS, SMALLEST, Message, Stream
from shared_seed.proofs import FORK_KIND, LARGEST_PROOF, ORDER_KIND, Fork, Order
from shared_seed.signed import SIGNED_KIND, Signed
from shared_seed.swarm.pulses import PULSE_SIZE
from shared_seed.visible import OBEYED

CONTROL = 0x10
HEARTBEAT = 0x11
PULSE = 0x12
"""First bytes of a control frame, of a heartbeat and of a pulse."""

LARGEST_FRAME = LARGEST_PACKED + (1 << 16)
"""Bytes beyond which a frame is refused unread."""

CHUNK = 4096
"""Messages that one catch-up answer carries at most."""

CHUNK_BYTES = 1 << 18
"""Bytes of messages beyond which a catch-up answer ends; small, so that publications never wait long for it."""

MOST_MARKS = 1 << 16
"""Heads of blocks that one answer carries."""

MOST_COUNT = (1 << 32) - 1
"""The largest number in most fields."""

VISIBLE = rf"^[^{OBEYED}]*\Z"
"""What others may say that people get to see: no control characters, which terminals obey."""

Name = Annotated[str, msgspec.Meta(max_length=64, pattern=VISIBLE)]
StreamBytes = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_COUNT)]
Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Digest16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Signature = Annotated[bytes, msgspec.Meta(max_length=SIGNATURE_SIZE)]
Digest8 = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]


class State(StrEnum):
    """What a peer is at."""

    LOADING = "loading"
    READY = "ready"
    TRAINING = "training"
    FINISHED = "finished"
    LEAVING = "leaving"
    RELAYING = "relaying"


class Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the frames that are msgpack."""


class Guest(Frame, frozen=True):
    """An introduction (:class:`shared_seed.admission.Introduction`) on the wire."""

    key: Key
    label: Digest8
    ticket: Annotated[bytes, msgspec.Meta(max_length=TICKET_SIZE)] = b""

    @classmethod
    def of(cls, introduction: Introduction) -> Guest:
        """The same as an introduction."""
        return cls(introduction.key, introduction.label, introduction.ticket)

    def introduction(self) -> Introduction:
        """The introduction, checked for its form."""
        return Introduction(self.key, self.label, self.ticket)


class Hello(Frame, tag=0, frozen=True):
    """A peer introduces itself on a link; an empty digest asks for the manifest."""

    stream: StreamBytes
    name: Name
    guest: Guest
    manifest_digest: Annotated[bytes, msgspec.Meta(max_length=32)]


class Welcome(Frame, tag=1, frozen=True):
    """The answer to Hello: who we are and, where it was asked for, the manifest and its owner's signature."""

    stream: StreamBytes
    name: Name
    guest: Guest
    manifest: Annotated[bytes, msgspec.Meta(max_length=LARGEST_PACKED)] = b""
    signature: Signature = b""


class Refusal(Frame, tag=2, frozen=True):
    """The other answer to Hello."""

    reason: Annotated[str, msgspec.Meta(max_length=1000, pattern=VISIBLE)]


class Compare(Frame, tag=3, frozen=True):
    """What we hold, in ``BUCKETS`` summaries: tell of the streams in those that differ.

    While messages are under way most differ; then, not ``full``, those are left out in which we have more.
    """

    full: bool
    summaries: Annotated[
        list[tuple[Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)], Digest8]],
        msgspec.Meta(min_length=BUCKETS, max_length=BUCKETS),
    ]

    def buckets(self) -> list[Bucket]:
        """The summaries as an archive has them."""
        return [Bucket(messages, digest) for messages, digest in self.summaries]


class Levels(Frame, tag=4, frozen=True):
    """The answer to Compare: streams, how many messages we have of each, and the first bytes of the head."""

    levels: Annotated[list[tuple[StreamBytes, Count, Digest8]], msgspec.Meta(max_length=MOST_STREAMS)]


class Request(Frame, tag=5, frozen=True):
    """Send me messages of a stream, from ``start`` on, ``most`` at most."""

    stream: StreamBytes
    start: Count
    most: Annotated[int, msgspec.Meta(ge=1, le=CHUNK)] = CHUNK


class Chunk(Frame, tag=6, frozen=True):
    """The answer to Request: bodies of messages, and signatures of the stream's heads at the ends of its blocks
    among them and after the last; none there if a fork proves as much.
    """

    stream: StreamBytes
    guest: Guest
    start: Count
    bodies: Annotated[
        list[Annotated[bytes, msgspec.Meta(min_length=SMALLEST - BODY, max_length=LARGEST - BODY)]],
        msgspec.Meta(max_length=CHUNK),
    ]
    signatures: Annotated[
        list[Annotated[bytes, msgspec.Meta(max_length=SIGNATURE_SIZE)]],
        msgspec.Meta(max_length=CHUNK // BLOCK + 1),
    ]

    @classmethod
    def of(cls, stream: bytes, guest: Guest, start: int, stretches: Sequence[Stretch]) -> Chunk:
        """Of stretches that follow each other from ``start`` on."""
        bodies = [data[BODY:] for stretch in stretches for data in stretch.encoded]
        return cls(stream, guest, start, bodies, [stretch.signature for stretch in stretches])

    def stretches(self) -> list[Stretch]:
        """What a chunk carries, each message checked for its form.

        Raises:
            MessageError: a message is not valid, or there are more or fewer signatures than ends of blocks.
        """
        stream, stop = Stream.from_bytes(self.stream), self.start + len(self.bodies)
        starts = [self.start, *range((self.start // BLOCK + 1) * BLOCK, stop, BLOCK)] if self.bodies else []
        if len(self.signatures) != len(starts):
            raise MessageError(f"{len(self.signatures)} signatures of {len(starts)} blocks")
        encoded = [Message.of_body(stream, n, body).encode() for n, body in enumerate(self.bodies, self.start)]
        ends = [*starts[1:], stop]
        return [
            Stretch(start, tuple(encoded[start - self.start : end - self.start]), signature)
            for start, end, signature in zip(starts, ends, self.signatures, strict=False)
        ]


class Trace(Frame, tag=7, frozen=True):
    """Send me the heads of a stream's blocks: we hold different ones."""

    stream: StreamBytes


class Marks(Frame, tag=8, frozen=True):
    """The answer to Trace: the first bytes of each head, from block 0 on."""

    stream: StreamBytes
    marks: Annotated[list[Digest8], msgspec.Meta(max_length=MOST_MARKS)]


class Consult(Frame, tag=9, frozen=True):
    """Send me all orders, forks, and introductions that show an invite."""


class Vacancy(Frame, tag=10, frozen=True):
    """A relay that has no run yet answers Hello: offer me yours."""


class Offer(Frame, tag=11, frozen=True):
    """The answer to Vacancy."""

    manifest: Annotated[bytes, msgspec.Meta(max_length=LARGEST_PACKED)]
    signature: Signature


class Holding(Frame, tag=12, frozen=True):
    """What its sender holds now, as in a heartbeat, for those at the other ends of its links alone."""

    messages: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    held: Digest16
    proven: Digest8


class Heartbeat(Frame, tag=20, frozen=True):
    """What a peer is at and has.

    ``interval`` are milliseconds until its next sign of life, ``pace`` those that a step takes it, waiting left
    out, 0 where it does not know; ``messages`` and ``held`` say what it holds, ``proven`` which orders and forks
    it knows. ``pulse`` is the last number of its pulses, or what the first leads to. ``digest`` is that of its
    weights once it has finished, else empty.
    """

    stream: StreamBytes
    guest: Guest
    beat: Count
    name: Name
    state: State
    round: Count
    interval: Count
    pace: Count
    messages: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    held: Digest16
    proven: Digest8
    pulse: Digest8
    digest: Annotated[bytes, msgspec.Meta(max_length=32)] = b""


ControlFrame = (
    Hello
    | Welcome
    | Refusal
    | Compare
    | Levels
    | Request
    | Chunk
    | Trace
    | Marks
    | Consult
    | Vacancy
    | Offer
    | Holding
)


@dataclass(frozen=True, slots=True)
class SignedHeartbeat:
    """A heartbeat with its stream and introduction, the bytes that its sender has signed, and the signature."""

    beat: Heartbeat
    stream: Stream
    introduction: Introduction
    text: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Pulse:
    """A peer is there still, and at what its last heartbeat said."""

    stream: bytes
    number: bytes


@dataclass(frozen=True, slots=True)
class Accusation:
    """A fork and who its writer is."""

    fork: Fork
    guest: Guest


AnyFrame = Signed | Introduction | Order | Accusation | SignedHeartbeat | Pulse | ControlFrame

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[ControlFrame] = msgspec.msgpack.Decoder(ControlFrame)
_beats: msgspec.msgpack.Decoder[Heartbeat] = msgspec.msgpack.Decoder(Heartbeat)
_guests: msgspec.msgpack.Decoder[tuple[Guest, bytes]] = msgspec.msgpack.Decoder(tuple[Guest, bytes])


def encode(frame: ControlFrame) -> bytes:
    """The bytes of a control frame."""
    return bytes([CONTROL]) + _encoder.encode(frame)


def encode_accusation(accusation: Accusation) -> bytes:
    """The bytes of a fork and its writer."""
    return bytes([FORK_KIND]) + _encoder.encode((accusation.guest, accusation.fork.encode()))


def text_of(beat: Heartbeat, seal: bytes) -> bytes:
    """What the sender of a heartbeat signs."""
    return b"shared-seed heartbeat" + seal + _encoder.encode(beat)


def encode_beat(beat: Heartbeat, signature: bytes) -> bytes:
    """The bytes of a signed heartbeat."""
    return bytes([HEARTBEAT]) + _encoder.encode(beat) + signature


def encode_pulse(pulse: Pulse) -> bytes:
    """The bytes of a pulse."""
    return bytes([PULSE]) + pulse.stream + pulse.number


def decode(data: bytes, seal: bytes) -> AnyFrame:
    """Parse one frame of any kind.

    Raises:
        MessageError: it is not exactly one valid frame.
    """
    if not data or len(data) > LARGEST_FRAME:
        raise MessageError(f"a frame has 1 to {LARGEST_FRAME} bytes, got {len(data)}")
    kind, rest = data[0], memoryview(data)[1:]
    if kind == SIGNED_KIND:
        return Signed.decode(data)
    if kind == ORDER_KIND:
        return Order.decode(data)
    if kind == INTRODUCTION_KIND:
        return Introduction.decode(data)
    if kind == PULSE:
        if len(rest) != 16 + PULSE_SIZE:
            raise MessageError(f"a pulse has {17 + PULSE_SIZE} bytes, got {len(data)}")
        return Pulse(bytes(rest[:16]), bytes(rest[16:]))
    try:
        frame = _decode_packed(kind, rest, seal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"not a valid frame of kind {kind:#04x}: {error}") from error
    if _encode_packed(frame) != data:
        raise MessageError(f"a frame of kind {kind:#04x} that is not in canonical form")
    return frame


def _decode_packed(kind: int, rest: memoryview, seal: bytes) -> Accusation | SignedHeartbeat | ControlFrame:
    """A frame that is msgpack, in whatever of the forms that msgpack has for it."""
    if kind == CONTROL:
        return _decoder.decode(rest)
    if kind == HEARTBEAT:
        beat = _beats.decode(rest[:-SIGNATURE_SIZE])
        stream, introduction = Stream.from_bytes(beat.stream), beat.guest.introduction()
        return SignedHeartbeat(beat, stream, introduction, text_of(beat, seal), bytes(rest[-SIGNATURE_SIZE:]))
    if kind == FORK_KIND and len(rest) < 2 * LARGEST_PROOF:
        guest, fork = _guests.decode(rest)
        return Accusation(Fork.decode(fork), guest)
    raise MessageError(f"no frame begins with {kind:#04x}, or none so long")


def _encode_packed(frame: Accusation | SignedHeartbeat | ControlFrame) -> bytes:
    if isinstance(frame, Accusation):
        return encode_accusation(frame)
    if isinstance(frame, SignedHeartbeat):
        return encode_beat(frame.beat, frame.signature)
    return encode(frame)
