"""What promised nats deliver."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_seed.delivery import DOUBT, DRIFT, PATIENCE, ROWS, SCATTER, Delivery

SHARES, STEPS = st.floats(1e-4, 0.5), st.lists(st.tuples(st.floats(0.01, 9), st.floats(0, 2)), min_size=2)


@given(SHARES, st.floats(0, 1))
def test_the_share_that_is_expected_is_the_one_that_is_found(share: float, boldness: float) -> None:
    promise = boldness * share
    assert Delivery.expecting(share, promise).share(promise) == pytest.approx(share)


@given(SHARES, st.floats(0, 1))
def test_the_share_is_that_of_the_quadratic_model(share: float, boldness: float) -> None:
    promise = boldness * share
    delivered = ROWS * share / (1 + ROWS * share) * (1 - promise / (2 * share))
    assert Delivery(delivered).share(promise) == pytest.approx(share)


@given(STEPS)
def test_it_is_the_filter_of_the_book(steps: list[tuple[float, float]]) -> None:
    followed = Delivery(0.1)
    for loss, promised in steps:
        followed.note(loss, promised)
    level = steps[0][0]
    state, scatter = np.array([level, 0.1]), (SCATTER * level) ** 2
    variance = np.diag([scatter, DOUBT**2])
    for loss, promised in steps[1:]:
        move = np.array([[1, -promised], [0, 1]])
        state, variance = move @ state, move @ variance @ move.T + np.diag([0, DRIFT**2])
        surprise, before = loss - state[0], variance[0, 0]
        gain = variance[:, 0] / (before + scatter)
        scatter = (1 - PATIENCE) * scatter + PATIENCE * max(surprise**2 - before, scatter / 5)
        state, variance = state + gain * surprise, variance - np.outer(gain, variance[0])
    assert [followed.level, followed.part] == pytest.approx(list(state), rel=1e-6, abs=1e-9)
    assert followed.variances == pytest.approx(
        (variance[0, 0], variance[0, 1], variance[1, 1]), rel=1e-6, abs=1e-9
    )


@pytest.mark.parametrize("part", [0.0, 0.05, 0.8])
def test_it_finds_the_part_behind_losses_that_scatter(part: float) -> None:
    generator = np.random.default_rng(0)
    followed, level = Delivery(0.1), 40.0
    for _ in range(2000):
        followed.note(level + generator.normal(0, 0.1), 0.02)
        level -= 0.02 * part
    assert followed.part == pytest.approx(part, abs=0.15)
    assert followed.level == pytest.approx(level, abs=0.1)
    assert math.sqrt(followed.scatter) == pytest.approx(0.1, rel=0.5)


@given(st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_loss_that_is_not_finite_says_nothing(loss: float) -> None:
    followed, same = Delivery(0.1), Delivery(0.1)
    for value in (0.7, 0.6):
        followed.note(value, 0.1)
        followed.note(loss, 0.1)
        same.note(value, 0.1)
    assert followed == same
