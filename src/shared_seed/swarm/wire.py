"""The frames other than gradient messages: msgpack by msgspec, typed, bounded, parsed strictly.

The first byte says which: gradient messages begin with 0x01 (:mod:`shared_seed.messages`), these with 0x10.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from shared_seed.errors import MessageError
from shared_seed.manifest import LARGEST_PACKED
from shared_seed.messages import LARGEST, MOST_STREAMS, Message, Stream

CONTROL = 0x10
"""First byte of a control frame."""

LARGEST_FRAME = LARGEST_PACKED + (1 << 16)
"""Bytes beyond which a frame is refused unread."""

CHUNK = 512
"""Messages that one catch-up answer carries at most."""

Name = Annotated[str, msgspec.Meta(max_length=64)]
StreamBytes = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Count = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Version = Annotated[dict[StreamBytes, Count], msgspec.Meta(max_length=MOST_STREAMS)]


class State(StrEnum):
    """What a peer is at."""

    LOADING = "loading"
    READY = "ready"
    TRAINING = "training"
    FINISHED = "finished"
    LEAVING = "leaving"
    RELAYING = "relaying"


class Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the control frames."""


class Hello(Frame, tag=0, frozen=True):
    """A peer introduces itself on a link; an empty digest asks for the manifest."""

    stream: StreamBytes
    name: Name
    manifest_digest: Annotated[bytes, msgspec.Meta(max_length=32)]


class Welcome(Frame, tag=1, frozen=True):
    """The answer to Hello: who we are and, where it was asked for, the packed manifest."""

    stream: StreamBytes
    name: Name
    manifest: Annotated[bytes, msgspec.Meta(max_length=LARGEST_PACKED)] = b""


class Refusal(Frame, tag=2, frozen=True):
    """The other answer to Hello."""

    reason: Annotated[str, msgspec.Meta(max_length=1000)]


class Heartbeat(Frame, tag=3, frozen=True):
    """What a peer is at and has. ``digest`` is that of its weights once it has finished, else empty."""

    stream: StreamBytes
    beat: Count
    name: Name
    state: State
    round: Count
    version: Version
    digest: Annotated[bytes, msgspec.Meta(max_length=32)] = b""


class Request(Frame, tag=4, frozen=True):
    """Send me messages [start, stop) of a stream."""

    stream: StreamBytes
    start: Count
    stop: Count


class Chunk(Frame, tag=5, frozen=True):
    """Encoded messages, in answer to a request."""

    messages: Annotated[list[Annotated[bytes, msgspec.Meta(max_length=LARGEST)]], msgspec.Meta(max_length=CHUNK)]


AnyFrame = Hello | Welcome | Refusal | Heartbeat | Request | Chunk

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyFrame] = msgspec.msgpack.Decoder(AnyFrame)


def encode(frame: AnyFrame) -> bytes:
    """The bytes of a control frame."""
    return bytes([CONTROL]) + _encoder.encode(frame)


def decode(data: bytes) -> Message | AnyFrame:
    """Parse one frame of any kind.

    Raises:
        MessageError: it is not exactly one valid frame.
    """
    if not data or len(data) > LARGEST_FRAME:
        raise MessageError(f"a frame has 1 to {LARGEST_FRAME} bytes, got {len(data)}")
    if data[0] != CONTROL:
        return Message.decode(data)
    try:
        return _decoder.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"not a valid control frame: {error}") from error


def pack_version(version: dict[Stream, int]) -> dict[bytes, int]:
    """A version vector as frames carry it."""
    return {stream.to_bytes(): count for stream, count in version.items()}


def unpack_version(version: dict[bytes, int]) -> dict[Stream, int]:
    """The inverse of :func:`pack_version`."""
    return {Stream.from_bytes(stream): count for stream, count in version.items()}
