"""The learning rate that follows from projected gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_seed import codec
from shared_seed.belief import FALL
from shared_seed.curvature import Curvature
from shared_seed.messages import Message, Stream, as_float32, written_before
from shared_seed.rate import (
    BOLDNESS,
    FAR,
    LEAST,
    MOST,
    PACE,
    PROMISE,
    REACH,
    STIFFEST,
    USUAL,
    WINDOW,
    Rate,
    boldness,
)
from shared_seed.rows import Shared

EPSILON = 2.0**-8
STREAM = Stream(b"twelve bytes", 3)
CODES = st.lists(st.integers(0, 255), max_size=2 * WINDOW)


def rate(promise: float = 0.006, scale_exponent: int = 0) -> Rate:
    return Rate(promise, EPSILON, scale_exponent)


@given(CODES, st.integers(-8, 8), st.floats(1e-6, 1.0))
def test_it_promises_what_was_asked_for_and_goes_no_further_than_the_probe(
    codes: list[int], scale: int, promise: float
) -> None:
    followed = rate(promise, scale)
    followed.note(codes)
    known = [Fraction(codec.decode(c, scale)) for c in codes if not codec.is_abstention(c)][-WINDOW:]
    square = sum(g * g for g in known) * (1 + Fraction(8, max(1, len(known)))) / max(1, len(known))
    if square == 0:
        assert followed.value() == 0
        return
    promised, gone = followed.value() * float(square), followed.value() * math.sqrt(square)
    assert promised <= promise * (1 + 1e-9)
    assert gone <= EPSILON * (1 + 1e-9)
    assert promised == pytest.approx(promise) or gone == pytest.approx(EPSILON)


def told(losses: Iterable[float], promise: float = PROMISE, rows: Shared | None = None) -> Rate:
    """A rate whose own and only gradient is 1 at each step, and what it promises on the way."""
    followed = Rate(promise, 1.0, 0)
    for number, loss in enumerate(losses):
        followed.note([codec.encode(1.0)] * WINDOW)
        followed.learn(loss, rows)
        followed.went([Message(STREAM, number, number, as_float32(followed.value()), bytes([codec.encode(1.0)]))])
    return followed


def test_losses_that_are_unknown_change_nothing() -> None:
    assert told([math.nan] * 50).value() == told([math.nan]).value()


def test_where_losses_fall_as_promised_more_is_promised_and_where_they_rise_less() -> None:
    usual = told([math.nan]).value()
    falling, level, rising = (told(1 + slope * n for n in range(200)).value() for slope in (-0.01, 0.0, 0.01))
    assert rising <= level < usual < falling
    assert falling > 2 * usual
    assert LEAST * usual <= rising < usual / 4


@given(st.lists(st.floats(-10, 10), max_size=60), st.floats(1e-4, 1))
def test_promises_stay_within_bounds_and_pace(losses: list[float], promise: float) -> None:
    before = promise * min(max(1, losses[0]), FAR) if losses else promise
    for count in range(len(losses)):
        now = told(losses[: count + 1], promise).state[0]
        assert promise * LEAST <= now <= promise * MOST
        assert now <= before * PACE * 1.001
        before = now


@pytest.mark.parametrize(("share", "steps", "times"), [(0.5, 40, MOST), (0.05, 400, 2.5), (0.0, 2000, 0.06)])
def test_rows_say_what_to_promise_before_losses_do(share: float, steps: int, times: float) -> None:
    followed, usual = Rate(PROMISE, 1.0, 0), told([math.nan]).value()
    for number in range(steps):
        followed.note([codec.encode(1.0)] * WINDOW)
        followed.learn(1.0, Shared(share, 1.0, 16, 4))
        if number == 9 and share > 0.1:
            assert followed.value() > MOST / 2 * usual, "soon"
    assert followed.value() == pytest.approx(times * usual, rel=0.3)


def test_what_rows_ask_for_is_not_promised_where_losses_do_not_fall() -> None:
    rows = Shared(0.05, 1.0, 16, 4)
    falling, level = (told((9 + slope * n for n in range(300)), rows=rows).value() for slope in (-0.02, 0.0))
    assert level < 0.6 * falling


@pytest.mark.parametrize(("share", "reach"), [(0.001, 1.0), (0.03, 1.5), (0.9, REACH)])
def test_a_step_goes_further_than_its_probe_only_where_rows_ask_for_much(share: float, reach: float) -> None:
    followed = Rate(PROMISE, EPSILON, 0)
    for _ in range(400):
        followed.note([codec.encode(0.01)] * WINDOW)
        followed.learn(0.5, Shared(share * 1e-4, 1e-4, 16, 4))
    assert followed.value() * followed.size == pytest.approx(reach * EPSILON, rel=0.3)
    assert followed.most * followed.size == pytest.approx(REACH * EPSILON)


def test_a_batch_whose_rows_are_unknown_leaves_what_they_have_said() -> None:
    followed = Rate(PROMISE, 1.0, 0)
    for known in [True] * 20 + [False] * 20:
        followed.note([codec.encode(1.0)] * WINDOW)
        followed.learn(1.0, Shared(0.2, 1.0, 16, 4) if known else None)
    same = Rate(PROMISE, 1.0, 0)
    same.restore(followed.state)
    assert same.state == followed.state
    assert followed.value() > 8 * told([math.nan]).value()


@given(st.lists(st.lists(st.sampled_from([0x30, 0x38, 0xB0, 0x7F]), min_size=1, max_size=4), max_size=80))
def test_stiffness_goes_from_what_is_usual_to_what_curvature_says(messages: list[list[int]]) -> None:
    curvature = Curvature(0, 4)
    followed = Rate(0.0025, EPSILON, 0, curvature)
    curvature.follow(messages)
    if not curvature.count:
        assert followed.stiffness == 4
        return
    found = min(max(2 * curvature.excess / EPSILON / (16 * curvature.square), 0.5), STIFFEST)
    weight = min(curvature.count, WINDOW)
    assert followed.stiffness == pytest.approx((USUAL * 4 + weight * found) / (USUAL + weight))


def test_steps_are_the_shorter_the_stiffer_the_loss_is() -> None:
    values = []
    for excess in (0.5, 4.0):
        curvature = Curvature(0, 4)
        curvature.excess, curvature.square, curvature.count = excess, 16.0, WINDOW
        followed = Rate(PROMISE, EPSILON, 0, curvature)
        for _ in range(60):
            followed.note([codec.encode(4.0)] * 4)
            followed.learn(0.5, Shared(0.02, 1.0, 16, 3))
        values.append(followed.value())
        assert followed.state[0] == pytest.approx(BOLDNESS * 0.02 / followed.stiffness, rel=0.25)
    assert values[1] < values[0] / 3


@given(st.floats(0, 1e9))
def test_steps_are_as_bold_as_suits_the_last_of_them(nats: float) -> None:
    assert boldness(nats) == pytest.approx(1 / (1 + nats * boldness(nats)), rel=1e-9)


def steady(left: int | None, *, peers: int = 1, heard: int = 1, share: float = 0.01) -> Rate:
    """A rate that has long seen the same share, with so many steps before it, four gradients each and peer."""
    followed = Rate(PROMISE, EPSILON, 0, peers=peers)
    codes = bytes([codec.encode(4.0)] * 4)
    for number in range(60):
        followed.note(codes)
        followed.learn(0.5, Shared(share, 1.0, 400, 4), left)
        if heard:
            others = [Stream(bytes([peer]) * 12) for peer in range(heard)]
            followed.went([Message(other, number, number, 0.0, codes) for other in others])
    return followed


@pytest.mark.parametrize("left", [1, 20, 1000])
@pytest.mark.parametrize("peers", [1, 8])
def test_the_more_gradients_are_to_come_the_less_is_promised(left: int, peers: int) -> None:
    followed = steady(left, peers=peers, heard=peers)
    bold = boldness(FALL * 4 * peers * left * followed.share)
    assert followed.share == pytest.approx(0.01, rel=0.1)
    assert followed.state[0] == pytest.approx(max(bold * followed.share, PROMISE * LEAST))


def test_where_nobody_knows_what_is_to_come_half_of_the_best_for_one_step_is_promised() -> None:
    followed = steady(None)
    assert followed.state[0] == pytest.approx(BOLDNESS * followed.share)


def test_peers_count_as_soon_as_they_are_there_and_before_anything_is_heard_as_they_are_said_to_be() -> None:
    eight, come, gone, unheard = (
        steady(100, peers=peers, heard=heard).state[0] for peers, heard in ((8, 8), (1, 8), (8, 1), (8, 0))
    )
    assert come == pytest.approx(eight, rel=0.01)
    assert unheard == pytest.approx(eight, rel=0.01)
    assert gone == pytest.approx(steady(100).state[0], rel=0.01)
    assert eight < gone / 2


def test_a_loss_in_another_unit_is_as_stiff() -> None:
    stiffness = []
    for unit in (1.0, 100.0):
        curvature = Curvature(0, 4)
        curvature.excess, curvature.square, curvature.count = 0.5 * unit, unit**2, WINDOW
        stiffness.append(Rate(PROMISE * unit, EPSILON, 0, curvature).stiffness)
    assert stiffness[0] == pytest.approx(stiffness[1])


def test_gradients_twice_as_large_halve_the_probe_or_quarter_the_promise() -> None:
    large, larger, small, smaller = rate(), rate(), rate(), rate()
    for followed, gradient in ((large, 32.0), (larger, 64.0), (small, 0.5), (smaller, 0.25)):
        followed.note([codec.encode(gradient)])
    assert large.value() == pytest.approx(4 * larger.value()) == pytest.approx(0.006 / 32**2 / 9)
    assert 2 * small.value() == pytest.approx(smaller.value()) == pytest.approx(EPSILON / 0.25 / 3)


@given(
    st.lists(st.tuples(CODES.filter(bool), st.floats(0.1, 9)), min_size=1, max_size=60),
    st.data(),
)
def test_a_peer_that_resumes_goes_on_as_if_it_had_not_stopped(
    steps: list[tuple[list[int], float]], data: st.DataObject
) -> None:
    earlier = data.draw(st.integers(0, len(steps)))
    messages = [
        Message(Stream(STREAM.peer, 2), number, number, 1.0, bytes(codes))
        for number, (codes, _) in enumerate(steps[:earlier])
    ]
    messages += [
        Message(STREAM, number, earlier + number, 1.0, bytes(codes))
        for number, (codes, _) in enumerate(steps[earlier:])
    ]
    others = [Message(Stream(b"another peer"), n, n, 1.0, b"\x7e") for n in range(3)]
    until = data.draw(st.integers(0, len(steps) - earlier))
    going, resumed = rate(), rate()
    rows = Shared(0.01, 1.0, 16, 4) if data.draw(st.booleans()) else None
    for message, (codes, loss) in zip(messages[: earlier + until], steps, strict=False):
        going.note(codes)
        going.learn(loss, rows, left=9)
        going.went([message, *others])
    resumed.note(b"\x40")
    resumed.restore(going.state)
    resumed.went(others)
    going.went(others)
    shuffled = data.draw(st.permutations(messages + others))
    resumed.resume(shuffled, written_before(shuffled, STREAM, until), constant)
    assert resumed.size == going.size
    assert resumed.value() == going.value() or not going.state
    for followed in (going, resumed) if going.state else ():
        followed.learn(0.5, rows, left=9)
    assert resumed.value() == going.value() or not going.state


def constant(number: int) -> float:
    return 1.0


def falling(number: int) -> float:
    return 1 - number / (2 * WINDOW)


@pytest.mark.parametrize("schedule", [constant, falling])
@pytest.mark.parametrize("promised", [0.004, 0.02])
@pytest.mark.parametrize("left", [None, 100])
def test_who_comes_late_promises_what_the_others_do(
    promised: float, schedule: Callable[[int], float], left: int | None
) -> None:
    code = bytes([codec.encode(16.0)])
    others = [
        Message(Stream(b"another peer"), n, n, as_float32(schedule(n) * promised / 256), code)
        for n in range(2 * WINDOW)
    ]
    late = rate()
    late.resume(others, [], schedule)
    late.note([codec.encode(16.0)])
    late.learn(math.nan, left=left)
    assert late.value() * late.size**2 == pytest.approx(promised, rel=0.2)


@pytest.mark.parametrize("left", [None, 10, 200])
def test_who_comes_late_and_sees_rows_promises_what_the_others_do_too(left: int | None) -> None:
    others = [
        Message(Stream(b"another peer"), n, n, as_float32(0.004 / 256), bytes([codec.encode(16.0)]))
        for n in range(WINDOW)
    ]
    late = rate()
    late.resume(others, [], constant)
    late.note([codec.encode(16.0)])
    share = 0.004 * late.stiffness
    share *= 1 / BOLDNESS if left is None else 1 + FALL * left * share
    late.learn(0.5, Shared(share, 1.0, 16, 4), left)
    assert late.share == pytest.approx(share, rel=0.2)
    assert late.value() * late.size**2 == pytest.approx(0.004, rel=0.2)


def test_who_does_not_follow_keeps_the_promise() -> None:
    steady = Rate(0.006, EPSILON, 0, follow=False)
    others = [Message(Stream(b"another peer"), n, n, 2.0**-12, bytes([codec.encode(16.0)])) for n in range(9)]
    steady.resume(others, [], constant)
    steady.note([codec.encode(16.0)])
    before = steady.value()
    for loss in (9.0, 8.0, 1.0):
        steady.learn(loss)
        steady.went(others)
    assert steady.value() == before == pytest.approx(0.006 / steady.size**2)
    assert steady.state == ()
