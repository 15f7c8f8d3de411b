"""The grid: snapping, stochastic rounding to units, headroom, and sums that do not round."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from shared_seed.errors import GridError
from shared_seed.grid import HEADROOM_BITS, LIMIT, MOST_UNITS, SMALLEST_RANGE, Grid, units_table

exponents = st.integers(0, 23)
arrays = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1.875, 1.875, width=32))
steps = st.floats(-(2.0**10), 2.0**10, width=32).filter(lambda s: s == 0 or abs(s) > 2.0**-40)
words = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**31, 2**32 - 1]))


def bits(values: NDArray[np.float32]) -> bytes:
    return values.tobytes()


# Snapping


@settings(max_examples=200)
@given(values=arrays, exponent=exponents)
def test_snap_is_idempotent_to_the_bit(values: NDArray[np.float32], exponent: int) -> None:
    once = Grid(exponent).snap(values)
    assert bits(Grid(exponent).snap(once)) == bits(once)


@settings(max_examples=200)
@given(values=arrays, exponent=exponents)
def test_snap_gives_the_nearest_grid_point_ties_to_even(values: NDArray[np.float32], exponent: int) -> None:
    # Python rounds fractions to the nearest integer, ties to even.
    expected = [Fraction(round(Fraction(v) * 2**exponent), 2**exponent) for v in values.tolist()]
    assert [Fraction(v) for v in Grid(exponent).snap(values).tolist()] == expected


def test_snap_keeps_shape_and_dtype_and_its_argument() -> None:
    values = np.full((2, 0, 3), 0.3, np.float32)
    assert Grid(4).snap(values).shape == (2, 0, 3)
    one = np.array([0.3], np.float32)
    assert Grid(4).snap(one).dtype == np.float32
    assert one.tolist() == np.array([0.3], np.float32).tolist()


@pytest.mark.parametrize("value", [-0.0, -1e-9, -(2.0**-22)])
def test_snap_gives_no_negative_zero(value: float) -> None:
    # -0.0 + x - x is +0.0, so a weight of -0.0 would not come back to its bits after a probe.
    assert bits(Grid(21).snap(np.array([value], np.float32))) == bits(np.zeros(1, np.float32))


@settings(max_examples=100)
@given(values=arrays, exponent=st.integers(10, 21), steps=st.lists(st.integers(-1000, 1000), max_size=5))
def test_what_is_added_and_taken_away_leaves_the_same_bits(
    values: NDArray[np.float32], exponent: int, steps: list[int]
) -> None:
    grid = Grid(exponent)
    start = grid.snap(values)
    moved = start.copy()
    for step in [*steps, *(-s for s in steps)]:
        moved += np.float32(step * grid.unit)
    assert bits(moved) == bits(start)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 8.0, -8.0, 1e30])
def test_snap_refuses_what_does_not_fit(value: float) -> None:
    with pytest.raises(GridError):
        Grid(21).snap(np.array([0.5, value], np.float32))


def test_snap_takes_the_last_value_that_fits() -> None:
    last = (LIMIT - 1) * 2.0**-21
    assert Grid(21).snap(np.array([last, -last], np.float32)).tolist() == [last, -last]


# Units


@settings(max_examples=300)
@given(step=steps, random=words, exponent=exponents)
def test_units_rounds_up_with_the_probability_of_the_fraction(step: float, random: int, exponent: int) -> None:
    exact = Fraction(step) * 2**exponent
    assume(abs(exact) < MOST_UNITS)
    threshold = (exact - math.floor(exact)) * 2**32
    assert Grid(exponent).units(step, random) == math.floor(exact) + (random < threshold)


@pytest.mark.parametrize("scaled", [0.25, -0.25, 3.7, -3.7, 1000.125, -0.001])
def test_units_are_unbiased(scaled: float) -> None:
    draws = 1 << 14
    evenly = ((2 * i + 1) << 17 for i in range(draws))
    total = sum(Grid(10).units(scaled * 2.0**-10, random) for random in evenly)
    assert abs(total / draws - scaled) <= 1 / draws


@pytest.mark.parametrize("whole", [-3, -1, 0, 1, 2, 1 << 19])
@pytest.mark.parametrize("random", [0, 1, 2**32 - 1])
def test_whole_steps_do_not_depend_on_chance(whole: int, random: int) -> None:
    assert Grid(7).units(whole * 2.0**-7, random) == whole


@pytest.mark.parametrize("factor", [1.0, 1.5, 1e6, 1e60])
def test_steps_that_are_too_large_are_cut(factor: float) -> None:
    step = factor * MOST_UNITS * 2.0**-20
    assert Grid(20).units(step, 0) == MOST_UNITS
    assert Grid(20).units(-step, 0) == -MOST_UNITS


@settings(max_examples=200)
@given(
    steps=st.lists(st.floats(-(2.0**200), 2.0**200), min_size=0, max_size=6),
    exponents=st.lists(st.integers(-100, 30), min_size=0, max_size=4),
    data=st.data(),
)
def test_units_table_equals_units(steps: list[float], exponents: list[int], data: st.DataObject) -> None:
    shape = (len(steps), len(exponents))
    random = data.draw(hnp.arrays(np.uint32, shape, elements=words))
    table = units_table(np.array(steps, np.float64), np.array(exponents, np.int64), random)
    assert table.dtype == np.int32
    assert table.shape == shape
    for i, j in itertools.product(range(shape[0]), range(shape[1])):
        assert table[i, j] == Grid(exponents[j]).units(steps[i], int(random[i, j]))


# Covering


@settings(max_examples=300)
@given(largest=st.floats(0, 2.0**40, width=32))
def test_covering_leaves_headroom_and_is_the_finest_that_does(largest: float) -> None:
    grid = Grid.covering(largest, 2.0**60)
    covered = max(largest, SMALLEST_RANGE)
    reach = Fraction(LIMIT) * Fraction(grid.unit)
    assert Fraction(covered) * 2**HEADROOM_BITS <= reach
    # frexp rounds a power of two up to the next, so the finest is within a factor of two.
    assert Fraction(covered) * 2**HEADROOM_BITS * 2 >= reach


@pytest.mark.parametrize(("largest", "exponent"), [(0.0, 21), (1.0, 21), (1.5, 21), (2.0, 20), (100.0, 15)])
def test_covering_gives_the_exponents_that_manifests_name(largest: float, exponent: int) -> None:
    assert Grid.covering(largest, 2.0**-8) == Grid(exponent)


@settings(max_examples=100)
@given(values=arrays, factor=st.integers(-20, 12))
def test_covering_always_takes_the_values_it_was_made_for(values: NDArray[np.float32], factor: int) -> None:
    scaled = np.ldexp(values, factor)
    grid = Grid.covering(float(np.abs(scaled).max()), 1.0)
    units = np.abs(grid.snap(scaled).astype(np.float64)) / grid.unit
    assert units.max() <= LIMIT >> HEADROOM_BITS


@pytest.mark.parametrize("largest", [math.nan, math.inf])
def test_covering_refuses_weights_that_are_not_finite(largest: float) -> None:
    with pytest.raises(GridError, match="finite"):
        Grid.covering(largest, 2.0**-8)


@pytest.mark.parametrize(
    ("largest", "epsilon"), [(1.0, 2.0**-22), (1.0, 0.1), (1000.0, 2.0**-20), (1.0, math.nan)]
)
def test_covering_refuses_an_epsilon_off_the_grid(largest: float, epsilon: float) -> None:
    with pytest.raises(GridError, match="epsilon"):
        Grid.covering(largest, epsilon)


def test_unit_is_the_distance_between_neighbours() -> None:
    assert [Grid(k).unit for k in (0, 1, 21, -3)] == [1.0, 0.5, 2.0**-21, 8.0]


# Sums


@settings(max_examples=300)
@given(
    terms=st.lists(st.integers(-MOST_UNITS, MOST_UNITS), max_size=15),
    exponent=st.integers(-10, 30),
    data=st.data(),
)
def test_sums_in_float32_are_the_integer_sums_in_any_order(
    terms: list[int], exponent: int, data: st.DataObject
) -> None:
    grid = Grid(exponent)
    total = np.float32(0)
    for term in data.draw(st.permutations(terms)):
        total += np.float32(math.ldexp(term, -exponent))
    assert float(total) == sum(terms) * grid.unit


@settings(max_examples=100)
@given(terms=st.lists(st.integers(-MOST_UNITS, MOST_UNITS), min_size=2, max_size=15), data=st.data())
def test_sums_in_float32_do_not_depend_on_the_grouping(terms: list[int], data: st.DataObject) -> None:
    parts = [np.float32(math.ldexp(term, -21)) for term in terms]
    while len(parts) > 1:
        at = data.draw(st.integers(0, len(parts) - 2))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    assert float(parts[0]) == sum(terms) * 2.0**-21


def test_beyond_the_limit_sums_do_round() -> None:
    # Why the limit is where it is.
    assert np.float32(LIMIT - 1) + np.float32(1) == LIMIT
    assert np.float32(LIMIT) + np.float32(1) == LIMIT
