"""What is believed of the signal's share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_seed.belief import ALL, DRIFT, FALL, GAP, PATIENCE, ROWS, SCATTER, SHARES, WANDER, Belief, prior
from shared_seed.rows import Shared, shared

LOSSES = st.lists(st.tuples(st.floats(0.01, 9), st.floats(0, 2)), min_size=2, max_size=20)
BATCHES = st.lists(st.tuples(st.floats(-0.5, 1), st.floats(0.1, 100), st.integers(2, 64), st.integers(1, 8)))


def spread(belief: Belief) -> tuple[float, float]:
    """Mean and variance of the share's logarithm."""
    logarithms = np.log(SHARES)
    mean = float(belief.chances @ logarithms)
    return mean, float(belief.chances @ (logarithms - mean) ** 2)


@given(st.floats(0.002, 0.05))
def test_at_first_the_mean_is_what_was_expected(share: float) -> None:
    assert Belief(prior(share)).share == pytest.approx(share, rel=0.1)


@given(st.floats(0, 3))
def test_learning_takes_from_the_share_and_makes_it_less_sure(nats: float) -> None:
    belief = Belief(prior(0.02))
    mean, variance = spread(belief)
    belief.learnt(nats)
    after = spread(belief)
    assert belief.chances.sum() == pytest.approx(1)
    assert (belief.chances > 0).all()
    assert after[0] - mean == pytest.approx(-FALL * nats, rel=0.05, abs=1e-3)
    # A walk between neighbours that goes down by so much scatters at least by as much times their distance.
    wandered = max(DRIFT**2 + WANDER**2 * nats, FALL * nats * GAP)
    assert after[1] - variance == pytest.approx(wandered, rel=0.2, abs=1e-3)


@pytest.mark.parametrize("nats", [ALL, 1e30, math.inf])
def test_whatever_a_message_promises_ends(nats: float) -> None:
    belief = Belief(prior(0.02))
    belief.learnt(nats)
    assert belief.chances.sum() == pytest.approx(1)
    assert belief.share < 0.001


@given(BATCHES)
def test_rows_are_weighed_one_share_at_a_time(batches: list[tuple[float, float, int, int]]) -> None:
    belief = Belief(prior(0.02))
    expected = prior(0.02)
    for share, square, rows, directions in batches:
        belief.saw_rows(Shared(share * square, square, rows, directions))
        weighed = []
        for chance, candidate in zip(expected, SHARES, strict=True):
            mean = candidate + (1 - candidate) / rows
            power = max(0.0, share + (1 - share) / rows)
            # The density of a chi-square variable over its degrees of freedom, times the mean.
            weighed.append(chance * (math.exp(-power / mean) / mean) ** (directions / 2))
        expected = np.maximum(np.array(weighed) / math.fsum(weighed), 1e-12)
    assert belief.chances == pytest.approx(expected, rel=1e-6, abs=1e-8)


@given(LOSSES, st.floats(0, 0.1))
def test_losses_are_weighed_by_a_filter_for_each_share(steps: list[tuple[float, float]], curved: float) -> None:
    belief = Belief(prior(0.02))
    for loss, promised in steps:
        belief.saw_loss(loss, promised, 0.01, curved)
    first = steps[0][0]
    chances, levels = list(prior(0.02)), [first] * len(SHARES)
    variance = scatter = (SCATTER * first) ** 2
    for loss, promised in steps[1:]:
        parts = [ROWS / (1 + ROWS * share) for share in SHARES]
        walked = [chance * part * share for chance, part, share in zip(chances, parts, SHARES, strict=True)]
        variance += promised * 0.01 * math.fsum(walked)
        expected = variance + scatter
        surprises = [
            loss - (level - promised * part * (share - curved))
            for level, part, share in zip(levels, parts, SHARES, strict=True)
        ]
        mean = math.fsum(c * s for c, s in zip(chances, surprises, strict=True))
        scatter += PATIENCE * (max(mean**2 - variance, scatter / 5) - scatter)
        # Against the likeliest share, since all may be far from likely.
        best = min(s * s for s in surprises)
        likely = [math.exp((best - s * s) / (2 * expected)) for s in surprises]
        weighed = [c * by for c, by in zip(chances, likely, strict=True)]
        chances = [max(w / math.fsum(weighed), 1e-12) for w in weighed]
        levels = [loss - s * (1 - variance / expected) for s in surprises]
        variance *= 1 - variance / expected
    assert belief.chances == pytest.approx(chances, rel=1e-6, abs=1e-8)
    assert belief.levels == pytest.approx(levels, rel=1e-9, abs=1e-9)
    assert (belief.variance, belief.scatter) == pytest.approx((variance, scatter), rel=1e-6, abs=1e-12)


