"""Directions: which bits they are made of, and that their covariance is the identity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_seed import directions
from shared_seed.noise import Family, Purpose, Sample, reference

samples = st.builds(Sample, st.integers(0, (1 << 64) - 1), st.integers(0, 2**32 - 1), st.integers(0, 254))


@settings(max_examples=50)
@given(sample=samples, tensor=st.integers(0, 1000), rows=st.integers(1, 200), columns=st.integers(1, 200))
def test_rank1_takes_rows_and_columns_from_their_own_noise(
    sample: Sample, tensor: int, rows: int, columns: int
) -> None:
    u, v = directions.rank1(sample, tensor, (rows, columns))
    assert u.tolist() == reference.signs(sample, tensor, Purpose.ROW, rows)
    assert v.tolist() == reference.signs(sample, tensor, Purpose.COLUMN, columns)


@settings(max_examples=50)
@given(sample=samples, tensor=st.integers(0, 1000), shape=st.lists(st.integers(0, 7), max_size=4).map(tuple))
def test_dense_fills_a_shape_row_by_row(sample: Sample, tensor: int, shape: tuple[int, ...]) -> None:
    z = directions.dense(sample, tensor, shape)
    assert z.shape == shape
    assert z.dtype == np.float32
    assert z.ravel().tolist() == reference.signs(sample, tensor, Purpose.DENSE, z.size)


def test_direction_of_rank1_is_the_outer_product() -> None:
    sample = Sample(1, 2, 3)
    u, v = directions.rank1(sample, 4, (5, 6))
    z = directions.direction(Family.RANK1, sample, 4, (5, 6))
    assert z.tolist() == [[a * b for b in v.tolist()] for a in u.tolist()]
    assert z.dtype == np.float32


def test_direction_of_dense_is_dense() -> None:
    sample = Sample(1, 2, 3)
    z = directions.direction(Family.DENSE, sample, 4, (5, 6))
    assert z.tolist() == directions.dense(sample, 4, (5, 6)).tolist()


def test_square_matrices_have_different_row_and_column_factors() -> None:
    u, v = directions.rank1(Sample(1, 2, 3), 4, (64, 64))
    assert u.tolist() != v.tolist()


@pytest.mark.parametrize("family", Family)
def test_directions_hold_only_plus_and_minus_one(family: Family) -> None:
    z = directions.direction(family, Sample(8, 8, 8), 1, (31, 37))
    assert set(z.ravel().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("family", Family)
def test_covariance_is_the_identity(family: Family) -> None:
    draws, shape = 1 << 13, (3, 4)
    drawn = np.stack([directions.direction(family, Sample(1, n, 0), 2, shape).ravel() for n in range(draws)])
    covariance = drawn.T @ drawn / draws
    # Every product of two different elements is a fair sign for either family, so each of the 66 entries has
    # deviation draws**-0.5; six deviations are missed once in seven million.
    assert np.all(np.diag(covariance) == 1)
    assert float(np.abs(covariance - np.eye(12)).max()) < 6 * draws**-0.5
    assert float(np.abs(drawn.mean(axis=0)).max()) < 6 * draws**-0.5


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_a_direction(threads: int) -> None:
    shape, sample = (200_001, 3), Sample(4, 3, 2)
    alone, together = directions.rank1(sample, 1, shape), directions.rank1(sample, 1, shape, threads)
    assert alone[0].tobytes() == together[0].tobytes()
    assert alone[1].tobytes() == together[1].tobytes()
    assert directions.dense(sample, 1, shape).tobytes() == directions.dense(sample, 1, shape, threads).tobytes()
