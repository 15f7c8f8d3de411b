"""The share of the signal in a row's gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_seed.rows import Shared, shared
from shared_seed.signal import DOUBT, DRIFT, SMALL, Signal

BATCHES = st.lists(st.tuples(st.floats(-1, 1), st.floats(0.1, 100), st.integers(1, 64), st.integers(1, 8)))


@given(BATCHES)
def test_it_is_the_filter_of_the_book(batches: list[tuple[float, float, int, int]]) -> None:
    followed, mean, precision = Signal(0.01), 0.01, 1 / DOUBT**2
    for number, (share, square, rows, directions) in enumerate(batches):
        moved = number % 3 / 5
        followed.note(Shared(share * square, square, rows, directions), moved)
        if number:
            precision = 1 / (1 / precision + ((DRIFT + moved) * max(mean, SMALL)) ** 2)
        told = directions / 2 / (max(mean, 0) + 1 / rows) ** 2
        mean = (precision * mean + told * share) / (precision + told)
        precision += told
    assert followed.is_known == bool(batches)
    assert followed.share == pytest.approx(mean, abs=1e-9)
    if batches:
        assert followed.variance == pytest.approx(1 / precision)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5])
def test_it_finds_the_share_behind_rows(share: float) -> None:
    generator, followed, found = np.random.default_rng(0), Signal(0.01), []
    for _ in range(600):
        common = generator.normal(0, math.sqrt(share), (4, 1))
        followed.note(shared(common + generator.normal(0, math.sqrt(1 - share), (4, 16))))
        found.append((followed.share, followed.variance))
    late = np.array(found[100:])
    # Gradients that are large by chance are so in both the signal and the square: large shares are found lower.
    assert late[:, 0].mean() == pytest.approx(share, rel=0.15, abs=0.003)
    assert late[:, 0].std() < 2 * math.sqrt(late[:, 1].mean()) + 0.003
    assert followed.at(1.0) >= max(0, followed.share) >= followed.at(-1.0) >= 0
    assert followed.at(4.0) > followed.at(2.0) > 0


@pytest.mark.parametrize("nothing", [Shared(math.nan, 1.0, 9, 4), Shared(1.0, math.inf, 9, 4), Shared(0, 0, 9, 4)])
def test_a_batch_without_gradients_says_nothing(nothing: Shared) -> None:
    followed = Signal(0.02)
    followed.note(nothing)
    assert followed == Signal(0.02)
    assert not followed.is_known
