"""Frames: round trip, bounds, and bytes that are none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_seed.admission import Introduction
from shared_seed.errors import MessageError
from shared_seed.identity import KEY_SIZE
from shared_seed.ledger import BLOCK
from shared_seed.manifest import LARGEST_PACKED
from shared_seed.messages import LARGEST, MOST_STREAMS
from shared_seed.swarm import wire
from shared_seed.swarm.wire import (
    AnyFrame,
    Chunk,
    Compare,
    Consult,
    ControlFrame,
    Guest,
    Heartbeat,
    Hello,
    Levels,
    Marks,
    Offer,
    Refusal,
    Request,
    State,
    Trace,
    Vacancy,
    Welcome,
)
from swarming import ANN, TERMS, ban, introduction, writer

STREAM = bytes(range(16))
DIGEST = bytes(range(32))
SIGNATURE = bytes(range(64))
GUEST = Guest(bytes(32), bytes(8), bytes(224))
BODIES = [bytes(9), bytes(263)]
SUMMARIES = [(n, bytes(8)) for n in range(64)]
BEAT = Heartbeat(
    STREAM, GUEST, 7, "Zoë", State.TRAINING, 3, 2000, 40, 1 << 61, bytes(16), bytes(8), b"a number", DIGEST
)

EXAMPLES: dict[str, ControlFrame] = {
    "hello": Hello(STREAM, "Zoë", GUEST, DIGEST),
    "welcome": Welcome(STREAM, "b", GUEST, b"packed", SIGNATURE),
    "refusal": Refusal("your manifest differs"),
    "compare": Compare(True, SUMMARIES),
    "levels": Levels([(STREAM, 2**32 - 1, bytes(8)), (bytes(16), 1, bytes(8))]),
    "request": Request(STREAM, 3, 515),
    "chunk": Chunk(STREAM, GUEST, 62, BODIES, [SIGNATURE]),
    "trace": Trace(STREAM),
    "marks": Marks(STREAM, [bytes(8)]),
    "consult": Consult(),
    "vacancy": Vacancy(),
    "offer": Offer(b"packed", SIGNATURE),
}
frames_by_name = pytest.mark.parametrize("frame", EXAMPLES.values(), ids=EXAMPLES.keys())

streams = st.binary(min_size=16, max_size=16)
names = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp")), max_size=64)
counts = st.integers(0, 2**32 - 1)
eights = st.binary(min_size=8, max_size=8)
guests = st.builds(Guest, st.binary(min_size=32, max_size=32), eights, st.binary(max_size=224))
frames = st.one_of(
    st.builds(Hello, streams, names, guests, st.binary(max_size=32)),
    st.builds(Welcome, streams, names, guests, st.binary(max_size=100), st.binary(max_size=64)),
    st.builds(Refusal, names),
    st.builds(Compare, st.booleans(), st.lists(st.tuples(counts, eights), min_size=64, max_size=64)),
    st.builds(Levels, st.lists(st.tuples(streams, counts, eights), max_size=5)),
    st.builds(Request, streams, counts, st.integers(1, wire.CHUNK)),
    st.builds(
        Chunk,
        streams,
        guests,
        counts,
        st.lists(st.binary(min_size=9, max_size=263), max_size=5),
        st.lists(st.binary(max_size=64), max_size=5),
    ),
    st.builds(Trace, streams),
    st.builds(Marks, streams, st.lists(eights, max_size=5)),
    st.builds(Offer, st.binary(max_size=100), st.binary(max_size=64)),
)
SEAL = TERMS.seal
ACCUSATION = wire.Accusation(writer(ANN, 1).fork(writer(ANN, 1, 0).branched(0).more(1, code=1), 0), GUEST)
OTHERS: dict[str, bytes] = {
    "signed": writer(ANN, 1).signed[0].encode(),
    "introduction": introduction(ANN, 1, bytes(224)).encode(),
    "order": ban(ANN).encode(),
    "fork": wire.encode_accusation(ACCUSATION),
    "heartbeat": wire.encode_beat(BEAT, SIGNATURE),
    "pulse": b"\x12" + STREAM + b"a number",
}


def decode(data: bytes) -> AnyFrame:
    return wire.decode(data, SEAL)


def decoded(data: bytes) -> AnyFrame | None:
    """What it says, or ``None`` for a refusal; any exception but MessageError comes through."""
    try:
        return decode(data)
    except MessageError:
        return None


def packed(*fields: Any) -> bytes:
    """A control frame of any fields at all."""
    return b"\x10" + msgspec.msgpack.encode(fields)


@settings(max_examples=300)
@given(frame=frames)
def test_encode_and_decode_are_inverse(frame: ControlFrame) -> None:
    assert decode(wire.encode(frame)) == frame


@frames_by_name
def test_every_kind_is_read_as_written(frame: ControlFrame) -> None:
    assert decode(wire.encode(frame)) == frame


def test_the_other_kinds_are_read_as_written() -> None:
    assert decode(OTHERS["signed"]) == writer(ANN, 1).signed[0]
    assert decode(OTHERS["introduction"]) == introduction(ANN, 1, bytes(224))
    assert decode(OTHERS["order"]) == ban(ANN)
    assert decode(OTHERS["fork"]) == ACCUSATION
    found = decode(OTHERS["heartbeat"])
    assert isinstance(found, wire.SignedHeartbeat)
    assert (found.beat, found.signature, found.text) == (BEAT, SIGNATURE, wire.text_of(BEAT, SEAL))
    assert decode(OTHERS["pulse"]) == wire.Pulse(STREAM, b"a number")
    assert wire.encode_pulse(wire.Pulse(STREAM, b"a number")) == OTHERS["pulse"]


def test_the_first_byte_tells_all_kinds_apart() -> None:
    kinds = {wire.encode(frame)[0] for frame in EXAMPLES.values()}
    assert kinds == {0x10}
    assert [data[0] for data in OTHERS.values()] == [4, 5, 6, 7, 0x11, 0x12]


def test_bytes_stay_as_other_releases_read_them() -> None:
    guest = b"\x93\xc4\x20" + bytes(32) + b"\xc4\x08" + bytes(8) + b"\xc4\x00"
    plain = Guest(bytes(32), bytes(8))
    assert wire.encode(Request(STREAM, 3, 515)) == b"\x10\x94\x05\xc4\x10" + STREAM + b"\x03\xcd\x02\x03"
    assert wire.encode(Hello(STREAM, "ab", plain, b"")) == (
        b"\x10\x95\x00\xc4\x10" + STREAM + b"\xa2ab" + guest + b"\xc4\x00"
    )
    assert wire.encode(Chunk(STREAM, plain, 5, [bytes(9)], [b""])) == (
        b"\x10\x96\x06\xc4\x10" + STREAM + guest + b"\x05\x91\xc4\x09" + bytes(9) + b"\x91\xc4\x00"
    )


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS.keys())
def test_other_kinds_with_a_byte_more_or_less_are_another_or_refused(data: bytes) -> None:
    for n in range(len(data)):
        found = decoded(data[:n])
        assert found is None or data[0] in (4, 0x11) or (data[0], n) == (5, 41), "it is as long as it says"
    assert data[0] in (4, 0x11) or decoded(data + b"\0") is None


@frames_by_name
def test_every_truncation_is_refused(frame: ControlFrame) -> None:
    data = wire.encode(frame)
    assert [n for n in range(len(data)) if decoded(data[:n]) is not None] == []


@frames_by_name
@pytest.mark.parametrize("tail", [b"\0", b"\xc0", b"\x10"])
def test_bytes_after_the_end_are_refused(frame: ControlFrame, tail: bytes) -> None:
    with pytest.raises(MessageError):
        decode(wire.encode(frame) + tail)


@frames_by_name
def test_any_change_of_a_byte_is_refused_or_gives_a_valid_frame(frame: ControlFrame) -> None:
    data = wire.encode(frame)
    for position in range(1, len(data)):
        for mask in (0x01, 0x20, 0x80, 0xFF):
            changed = data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]
            found = decoded(changed)
            assert found is None or decode(wire.encode(found)) == found  # type: ignore[arg-type]


@settings(max_examples=1000)
@given(data=st.one_of(st.binary(max_size=400), st.binary(max_size=100).map(lambda tail: b"\x10" + tail)))
def test_random_bytes_are_refused_or_a_valid_frame(data: bytes) -> None:
    found = decoded(data)
    assert found is None or data[0] in (0x04, 0x05, 0x06, 0x07, 0x10, 0x11, 0x12)


@settings(max_examples=300)
@given(frame=frames, data=st.data())
def test_a_valid_frame_with_spliced_bytes_raises_nothing_else(frame: ControlFrame, data: st.DataObject) -> None:
    good = wire.encode(frame)
    at = data.draw(st.integers(1, len(good)))
    found = decoded(good[:at] + data.draw(st.binary(min_size=1, max_size=8)) + good[at + 1 :])
    assert found is None or type(found) in {type(each) for each in EXAMPLES.values()}


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80"], ids=["no UTF-8", "cut off", "surrogate"])
def test_text_that_is_not_utf8_is_refused(text: bytes) -> None:
    with pytest.raises(MessageError):
        decode(b"\x10\x92\x02" + bytes([0xA0 | len(text)]) + text)


G = [bytes(32), bytes(8), b""]
LEVEL = [STREAM, 1, bytes(8)]
OUT_OF_BOUNDS = {
    "stream of 15 bytes": packed(0, bytes(15), "a", G, b""),
    "stream of 17 bytes": packed(0, bytes(17), "a", G, b""),
    "stream as text": packed(0, "a" * 16, "a", G, b""),
    "name of 65 characters": packed(0, STREAM, "a" * 65, G, b""),
    "key of 31 bytes": packed(0, STREAM, "a", [bytes(31), bytes(8), b""], b""),
    "label of 9 bytes": packed(0, STREAM, "a", [bytes(32), bytes(9), b""], b""),
    "ticket of 225 bytes": packed(0, STREAM, "a", [bytes(32), bytes(8), bytes(225)], b""),
    "digest of 33 bytes": packed(0, STREAM, "a", G, bytes(33)),
    "manifest too large": packed(1, STREAM, "a", G, bytes(LARGEST_PACKED + 1), b""),
    "signature of 65 bytes": packed(1, STREAM, "a", G, b"", bytes(65)),
    "reason of 1001 characters": packed(2, "a" * 1001),
    "63 summaries": packed(3, True, SUMMARIES[:63]),
    "65 summaries": packed(3, True, [*SUMMARIES, (0, bytes(8))]),
    "summary of 63 bits": packed(3, True, [*SUMMARIES[:63], (1 << 62, bytes(8))]),
    "full as a number": packed(3, 1, SUMMARIES),
    "too many streams": packed(4, [LEVEL] * (MOST_STREAMS + 1)),
    "count of 33 bits": packed(4, [[STREAM, 1 << 32, bytes(8)]]),
    "head of 7 bytes": packed(4, [[STREAM, 1, bytes(7)]]),
    "start of 33 bits": packed(5, STREAM, 1 << 32, 1),
    "start as a float": packed(5, STREAM, 1.0, 1),
    "start as a boolean": packed(5, STREAM, True, 1),
    "negative start": packed(5, STREAM, -1, 1),
    "none at most": packed(5, STREAM, 0, 0),
    "more than a chunk": packed(5, STREAM, 0, wire.CHUNK + 1),
    "too many messages": packed(6, STREAM, G, 0, [bytes(9)] * (wire.CHUNK + 1), []),
    "message too long": packed(6, STREAM, G, 0, [bytes(264)], [b""]),
    "message too short": packed(6, STREAM, G, 0, [bytes(8)], [b""]),
    "message as text": packed(6, STREAM, G, 0, ["a" * 9], [b""]),
    "too many signatures": packed(6, STREAM, G, 0, [], [b""] * (wire.CHUNK // BLOCK + 2)),
    "too many marks": packed(8, STREAM, [bytes(8)] * (wire.MOST_MARKS + 1)),
    "unknown tag": packed(12, STREAM),
    "a heartbeat as a control frame": b"\x10" + wire.encode_beat(BEAT, b"")[1:],
    "a control frame as a heartbeat": b"\x11" + wire.encode(EXAMPLES["hello"])[1:] + SIGNATURE,
    "a heartbeat without a signature": wire.encode_beat(BEAT, b""),
    "unknown state": wire.encode_beat(BEAT, SIGNATURE).replace(b"training", b"sleeping"),
    "tag as text": packed("Hello", STREAM, "a", G, b""),
    "no tag": packed(),
    "a field too few": packed(0, STREAM, "a", G),
    "a field too many": packed(0, STREAM, "a", G, b"", 1),
    "a map": b"\x10" + msgspec.msgpack.encode({"stream": STREAM}),
    "nothing": b"\x10",
    "an empty frame": b"",
    "kind zero": b"\x00" + wire.encode(EXAMPLES["hello"])[1:],
    "a message without a signature": writer(ANN, 1).messages[0].encode(),
    "a list said to be four billion long": b"\x10\x92\x04\xdd\xff\xff\xff\xff",
    "bytes said to be four billion long": b"\x10\x92\x04\x91\x93\xc6\xff\xff\xff\xff",
    "a fork that is none": b"\x07" + msgspec.msgpack.encode((G, b"\x07")),
    "a fork too large": b"\x07" + bytes(130_000),
    "deep nesting": b"\x10" + b"\x91" * 100_000,
    "an extension type": b"\x10\x92\x02\xd4\x01\x00",
}


@pytest.mark.parametrize("data", OUT_OF_BOUNDS.values(), ids=OUT_OF_BOUNDS.keys())
def test_what_is_out_of_bounds_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode(data)


def test_what_is_just_within_bounds_is_taken() -> None:
    for frame in (
        Hello(STREAM, "é" * 64, GUEST, DIGEST),
        Welcome(STREAM, "a", GUEST, bytes(LARGEST_PACKED), SIGNATURE),
        Refusal("r" * 1000),
        Compare(False, [((1 << 62) - 1, bytes(8))] * 64),
        Levels([(n.to_bytes(16), n, bytes(8)) for n in range(MOST_STREAMS)]),
        Request(STREAM, 2**32 - 1, wire.CHUNK),
        Chunk(STREAM, GUEST, 0, [bytes(LARGEST - 21)] * wire.CHUNK, [SIGNATURE] * (wire.CHUNK // BLOCK)),
        Marks(STREAM, [bytes(8)] * wire.MOST_MARKS),
    ):
        data = wire.encode(frame)
        assert len(data) <= wire.LARGEST_FRAME
        assert decode(data) == frame


def test_a_frame_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(MessageError, match=str(wire.LARGEST_FRAME)):
        decode(b"\x10" + bytes(wire.LARGEST_FRAME))


@pytest.mark.parametrize("start", [0, 1, BLOCK - 1, BLOCK, BLOCK + 5])
def test_chunks_carry_stretches(start: int) -> None:
    one = writer(ANN, 3 * BLOCK + 7)
    frame = Chunk.of(one.stream.to_bytes(), GUEST, start, one.stretches(start))
    assert decode(wire.encode(frame)) == frame
    assert frame.stretches() == one.stretches(start)


@pytest.mark.parametrize("signatures", [0, 1, 3])
def test_a_chunk_has_a_signature_for_each_block(signatures: int) -> None:
    one = writer(ANN, BLOCK + 1)
    whole = Chunk.of(one.stream.to_bytes(), GUEST, 0, one.stretches())
    with pytest.raises(MessageError, match="signatures"):
        Chunk(whole.stream, GUEST, 0, whole.bodies, [SIGNATURE] * signatures).stretches()


@pytest.mark.parametrize("body", [bytes(4) + b"\xff\xff\xff\xff" + b"8", bytes(263 + 1)])
def test_a_chunk_with_a_body_that_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(MessageError):
        Chunk(STREAM, GUEST, 0, [body], [SIGNATURE]).stretches()


@pytest.mark.parametrize("size", [0, 1, 223, 224])
def test_a_guest_is_an_introduction_whose_ticket_is_whole(size: int) -> None:
    guest = Guest(bytes(KEY_SIZE), bytes(8), bytes(size))
    if size in (0, 224):
        assert Guest.of(guest.introduction()) == guest
        assert guest.introduction() == Introduction(bytes(KEY_SIZE), bytes(8), bytes(size))
    else:
        with pytest.raises(MessageError):
            guest.introduction()


def test_what_a_heartbeat_s_sender_signs_names_the_run() -> None:
    assert wire.text_of(BEAT, SEAL) == b"shared-seed heartbeat" + SEAL + wire.encode_beat(BEAT, b"")[1:]
