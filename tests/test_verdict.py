"""What is said of a stream, from its bytes and what was computed again."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import stream
from shared_seed import codec, verdict
from shared_seed.audit import LEAST_PUBLIC
from shared_seed.verdict import Check, Verdict

FINITE = [code for code in range(256) if not codec.is_abstention(code)]
GRADIENTS = st.floats(-1e4, 1e4, allow_nan=False)


def checks(writer: int, published: list[float], again: list[float]) -> list[Check]:
    return [
        Check(stream(writer), number, number, 0, codec.encode(x), y)
        for number, (x, y) in enumerate(zip(published, again, strict=True))
    ]


def normal(count: int, seed: int) -> list[float]:
    draw = random.Random(seed)
    return [draw.gauss(0, 10) for _ in range(count)]


@given(GRADIENTS, st.sampled_from([-3, 0, 5]))
def test_a_gradient_is_at_no_distance_from_its_own_code(gradient: float, exponent: int) -> None:
    assert verdict.distance(gradient, codec.encode(gradient, exponent), exponent) == 0


@given(GRADIENTS, st.sampled_from(FINITE))
def test_the_distance_is_what_a_gradient_must_move_to_get_the_code(gradient: float, code: int) -> None:
    far = verdict.distance(gradient, code, 0)
    towards = math.copysign(far, codec.decode(code) - gradient)
    moved = gradient + towards
    near = {codec.encode(x) for x in (moved, *(moved + s * max(1e-9, abs(moved) * 1e-9) for s in (-1, 1)))}
    assert code in near or (code & 0x7F == 0 and {0x00, 0x80} & near)
    if far > 1e-6:
        assert codec.encode(gradient + towards * 0.999) != code


@given(st.sampled_from(FINITE), GRADIENTS, st.integers(-10, 10))
def test_the_distance_scales_with_the_manifests_exponent(code: int, gradient: float, exponent: int) -> None:
    scaled = verdict.distance(math.ldexp(gradient, exponent), code, exponent)
    assert scaled == math.ldexp(verdict.distance(gradient, code, 0), exponent)


def test_the_tail_of_a_binomial_adds_up() -> None:
    assert verdict.at_least(0, 7, 0.3) == pytest.approx(1)
    assert verdict.at_least(7, 7, 0.5) == 0.5**7
    assert verdict.at_least(1, 3, 0.1) == pytest.approx(1 - 0.9**3)


@pytest.mark.parametrize("attack", ["flip", "random", "zero"])
def test_a_dishonest_stream_is_named_and_no_other(attack: str) -> None:
    again = {writer: normal(20, writer) for writer in range(4)}
    published = dict(again)
    published[2] = {"flip": [-g for g in again[2]], "random": normal(20, 99), "zero": [0.0] * 20}[attack]
    found = verdict.judge(
        [c for w in range(4) for c in checks(w, published[w], again[w])],
        {stream(w): 100 for w in range(4)},
        {},
        verdict.TOLERANCE,
        0,
    )
    assert [r.verdict for r in found] == [
        Verdict.DISAGREES if r.stream == stream(2) else Verdict.AGREES for r in found
    ]
    named = found[2]
    assert named.stream == stream(2)
    assert named.audited == named.agree + named.mismatch == 20
    assert named.worst > verdict.TOLERANCE


def test_one_mismatch_is_not_enough_to_name_a_stream_and_not_to_clear_it() -> None:
    again = normal(30, 1)
    found = verdict.judge(checks(0, [-again[0], *again[1:]], again), {stream(0): 30}, {}, 0.1, 0)
    assert found[0].mismatch == 1
    assert found[0].verdict is Verdict.UNCERTAIN


def test_an_abstention_counts_as_neither_and_alone_clears_nobody() -> None:
    silent = [Check(stream(0), n, n, 0, codec.ABSTAIN, math.nan) for n in range(5)]
    found = verdict.judge(silent, {stream(0): 5}, {}, 0.1, 0)
    assert (found[0].audited, found[0].abstained, found[0].verdict) == (0, 5, Verdict.UNCERTAIN)


def test_a_stream_that_breaks_the_terms_is_named_whatever_its_bytes() -> None:
    again = normal(10, 1)
    for report in (
        *verdict.judge(checks(0, again, again), {stream(0): 10}, {stream(0): 1}, 0.1, 0),
        *verdict.correlate(checks(0, again, again), {stream(0): 10}, {stream(0): 1}, 0),
    ):
        assert report.verdict is Verdict.BREAKS_TERMS
        assert report.verdict.names


def test_honest_streams_are_hardly_ever_named_at_the_rate_that_is_allowed_for() -> None:
    draw = random.Random(3)
    named = 0
    for _ in range(300):
        mismatches = sum(draw.random() < verdict.HONEST_RATE for _ in range(20))
        named += verdict.at_least(mismatches, 20, verdict.HONEST_RATE) < verdict.DOUBT / 3
    assert named <= 2


def test_correlations_are_numpys() -> None:
    x, y = normal(50, 1), [a + b for a, b in zip(normal(50, 1), normal(50, 2), strict=True)]
    pairs = np.array([x, y]).T
    assert verdict.correlation(pairs) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert verdict.correlation(np.array([[0.1] * 50, x]).T) == 0
    assert math.isnan(verdict.correlation(pairs[:3]))
    assert math.isnan(verdict.z_score(pairs[:3], 0.0))
    assert math.isnan(verdict.z_between(pairs, pairs[:3]))


def test_a_signed_rank_score_by_hand() -> None:
    # Products 2, -1, -3 and 0: ranks 3, 2, 4 and, without a sign, 1.
    pairs = np.array([[2.0, 1], [1, -1], [-3, 1], [-1, 0]])
    assert verdict.z_score(pairs, 0.0) == pytest.approx((3 - 2 - 4) / math.sqrt(30))
    # Products 2, 2, 3 and 3 share two ranks each, 1.5 and 3.5.
    pairs = np.array([[1.0, 2], [-1, -2], [3, 1], [-3, -1]])
    assert verdict.z_score(pairs, 0.0) == pytest.approx(10 / math.sqrt(2 * 1.5**2 + 2 * 3.5**2))
    # x y + (x**2 + y**2) / 4, in units of the medians 2 and 1: 1.5, 2.3125, -0.5 and 0.0625.
    pairs = np.array([[2.0, 1], [3, 1], [2, -1], [-1, 0]])
    assert verdict.z_score(pairs, -0.5) == pytest.approx((3 + 4 - 2 + 1) / math.sqrt(30))


@pytest.mark.parametrize("count", [20, 400])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2, 0.5, 2.0])
def test_a_stream_like_the_others_is_not_accused_however_alike_gradients_are(count: int, noise: float) -> None:
    draws = np.random.default_rng(7)

    def pairs(length: int) -> NDArray[np.float64]:
        true = draws.normal(size=length)
        return np.array([true, true + noise * draws.normal(size=length)]).T

    scores = [verdict.z_between(pairs(400), pairs(count)) for _ in range(200)]
    assert np.std(scores) < 1.5
    assert np.mean(scores) > -0.3


@pytest.mark.parametrize(("streams", "enough"), [(1, 14), (50, LEAST_PUBLIC)])
def test_fewer_bytes_than_are_audited_on_public_rows_name_nobody(streams: int, enough: int) -> None:
    counts = {stream(number): enough for number in range(streams)}
    for number, verdicts in ((enough - 1, Verdict.UNCERTAIN), (enough, Verdict.DISAGREES)):
        again = [1.0 + i for i in range(number)]
        found = verdict.correlate(checks(0, [-g for g in again], again), counts, {}, 0)
        assert found[0].verdict is verdicts


@pytest.mark.parametrize("count", [8, 20, 60])
@pytest.mark.parametrize("r", [0.0, 0.5])
def test_gradients_that_are_large_in_the_same_rows_are_not_taken_for_agreement(count: int, r: float) -> None:
    draw, beyond = np.random.default_rng(count), 0
    for _ in range(2000):
        x, noise = draw.normal(size=(2, count)) * np.exp(1.5 * draw.normal(size=count))
        z = verdict.z_score(np.array([x, r * x + math.sqrt(1 - r * r) * noise]).T, r)
        beyond += abs(z) > 2.576
    # One of 100 normal scores is further off; at r = 0, by Fisher's transformation, 31 to 54 of 100 are.
    assert beyond <= 40


def test_public_rows_name_flipped_signs_and_tell_agreement() -> None:
    public = {w: normal(60, w) for w in range(3)}
    own = {w: [g + 0.5 * n for g, n in zip(public[w], normal(60, 10 + w), strict=True)] for w in public}
    own[1] = [-g for g in own[1]]
    every = [c for w in range(3) for c in checks(w, own[w], public[w])]
    found = verdict.correlate(every, {stream(w): 60 for w in range(3)}, {}, 0)
    assert [r.verdict for r in found] == [Verdict.AGREES, Verdict.DISAGREES, Verdict.AGREES]
    assert found[1].same_sign < 0.3 < 0.7 < found[0].same_sign
    assert found[1].against_zero < -5
    assert found[1].against_others < -3
    assert found[0].error == pytest.approx(math.sqrt((1 - found[0].r ** 2) / 58))


@pytest.mark.parametrize("published", [normal(80, 50), [3.0] * 80], ids=["random", "constant"])
def test_public_rows_name_bytes_that_go_with_nothing_by_the_others_correlation(published: list[float]) -> None:
    public = {w: normal(80, w) for w in range(3)}
    own = {0: public[0], 1: published, 2: public[2]}
    every = [c for w in range(3) for c in checks(w, own[w], public[w])]
    found = verdict.correlate(every, {stream(w): 80 for w in range(3)}, {}, 0)
    assert [r.verdict for r in found] == [Verdict.AGREES, Verdict.DISAGREES, Verdict.AGREES]


def test_the_messages_needed_fall_with_the_correlation() -> None:
    needed = [verdict.messages_needed(r, 0.0) for r in (0.1, 0.3, 0.6)]
    assert needed == sorted(needed, reverse=True)
    assert verdict.messages_needed(0.3, -0.3) < verdict.messages_needed(0.3, 0.0)
    assert verdict.messages_needed(-0.2, 0.0) is None
    assert verdict.messages_needed(math.nan, 0.0) is None


@pytest.mark.parametrize(
    ("honest", "other", "most"), [(0.3, 0.0, 199), (0.5, 0.0, 199), (0.3, -0.3, 199), (0.8, -0.8, 200)]
)
def test_the_messages_needed_suffice(honest: float, other: float, most: int) -> None:
    count, draw = verdict.messages_needed(honest, other), np.random.default_rng(5)
    assert count is not None
    told = 0
    for _ in range(200):
        x, noise = draw.normal(size=(2, count))
        pairs = np.array([x, other * x + math.sqrt(1 - other * other) * noise]).T
        told += verdict.z_score(pairs, honest) < -3.09
    # Far from the middle the score varies less than at it, and more is asked for than is needed.
    assert 0.88 * 200 < told <= most
