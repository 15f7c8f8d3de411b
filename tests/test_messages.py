"""Messages as bytes, fed with everything that is not one; and the set of them."""

from __future__ import annotations

import itertools
import math
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_seed.errors import EquivocationError, MessageError
from shared_seed.messages import (
    LARGEST,
    MOST_CODES,
    MOST_STREAMS,
    SMALLEST,
    WINDOW,
    Message,
    MessageSet,
    Stream,
    as_float32,
)
from shared_seed.noise import Sample, stream_key

GOLDEN = bytes.fromhex(
    "01"  # kind
    "706565722d6e756d62657231"  # peer, b"peer-number1"
    "07000000"  # incarnation
    "02010000"  # number
    "03000000"  # round
    "0000003f"  # learning rate, float32
    "387fc0"  # codes
)
EXAMPLE = Message(Stream(b"peer-number1", 7), number=258, round=3, learning_rate=0.5, codes=b"\x38\x7f\xc0")

words = st.integers(0, 2**32 - 1)
streams = st.builds(Stream, st.binary(min_size=12, max_size=12), words)
rates = st.floats(0, width=32, allow_nan=False, allow_infinity=False).map(abs)
codes = st.binary(min_size=1, max_size=MOST_CODES)
messages = st.builds(Message, streams, words, words, rates, codes)

A, B, C = (Stream(bytes([n]) * 12, n) for n in (1, 2, 3))


def message(stream: Stream, number: int, code: int = 0x38, round_: int = 0) -> Message:
    return Message(stream, number, round_, 0.25, bytes([code]))


def is_refused_or_canonical(data: bytes) -> bool:
    """Decode; any exception but MessageError comes through."""
    try:
        return Message.decode(data).encode() == data
    except MessageError:
        return True


# Bytes


def test_bytes_are_the_documented_ones() -> None:
    assert EXAMPLE.encode() == GOLDEN
    assert Message.decode(GOLDEN) == EXAMPLE


def test_a_message_with_one_code_has_thirty_bytes() -> None:
    assert (SMALLEST, LARGEST) == (30, 284)
    assert len(message(A, 0).encode()) == 30


@settings(max_examples=200)
@given(one=messages)
def test_encode_and_decode_are_inverse(one: Message) -> None:
    assert Message.decode(one.encode()) == one


@settings(max_examples=200)
@given(pair=st.tuples(messages, messages))
def test_different_messages_have_different_bytes(pair: tuple[Message, Message]) -> None:
    assert (pair[0] == pair[1]) == (pair[0].encode() == pair[1].encode())


def test_a_learning_rate_has_one_zero() -> None:
    # 0.0 == -0.0, so two encodings would pass for one message.
    negative = GOLDEN[:25] + struct.pack("<f", -0.0) + GOLDEN[29:]
    with pytest.raises(MessageError):
        Message.decode(negative)


@pytest.mark.parametrize("length", [n for n in range(len(GOLDEN)) if n < SMALLEST])
def test_a_truncated_message_is_refused(length: int) -> None:
    with pytest.raises(MessageError):
        Message.decode(GOLDEN[:length])


def test_a_longer_message_is_one_with_more_codes_up_to_the_limit() -> None:
    header = GOLDEN[:29]
    assert Message.decode(header + bytes(MOST_CODES)).codes == bytes(MOST_CODES)
    with pytest.raises(MessageError, match="284"):
        Message.decode(header + bytes(MOST_CODES + 1))


@pytest.mark.parametrize("position", range(len(GOLDEN)))
def test_any_change_of_a_byte_is_refused_or_gives_another_canonical_message(position: int) -> None:
    for value in range(256):
        data = GOLDEN[:position] + bytes([value]) + GOLDEN[position + 1 :]
        assert is_refused_or_canonical(data)
        if position == 0 and value != GOLDEN[0]:
            with pytest.raises(MessageError, match="kind"):
                Message.decode(data)


@settings(max_examples=500)
@given(data=st.one_of(st.binary(max_size=300), st.binary(max_size=290).map(lambda tail: b"\x01" + tail)))
def test_random_bytes_are_refused_or_a_canonical_message(data: bytes) -> None:
    assert is_refused_or_canonical(data)


@pytest.mark.parametrize(
    "rate", [math.nan, math.inf, -math.inf, -1.0, -1e-45], ids=["nan", "inf", "-inf", "-1", "-subnormal"]
)
def test_a_learning_rate_that_is_no_rate_is_refused_in_bytes_and_in_python(rate: float) -> None:
    with pytest.raises(MessageError):
        Message.decode(GOLDEN[:25] + struct.pack("<f", rate) + GOLDEN[29:])
    with pytest.raises(MessageError, match="learning rate"):
        Message(A, 0, 0, rate, b"\x38")


