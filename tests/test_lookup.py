"""Sums that are looked up equal sums in Python integers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_seed import lookup
from shared_seed.noise import BLOCK, Purpose, Sample, reference
from shared_seed.noise.philox import second_word, table

needs_avx512 = pytest.mark.skipif(not lookup.host_has_avx512(), reason="the kernel needs AVX-512")


def slow_sum(rows: int, columns: int, first: int, samples: list[Sample], units: list[int]) -> list[list[int]]:
    """``sum_i units[i] * outer(u_i, v_i)`` in Python integers, from the definition of the noise."""
    total = [[0] * columns for _ in range(rows)]
    for sample, step in zip(samples, units, strict=True):
        u = reference.signs(sample, 5, Purpose.ROW, BLOCK * first + rows)[BLOCK * first :]
        v = reference.signs(sample, 5, Purpose.COLUMN, columns)
        for r in range(rows):
            for c in range(columns):
                total[r][c] += step * u[r] * v[c]
    return total


@needs_avx512
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 11),
    columns=st.one_of(st.integers(1, 50), st.sampled_from([15, 16, 17, 32])),
    first=st.integers(0, 2),
    units=st.lists(st.integers(-(1 << 17), 1 << 17), min_size=1, max_size=75),
    exponent=st.integers(-3, 24),
    seed=st.integers(0, 99),
)
def test_looked_up_sums_equal_integers(
    rows: int, columns: int, first: int, units: list[int], exponent: int, seed: int
) -> None:
    unit = np.float32(2.0**-exponent)
    samples = [Sample((1 << 63) + seed, seed, i) for i in range(len(units))]
    start = np.random.default_rng(seed).integers(-(1 << 20), 1 << 20, (rows, columns))
    values = start.astype(np.float32) * unit
    words = second_word(5, Purpose.ROW), second_word(5, Purpose.COLUMN)
    lookup.add(values, first, *words, table(samples), np.array(units, np.float32) * unit)
    expected = start + np.array(slow_sum(rows, columns, first, samples, units))
    assert (values / unit).astype(np.int64).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("setting", "available"),
    [
        ({"NUMBA_CPU_NAME": "generic"}, False),
        ({"NUMBA_CPU_NAME": "x86-64-v4", "NUMBA_CPU_FEATURES": "+avx2"}, False),
        ({"NUMBA_CPU_NAME": "x86-64-v4", "NUMBA_CPU_FEATURES": "+avx512f"}, True),
        ({}, lookup.host_has_avx512()),
    ],
)
def test_availability_follows_what_numba_compiles_for(setting: dict[str, str], available: bool) -> None:
    question = "from shared_seed import lookup; print(lookup.available())"
    said = subprocess.run(
        [sys.executable, "-c", question], env={"PATH": "", **setting}, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == str(available)