def test_a_loss_that_is_unknown_says_nothing() -> None:
    belief = Belief(prior(0.02))
    for loss, promised in ((math.nan, 0.1), (math.inf, 0.1), (1.0, math.inf)):
        belief.saw_loss(loss, promised, 0.01, 0.01)
    assert belief.chances == pytest.approx(prior(0.02))
    assert np.isnan(belief.levels).all()


@pytest.mark.parametrize("nothing", [Shared(math.nan, 1.0, 9, 4), Shared(1.0, math.inf, 9, 4), Shared(0, 0, 9, 4)])
def test_a_batch_without_gradients_says_nothing(nothing: Shared) -> None:
    belief = Belief(prior(0.02))
    belief.saw_rows(nothing)
    assert belief.chances == pytest.approx(prior(0.02))


@pytest.mark.parametrize(("share", "within"), [(0.0, 0.004), (0.01, 0.006), (0.1, 0.03), (0.5, 0.1)])
def test_it_finds_the_share_behind_rows(share: float, within: float) -> None:
    generator, belief, found = np.random.default_rng(0), Belief(prior(0.02)), []
    for _ in range(600):
        common = generator.normal(0, math.sqrt(share), (4, 1))
        belief.saw_rows(shared(common + generator.normal(0, math.sqrt(1 - share), (4, 16))))
        belief.learnt(0.0)
        found.append(belief.share)
    assert np.mean(found[100:]) == pytest.approx(share, abs=within)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
def test_it_finds_the_share_behind_losses_that_scatter(share: float) -> None:
    generator, belief, level, promise = np.random.default_rng(0), Belief(prior(0.02)), 40.0, 0.01
    for _ in range(2000):
        belief.saw_loss(level + generator.normal(0, 0.1), 4 * promise, promise, promise / 2)
        belief.learnt(0.0)
        level -= 4 * promise * ROWS * (share - promise / 2) / (1 + ROWS * share)
    assert belief.share == pytest.approx(share, rel=0.5, abs=0.002)
    assert math.sqrt(belief.scatter) == pytest.approx(0.1, rel=0.5)


def test_two_batches_that_are_all_agreed_outweigh_what_was_expected() -> None:
    belief = Belief(prior(0.02))
    for _ in range(2):
        belief.saw_rows(Shared(0.7, 1.0, 16, 3))
    assert belief.share > 0.25


def test_a_loss_that_is_another_from_now_on_is_no_surprise() -> None:
    plain, shifted = Belief(prior(0.02)), Belief(prior(0.02))
    for number in range(50):
        plain.saw_loss(2.0, 0.04, 0.01, 0.0)
        shifted.shift(-0.01)
        shifted.saw_loss(2.0 - 0.01 * number, 0.04, 0.01, 0.0)
    assert shifted.share == pytest.approx(plain.share, rel=0.02)


def test_its_state_is_all_of_it() -> None:
    belief = Belief(prior(0.02))
    belief.saw_loss(1.0, 0.0, 0.01, 0.01)
    belief.saw_rows(Shared(0.1, 1.0, 16, 3))
    again = Belief.of(belief.state)
    for each in (belief, again):
        each.saw_loss(0.9, 0.04, 0.01, 0.01)
        each.learnt(0.1)
    assert again.state == belief.state
