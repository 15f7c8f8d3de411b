"""fp32 on a dyadic grid: where additions do not round.

A tensor with grid exponent ``k`` holds only multiples of ``2**-k`` below ``2**(24 - k)`` in magnitude. Such
numbers are integers of at most 24 bits times a power of two, which fp32 holds exactly, so sums and
differences of them are exact, in any order and any grouping, as long as nothing leaves that range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared_seed.errors import GridError, RecipeError

LIMIT = 1 << 24
"""Magnitudes in grid units stay below this."""

HEADROOM_BITS = 2
"""Weights may grow by ``2**HEADROOM_BITS`` before their grid is too narrow."""

SMALLEST_RANGE = 1.0
"""Tensors that start smaller than this (LoRA's B starts at zero) get the grid of this magnitude."""

MOST_UNITS = 1 << 20
"""The largest step, in units, that one sample may make in one tensor; larger ones are cut to it."""


EPSILON, EPSILON_OF_ADAPTERS = 2.0**-8, 2.0**-6
"""How far probes look by default: with all of a model's parameters, and with an adapter's, which change a loss
less, so that in bf16 projected gradients are mostly rounding at 2**-8 (``docs/experiments.md``).
"""


def check_epsilon(epsilon: float) -> None:
    """Raise RecipeError unless epsilon is a power of two between 2**-20 and 1."""
    if not (2.0**-20 <= epsilon <= 1.0 and np.frexp(epsilon)[0] == 0.5):
        usable = epsilon > 0 and np.isfinite(epsilon)
        nearest = 2.0 ** round(float(np.log2(min(epsilon, 1.0)))) if usable else EPSILON
        raise RecipeError(
            f"epsilon {epsilon:g} is not a power of two between 2**-20 and 1, and only such steps can be taken "
            f"back exactly; use {min(max(nearest, 2.0**-20), 1.0):g}"
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """The multiples of ``2**-exponent``."""

    exponent: int

    @property
    def unit(self) -> float:
        """The distance between neighbours."""
        return math.ldexp(1.0, -self.exponent)

    @classmethod
    def covering(cls, largest: float, epsilon: float) -> Grid:
        """The finest grid with headroom for a tensor whose largest magnitude is ``largest``.

        Raises:
            GridError: the magnitude is not finite, or so large that ``epsilon`` is no multiple of the unit.
        """
        if not math.isfinite(largest):
            raise GridError(
                f"a trainable parameter holds {largest}, expected finite numbers; repair the base model"
            )
        magnitude = max(largest, SMALLEST_RANGE)
        exponent = 24 - HEADROOM_BITS - math.frexp(magnitude)[1]
        grid = cls(exponent)
        if math.fmod(epsilon, grid.unit) != 0:
            raise GridError(
                f"weights as large as {largest:g} need a grid of 2**{-exponent}, on which epsilon {epsilon:g} "
                f"does not lie; expected a power of two of at least {grid.unit:g}; raise epsilon"
            )
        return grid

    def snap(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The nearest grid points, ties to even; float32 of the same shape."""
        # Exact in float32: scaling by a power of two rounds nothing, and what rint rounds is below 2**24.
        # Adding zero makes -0 into 0: a negative zero would not come back from +x, -x.
        units = np.rint(values * np.float32(2.0**self.exponent)) + np.float32(0)
        if units.size and not float(np.abs(units).max()) < LIMIT:
            raise GridError(f"values of up to {np.abs(values).max():g} do not fit a grid of 2**{-self.exponent}")
        return np.asarray(units * np.float32(self.unit), np.float32)

    def units(self, step: float, random: int) -> int:
        """``step / unit`` rounded to an integer, up with the probability of its fraction.

        ``random`` is a 32-bit integer; the same one gives the same result on every replica. The product is
        exact in float64, since the unit is a power of two.
        """
        scaled = math.ldexp(step, self.exponent)
        if abs(scaled) >= MOST_UNITS:
            return MOST_UNITS if scaled > 0 else -MOST_UNITS
        whole = math.floor(scaled)
        return whole + (random < (scaled - whole) * 2.0**32)


def units_table(
    steps: NDArray[np.float64],
    exponents: NDArray[np.int64],
    random: NDArray[np.uint32],
    rates: NDArray[np.float64] | None = None,
) -> NDArray[np.int32]:
    """:meth:`Grid.units` for all samples and tensors at once.

    Args:
        steps: float64 [samples].
        exponents: int64 [tensors].
        random: uint32 [samples, tensors].
        rates: float64 [tensors], each a float32 number, by which a tensor's steps are multiplied: 28 bits times 24
            are exact in float64, and a product of longer steps is rounded once, the same everywhere.

    Returns:
        int32 [samples, tensors].
    """
    moved = steps[:, None] if rates is None else steps[:, None] * rates[None, :]
    scaled = np.ldexp(moved, exponents[None, :])
    whole = np.floor(scaled)
    rounded = whole + (random < (scaled - whole) * 2.0**32)
    cut = np.where(np.abs(scaled) >= MOST_UNITS, np.copysign(MOST_UNITS, scaled), rounded)
    return cut.astype(np.int32)
