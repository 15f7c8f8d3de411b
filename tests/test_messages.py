"""Messages as bytes, fed with everything that is not one."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_seed.errors import MessageError
from shared_seed.messages import LARGEST, MOST_CODES, SMALLEST, Message, Stream, as_float32
from shared_seed.noise import Sample, stream_key
from shared_seed.signed import Signed

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

A = Stream(bytes([1]) * 12, 1)


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
    assert len(Message(A, 0, 0, 0.25, b"\x38").encode()) == 30


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


@given(one=messages)
def test_a_body_with_stream_and_number_is_the_message(one: Message) -> None:
    assert Message.of_body(one.stream, one.number, one.body()) == one
    assert len(one.body()) == 8 + len(one.codes)


@pytest.mark.parametrize("body", [b"", bytes(8), bytes(8) + bytes(MOST_CODES + 1), b"\xff" * 9])
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(MessageError):
        Message.of_body(A, 0, body)


@pytest.mark.parametrize("number", [-1, 1 << 32])
def test_a_body_with_a_number_beyond_32_bits_is_refused(number: int) -> None:
    with pytest.raises(MessageError, match="number"):
        Message.of_body(A, number, bytes(9))


# With a signature

SIGNATURE = bytes(range(64))


@given(one=messages, signature=st.sampled_from([b"", SIGNATURE]))
def test_signed_messages_are_read_as_written(one: Message, signature: bytes) -> None:
    signed = Signed(one, signature)
    assert Signed.decode(signed.encode()) == signed
    assert len(signed.encode()) == len(one.encode()) + len(signature)


def test_a_signed_message_has_the_documented_bytes() -> None:
    assert Signed(EXAMPLE, SIGNATURE).encode() == b"\x04" + GOLDEN[1:] + SIGNATURE


@pytest.mark.parametrize("length", [*range(SMALLEST + 64), LARGEST + 65])
def test_a_signed_message_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(MessageError):
        Signed.decode((b"\x04" + GOLDEN[1:29] + bytes(400))[:length])