@pytest.mark.parametrize("rate", [0.1, 1e39, 1e-60])
def test_a_learning_rate_that_float32_does_not_hold_is_refused(rate: float) -> None:
    # Its writer would apply another rate than everybody who reads its bytes.
    with pytest.raises(MessageError):
        Message(A, 0, 0, rate, b"\x38")


@pytest.mark.parametrize("count", [0, MOST_CODES + 1])
def test_the_number_of_codes_is_bounded(count: int) -> None:
    with pytest.raises(MessageError, match=f"got {count}"):
        Message(A, 0, 0, 0.5, bytes(count))


@pytest.mark.parametrize(("number", "round_"), [(-1, 0), (0, -1), (1 << 32, 0), (0, 1 << 32)])
def test_number_and_round_are_unsigned_32_bit(number: int, round_: int) -> None:
    with pytest.raises(MessageError):
        Message(A, number, round_, 0.5, b"\x38")


@pytest.mark.parametrize(
    ("peer", "incarnation"), [(b"short", 0), (bytes(13), 0), (bytes(12), -1), (bytes(12), 1 << 32)]
)
def test_a_stream_that_does_not_fit_its_bytes_is_refused(peer: bytes, incarnation: int) -> None:
    with pytest.raises(MessageError):
        Stream(peer, incarnation)


@given(stream=streams)
def test_stream_bytes_round_trip(stream: Stream) -> None:
    assert Stream.from_bytes(stream.to_bytes()) == stream
    # One object for all who name it: thousands of version vectors hold it.
    assert Stream.from_bytes(stream.to_bytes()) is Stream.from_bytes(stream.to_bytes())
    assert len(stream.to_bytes()) == 16


@pytest.mark.parametrize("length", [0, 15, 17])
def test_stream_bytes_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(MessageError):
        Stream.from_bytes(bytes(length))


def test_fresh_streams_differ() -> None:
    assert len({Stream.fresh() for _ in range(1000)}) == 1000


@given(value=st.floats(-(2.0**127), 2.0**127))
def test_as_float32_is_what_a_message_carries(value: float) -> None:
    assert as_float32(value) == struct.unpack("<f", struct.pack("<f", value))[0]
    assert as_float32(as_float32(value)) == as_float32(value)


def test_samples_number_the_codes_under_the_key_of_the_stream() -> None:
    run = bytes(range(16))
    key = stream_key(run, EXAMPLE.stream.to_bytes())
    assert list(EXAMPLE.samples(run)) == [
        (Sample(key, 258, 0), 0x38),
        (Sample(key, 258, 1), 0x7F),
        (Sample(key, 258, 2), 0xC0),
    ]


# The set

EIGHT = [message(s, n) for s, count in ((A, 4), (B, 3), (C, 1)) for n in range(count)]


@given(order=st.permutations(EIGHT))
def test_the_order_of_arrival_does_not_matter(order: list[Message]) -> None:
    found = MessageSet(order)
    assert set(found) == set(EIGHT)
    assert found.version() == {A: 4, B: 3, C: 1}
    assert len(found) == 8


@given(arrivals=st.lists(st.sampled_from(EIGHT), max_size=30))
def test_it_holds_what_came_once_each_and_counts_each_gapless_beginning(arrivals: list[Message]) -> None:
    found = MessageSet()
    new = [one for one in arrivals if found.add(one)]
    assert len(new) == len(set(arrivals)) == len(found)
    assert set(found) == set(new) == set(arrivals)
    assert all(one in found for one in arrivals)
    assert not any(one in found for one in set(EIGHT) - set(arrivals))
    for stream in (A, B, C):
        numbers = {one.number for one in arrivals if one.stream == stream}
        gapless = next(n for n in itertools.count() if n not in numbers)
        assert found.version().get(stream, 0) == gapless


def test_a_duplicate_is_not_new() -> None:
    found = MessageSet([message(A, 0)])
    assert found.add(message(A, 0)) is False
    assert found.add(message(A, 1)) is True
    assert found.add_all([message(A, 1), message(A, 2), message(A, 2)]) == [message(A, 2)]


def test_iteration_goes_by_stream_and_number() -> None:
    found = MessageSet([message(B, 1), message(A, 2), message(B, 0), message(A, 0)])
    assert [(m.stream, m.number) for m in found] == [(B, 0), (B, 1), (A, 0), (A, 2)]
    assert found.streams == (B, A)


