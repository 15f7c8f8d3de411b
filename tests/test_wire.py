"""Control frames: round trip, bounds, and bytes that are none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_seed.errors import MessageError
from shared_seed.manifest import LARGEST_PACKED
from shared_seed.messages import LARGEST, MOST_STREAMS, Message, Stream
from shared_seed.swarm import wire
from shared_seed.swarm.wire import AnyFrame, Chunk, Heartbeat, Hello, Refusal, Request, State, Welcome

STREAM = bytes(range(16))
DIGEST = bytes(range(32))
MESSAGE = Message(Stream(b"peer-number1", 7), 258, 3, 0.5, b"\x38\x7f")

EXAMPLES: dict[str, AnyFrame] = {
    "hello": Hello(STREAM, "Zoë", DIGEST),
    "welcome": Welcome(STREAM, "b", b"packed"),
    "refusal": Refusal("your manifest differs"),
    "heartbeat": Heartbeat(STREAM, 7, "a", State.TRAINING, 3, {STREAM: 2**32 - 1, bytes(16): 1}, DIGEST),
    "request": Request(STREAM, 3, 515),
    "chunk": Chunk([MESSAGE.encode(), MESSAGE.encode()]),
}
frames_by_name = pytest.mark.parametrize("frame", EXAMPLES.values(), ids=EXAMPLES.keys())

streams = st.binary(min_size=16, max_size=16)
names = st.text(st.characters(exclude_categories=("Cs",)), max_size=64)
counts = st.integers(0, 2**32 - 1)
digests = st.binary(max_size=32)
frames = st.one_of(
    st.builds(Hello, streams, names, digests),
    st.builds(Welcome, streams, names, st.binary(max_size=100)),
    st.builds(Refusal, st.text(st.characters(exclude_categories=("Cs",)), max_size=200)),
    st.builds(
        Heartbeat,
        streams,
        counts,
        names,
        st.sampled_from(State),
        counts,
        st.dictionaries(streams, counts, max_size=5),
        digests,
    ),
    st.builds(Request, streams, counts, counts),
    st.builds(Chunk, st.lists(st.binary(max_size=LARGEST), max_size=5)),
)


def decoded(data: bytes) -> Message | AnyFrame | None:
    """What it says, or ``None`` for a refusal; any exception but MessageError comes through."""
    try:
        return wire.decode(data)
    except MessageError:
        return None


def packed(*fields: Any) -> bytes:
    """A control frame of any fields at all."""
    return b"\x10" + msgspec.msgpack.encode(fields)


@settings(max_examples=300)
@given(frame=frames)
def test_encode_and_decode_are_inverse(frame: AnyFrame) -> None:
    assert wire.decode(wire.encode(frame)) == frame


def test_a_gradient_message_is_decoded_as_one() -> None:
    assert wire.decode(MESSAGE.encode()) == MESSAGE


@frames_by_name
def test_the_first_byte_tells_control_frames_from_messages(frame: AnyFrame) -> None:
    assert wire.encode(frame)[0] == 0x10 != MESSAGE.encode()[0]


def test_bytes_stay_as_other_releases_read_them() -> None:
    assert wire.encode(Request(STREAM, 3, 515)) == b"\x10\x94\x04\xc4\x10" + STREAM + b"\x03\xcd\x02\x03"
    assert wire.encode(Hello(STREAM, "ab", b"")) == b"\x10\x94\x00\xc4\x10" + STREAM + b"\xa2ab\xc4\x00"
    assert wire.encode(Heartbeat(STREAM, 1, "", State.READY, 0, {STREAM: 5})) == (
        b"\x10\x98\x03\xc4\x10" + STREAM + b"\x01\xa0\xa5ready\x00\x81\xc4\x10" + STREAM + b"\x05\xc4\x00"
    )


@frames_by_name
def test_every_truncation_is_refused(frame: AnyFrame) -> None:
    data = wire.encode(frame)
    assert [n for n in range(len(data)) if decoded(data[:n]) is not None] == []


@frames_by_name
@pytest.mark.parametrize("tail", [b"\0", b"\xc0", b"\x10"])
def test_bytes_after_the_end_are_refused(frame: AnyFrame, tail: bytes) -> None:
    with pytest.raises(MessageError):
        wire.decode(wire.encode(frame) + tail)


@frames_by_name
def test_any_change_of_a_byte_is_refused_or_gives_a_valid_frame(frame: AnyFrame) -> None:
    data = wire.encode(frame)
    for position in range(1, len(data)):
        for mask in (0x01, 0x20, 0x80, 0xFF):
            changed = data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]
            found = decoded(changed)
            assert found is None or wire.decode(wire.encode(found)) == found  # type: ignore[arg-type]


@settings(max_examples=1000)
@given(data=st.one_of(st.binary(max_size=400), st.binary(max_size=100).map(lambda tail: b"\x10" + tail)))
def test_random_bytes_are_refused_or_a_valid_frame(data: bytes) -> None:
    found = decoded(data)
    assert found is None or data[0] in (0x01, 0x10)


@settings(max_examples=300)
@given(frame=frames, data=st.data())
def test_a_valid_frame_with_spliced_bytes_raises_nothing_else(frame: AnyFrame, data: st.DataObject) -> None:
    good = wire.encode(frame)
    at = data.draw(st.integers(1, len(good)))
    found = decoded(good[:at] + data.draw(st.binary(min_size=1, max_size=8)) + good[at + 1 :])
    assert found is None or type(found) in {Hello, Welcome, Refusal, Heartbeat, Request, Chunk}


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80"], ids=["no UTF-8", "cut off", "surrogate"])
def test_text_that_is_not_utf8_is_refused(text: bytes) -> None:
    with pytest.raises(MessageError):
        wire.decode(b"\x10\x92\x02" + bytes([0xA0 | len(text)]) + text)


OUT_OF_BOUNDS = {
    "stream of 15 bytes": packed(0, bytes(15), "a", b""),
    "stream of 17 bytes": packed(0, bytes(17), "a", b""),
    "stream as text": packed(0, "a" * 16, "a", b""),
    "name of 65 characters": packed(0, STREAM, "a" * 65, b""),
    "digest of 33 bytes": packed(0, STREAM, "a", bytes(33)),
    "manifest too large": packed(1, STREAM, "a", bytes(LARGEST_PACKED + 1)),
    "reason of 1001 characters": packed(2, "a" * 1001),
    "unknown state": packed(3, STREAM, 1, "a", "sleeping", 0, {}, b""),
    "negative beat": packed(3, STREAM, -1, "a", "ready", 0, {}, b""),
    "round of 33 bits": packed(3, STREAM, 1, "a", "ready", 1 << 32, {}, b""),
    "round as a float": packed(3, STREAM, 1, "a", "ready", 1.0, {}, b""),
    "round as a boolean": packed(3, STREAM, 1, "a", "ready", True, {}, b""),
    "count of 33 bits": packed(3, STREAM, 1, "a", "ready", 0, {STREAM: 1 << 32}, b""),
    "key of 15 bytes": packed(3, STREAM, 1, "a", "ready", 0, {bytes(15): 1}, b""),
    "too many streams": packed(
        3, STREAM, 1, "a", "ready", 0, {n.to_bytes(16): 1 for n in range(MOST_STREAMS + 1)}, b""
    ),
    "start of 33 bits": packed(4, STREAM, 1 << 32, 0),
    "too many messages": packed(5, [b""] * (wire.CHUNK + 1)),
    "message too long": packed(5, [bytes(LARGEST + 1)]),
    "message as text": packed(5, ["a"]),
    "unknown tag": packed(6, STREAM),
    "tag as text": packed("Hello", STREAM, "a", b""),
    "no tag": packed(),
    "a field too few": packed(0, STREAM, "a"),
    "a field too many": packed(0, STREAM, "a", b"", 1),
    "a map": b"\x10" + msgspec.msgpack.encode({"stream": STREAM}),
    "nothing": b"\x10",
    "an empty frame": b"",
    "kind zero": b"\x00" + wire.encode(EXAMPLES["hello"])[1:],
    "a list said to be four billion long": b"\x10\x92\x05\xdd\xff\xff\xff\xff",
    "bytes said to be four billion long": b"\x10\x92\x05\x91\xc6\xff\xff\xff\xff",
    "a map said to be four billion long": b"\x10\x98\x03\xc4\x10"
    + STREAM
    + b"\x01\xa0\xa5ready\x00\xdf\xff\xff\xff\xff",
    "deep nesting": b"\x10" + b"\x91" * 100_000,
    "an extension type": b"\x10\x92\x02\xd4\x01\x00",
}


@pytest.mark.parametrize("data", OUT_OF_BOUNDS.values(), ids=OUT_OF_BOUNDS.keys())
def test_what_is_out_of_bounds_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        wire.decode(data)


def test_what_is_just_within_bounds_is_taken() -> None:
    for frame in (
        Hello(STREAM, "é" * 64, DIGEST),
        Welcome(STREAM, "a", bytes(LARGEST_PACKED)),
        Refusal("r" * 1000),
        Heartbeat(STREAM, 0, "", State.LOADING, 2**32 - 1, {n.to_bytes(16): n for n in range(MOST_STREAMS)}),
        Request(STREAM, 0, 2**32 - 1),
        Chunk([bytes(LARGEST)] * wire.CHUNK),
    ):
        data = wire.encode(frame)
        assert len(data) <= wire.LARGEST_FRAME
        assert wire.decode(data) == frame


def test_a_frame_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(MessageError, match=str(wire.LARGEST_FRAME)):
        wire.decode(b"\x10" + bytes(wire.LARGEST_FRAME))


@given(version=st.dictionaries(st.builds(Stream, st.binary(min_size=12, max_size=12), counts), counts, max_size=5))
def test_version_vectors_round_trip(version: dict[Stream, int]) -> None:
    assert wire.unpack_version(wire.pack_version(version)) == version
