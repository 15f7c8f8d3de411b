"""The byte: against its definition, against PyTorch's E4M3, and at every edge."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared_seed import codec

CODES = range(256)
FINITE = [code for code in CODES if code & 0x7F != 0x7F]
POSITIVE = range(0x7F)
float32_in_range = st.floats(-448, 448, width=32)
scales = st.sampled_from([*codec.SCALE_EXPONENTS])


def torch_code(value: float) -> int:
    return int(torch.tensor([value], dtype=torch.float32).to(torch.float8_e4m3fn).view(torch.uint8)[0])


def midpoint(code: int) -> float:
    """Half way between the value of a positive code and the next."""
    return (codec.VALUES[code] + codec.VALUES[code + 1]) / 2


@pytest.mark.parametrize("scale", [-64, -3, 0, 5, 64])
def test_every_code_survives_a_round_trip(scale: int) -> None:
    assert [codec.encode(codec.decode(code, scale), scale) for code in CODES] == list(CODES)


def test_values_are_those_of_pytorch() -> None:
    theirs = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).to(torch.float64).tolist()
    assert [v for v in codec.VALUES if not math.isnan(v)] == [v for v in theirs if not math.isnan(v)]
    assert [c for c in CODES if math.isnan(codec.VALUES[c])] == [c for c in CODES if math.isnan(theirs[c])]


def test_zeros_keep_their_signs() -> None:
    assert [math.copysign(1, codec.decode(code)) for code in (0x00, 0x80)] == [1, -1]
    assert [codec.encode(zero) for zero in (0.0, -0.0)] == [0x00, 0x80]


def test_exactly_the_two_nans_are_abstentions() -> None:
    assert [code for code in CODES if codec.is_abstention(code)] == [0x7F, 0xFF]
    assert all(math.isnan(codec.decode(code, scale)) for code in (0x7F, 0xFF) for scale in (-64, 0, 64))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -math.nan])
@pytest.mark.parametrize("scale", [-64, 0, 64])
def test_what_is_not_finite_abstains(value: float, scale: int) -> None:
    assert codec.is_abstention(codec.encode(value, scale))


@settings(max_examples=1000)
@given(value=float32_in_range)
@example(value=448.0)
@example(value=2.0**-10)
@example(value=-(2.0**-149))
def test_encode_equals_the_cast_of_pytorch(value: float) -> None:
    assert codec.encode(value) == torch_code(value)


@settings(max_examples=300)
@given(value=st.floats(-(2.0**-5), 2.0**-5, width=32))
def test_encode_equals_the_cast_of_pytorch_among_subnormals(value: float) -> None:
    assert codec.encode(value) == torch_code(value)


@pytest.mark.parametrize("code", [c for c in POSITIVE if c < 0x7E])
def test_ties_go_to_the_even_code_as_in_pytorch(code: int) -> None:
    even = code if code % 2 == 0 else code + 1
    assert codec.encode(midpoint(code)) == even == torch_code(midpoint(code))
    assert codec.encode(-midpoint(code)) == even | 0x80 == torch_code(-midpoint(code))


@pytest.mark.parametrize("code", [c for c in POSITIVE if c < 0x7E])
def test_next_to_a_tie_the_nearer_code_wins(code: int) -> None:
    assert codec.encode(math.nextafter(midpoint(code), 0)) == code
    assert codec.encode(math.nextafter(midpoint(code), math.inf)) == code + 1


@settings(max_examples=300)
@given(value=st.floats(allow_nan=False, allow_infinity=False), scale=scales)
@example(value=1e308, scale=-64)
@example(value=5e-324, scale=64)
def test_encode_finds_the_nearest_value(value: float, scale: int) -> None:
    distances = [abs(Fraction(codec.VALUES[c]) * Fraction(2) ** scale - Fraction(value)) for c in FINITE]
    found = codec.encode(value, scale)
    assert abs(Fraction(codec.VALUES[found]) * Fraction(2) ** scale - Fraction(value)) == min(distances)
    assert (found & 0x80 != 0) == (math.copysign(1, value) < 0)


@pytest.mark.parametrize("value", [448.0, 448.1, 464.0, 465.0, 1e9, 1.7976931348623157e308])
@pytest.mark.parametrize("scale", [-64, -1, 0])
def test_beyond_the_range_it_saturates(value: float, scale: int) -> None:
    assert codec.encode(value, scale) == 0x7E
    assert codec.encode(-value, scale) == 0xFE


@settings(max_examples=200)
@given(value=st.floats(-500, 500), scale=scales)
def test_the_scale_moves_the_range_by_a_power_of_two(value: float, scale: int) -> None:
    if abs(value) > 2.0**-900:
        assert codec.encode(math.ldexp(value, scale), scale) == codec.encode(value)


@settings(max_examples=200)
@given(pair=st.lists(st.floats(-500, 500), min_size=2, max_size=2))
def test_encode_is_monotone(pair: list[float]) -> None:
    low, high = sorted(pair)
    assert codec.decode(codec.encode(low)) <= codec.decode(codec.encode(high))


@settings(max_examples=300)
@given(
    rate=st.floats(0, width=32, allow_nan=False, allow_infinity=False), code=st.sampled_from(FINITE), scale=scales
)
@example(rate=float(np.finfo(np.float32).max), code=0x7E, scale=64)
@example(rate=float(np.finfo(np.float32).smallest_subnormal), code=0x01, scale=-64)
def test_a_rate_times_a_value_is_exact_in_float64(rate: float, code: int, scale: int) -> None:
    product = rate * codec.decode(code, scale)
    assert Fraction(product) == Fraction(rate) * Fraction(codec.VALUES[code]) * Fraction(2) ** scale
