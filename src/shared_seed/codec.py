"""One byte for a projected gradient: FP8 E4M3 times a power of two.

E4M3 (Micikevicius et al. 2022, arXiv 2209.05433, section 3) has one sign bit, four exponent bits with
bias 7 and three mantissa bits; it has no infinity, and the codes 0x7F and 0xFF are NaN. All its values
are dyadic, so a decoded gradient times a float32 learning rate is exact in float64.

A peer whose loss was not finite publishes :data:`ABSTAIN`, which decodes to NaN and moves nothing.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable

ABSTAIN = 0x7F
"""The code of a peer that has no finite gradient to give."""

LARGEST = 448.0
"""The largest finite E4M3 value."""

SCALE_EXPONENTS = range(-64, 65)
"""Exponents that a manifest may ask for; with them every product stays exact in float64."""


def _value(code: int) -> float:
    """The E4M3 value of one code, straight from the definition."""
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = (code >> 3) & 0xF, code & 0x7
    if exponent == 0xF and mantissa == 0x7:
        return math.copysign(math.nan, sign)
    if exponent == 0:
        return sign * math.ldexp(mantissa, -9)
    return sign * math.ldexp(8 + mantissa, exponent - 10)


VALUES: tuple[float, ...] = tuple(_value(code) for code in range(256))
"""The value of each of the 256 codes, at scale exponent 0."""

_MAGNITUDES = list(VALUES[:ABSTAIN])


def is_abstention(code: int) -> bool:
    """Whether a code is one of the two NaNs."""
    return code & 0x7F == ABSTAIN


def decode(code: int, scale_exponent: int = 0) -> float:
    """The gradient that a code stands for: ``VALUES[code] * 2**scale_exponent``; NaN for an abstention.

    >>> decode(0x38), decode(0xB8, 3)
    (1.0, -8.0)
    """
    return math.ldexp(VALUES[code], scale_exponent)


def said(codes: Iterable[int], scale_exponent: int = 0) -> list[float]:
    """The projected gradients of codes, without those that abstain."""
    return [decode(code, scale_exponent) for code in codes if not is_abstention(code)]


def encode(gradient: float, scale_exponent: int = 0) -> int:
    """The code nearest to a gradient, ties to the even mantissa; beyond the range it saturates.

    A gradient that is not finite becomes an abstention: an infinite loss difference says that the step
    broke, not that it was large.

    >>> encode(1.0), encode(1e9), encode(float("inf"))
    (56, 126, 127)
    """
    sign = 0x80 if math.copysign(1.0, gradient) < 0 else 0
    if not math.isfinite(gradient):
        return sign | ABSTAIN if math.isnan(gradient) else ABSTAIN
    if abs(gradient) >= math.ldexp(LARGEST, scale_exponent):
        return sign | ABSTAIN - 1
    magnitude = math.ldexp(abs(gradient), -scale_exponent)
    above = bisect.bisect_left(_MAGNITUDES, magnitude)
    if _MAGNITUDES[above] == magnitude:
        return sign | above
    below = above - 1
    to_below, to_above = magnitude - _MAGNITUDES[below], _MAGNITUDES[above] - magnitude
    if to_below == to_above:
        return sign | (below if below % 2 == 0 else above)
    return sign | (below if to_below < to_above else above)