def test_the_version_vector_stops_at_the_first_gap() -> None:
    found = MessageSet([message(A, n) for n in (0, 1, 3, 4)])
    assert found.version() == {A: 2}
    found.add(message(A, 2))
    assert found.version() == {A: 5}


def test_the_version_vector_is_a_copy() -> None:
    found = MessageSet([message(A, 0)])
    found.version()[A] = 99
    assert found.version() == {A: 1}


@pytest.mark.parametrize(
    ("theirs", "lacking"),
    [
        ({}, {}),
        ({A: 2}, {}),
        ({A: 1}, {}),
        ({A: 7}, {A: (2, 7)}),
        ({B: 3}, {B: (0, 3)}),
        ({A: 3, B: 0, C: 1}, {A: (2, 3), C: (0, 1)}),
    ],
)
def test_lacks_names_the_ranges_that_another_has_more(
    theirs: dict[Stream, int], lacking: dict[Stream, tuple[int, int]]
) -> None:
    assert MessageSet([message(A, 0), message(A, 1), message(A, 5)]).lacks(theirs) == lacking


@given(mine=st.sets(st.sampled_from(EIGHT)), theirs=st.sets(st.sampled_from(EIGHT)))
def test_what_one_lacks_is_what_the_other_slices(mine: set[Message], theirs: set[Message]) -> None:
    receiver, sender = MessageSet(mine), MessageSet(theirs)
    for stream, (start, stop) in receiver.lacks(sender.version()).items():
        receiver.add_all(sender.slice(stream, start, stop, 100))
    assert all(receiver.version().get(s, 0) >= count for s, count in sender.version().items())
    assert not receiver.lacks(sender.version())


@pytest.mark.parametrize(
    ("start", "stop", "most", "numbers"),
    [
        (0, 4, 10, [0, 1, 2]),
        (0, 2, 10, [0, 1]),
        (1, 3, 10, [1, 2]),
        (0, 3, 2, [0, 1]),
        (0, 3, 0, []),
        (2, 1, 10, []),
        (4, 6, 10, []),
        (0, 2**32 - 1, 10, [0, 1, 2]),
    ],
)
def test_slice_gives_what_is_there_without_a_gap(start: int, stop: int, most: int, numbers: list[int]) -> None:
    found = MessageSet([message(A, n) for n in (0, 1, 2, 5)])
    assert [m.number for m in found.slice(A, start, stop, most)] == numbers


def test_slice_of_an_unknown_stream_is_empty() -> None:
    assert MessageSet().slice(A, 0, 10, 10) == []


@pytest.mark.parametrize(
    "other",
    [
        message(A, 1, code=0x39),
        message(A, 1, round_=9),
        Message(A, 1, 0, 0.5, b"\x38"),
        Message(A, 1, 0, 0.25, b"\x38\x38"),
    ],
    ids=["code", "round", "rate", "length"],
)
def test_two_messages_under_one_number_are_an_equivocation_and_the_first_stays(other: Message) -> None:
    found = MessageSet([message(A, 0), message(A, 1)])
    with pytest.raises(EquivocationError, match="number 1"):
        found.add(other)
    assert list(found) == [message(A, 0), message(A, 1)]
    assert message(A, 1) in found
    assert other not in found


def test_a_number_too_far_beyond_the_first_gap_is_refused_and_leaves_no_trace() -> None:
    found = MessageSet()
    with pytest.raises(MessageError, match="beyond"):
        found.add(message(A, WINDOW))
    assert found.streams == ()
    assert found.add(message(A, WINDOW - 1))
    found.add(message(A, 0))
    assert found.add(message(A, WINDOW))
    assert found.version() == {A: 1}


def test_too_many_streams_are_refused_and_known_ones_go_on() -> None:
    found = MessageSet(message(Stream(n.to_bytes(12, "little")), 0) for n in range(MOST_STREAMS))
    with pytest.raises(MessageError, match="streams"):
        found.add(message(A, 0))
    assert len(found.streams) == len(found) == MOST_STREAMS
    assert found.add(message(Stream(bytes(12)), 1))


def test_a_long_stream_in_reverse_takes_linear_time() -> None:
    # Quadratic work on 60 000 messages would exceed the time limit of a test by far.
    count = WINDOW - 1
    found = MessageSet(message(A, n) for n in reversed(range(count)))
    assert found.version() == {A: count}


def test_a_random_history_equals_its_sorted_one() -> None:
    history = [message(s, n, code=n % 127) for s in (A, B, C) for n in range(500)]
    random.Random(1).shuffle(history)
    assert sorted(MessageSet(history), key=lambda m: (m.stream, m.number)) == sorted(
        history, key=lambda m: (m.stream, m.number)
    )
