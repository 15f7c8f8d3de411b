from __future__ import annotations

import random

from shared_seed.swarm.budget import Budget

A, B = b"a" * 32, b"b" * 32


def test_a_sender_may_use_its_burst_and_then_its_rate() -> None:
    budget = Budget(100, burst=4)
    assert budget.takes(A, 400, 0.0)
    assert not budget.takes(A, 1, 0.0)
    assert not budget.takes(A, 100, 0.9)
    assert budget.takes(A, 100, 1.0)
    assert not budget.takes(A, 1, 1.0)


def test_a_refused_frame_costs_nothing_and_silence_fills_no_more_than_the_burst() -> None:
    budget = Budget(100, burst=4)
    assert not budget.takes(A, 401, 0.0)
    assert budget.takes(A, 400, 0.0)
    assert budget.takes(A, 400, 1000.0)
    assert not budget.takes(A, 1, 1000.0)


def test_one_sender_does_not_use_up_what_another_may_send() -> None:
    budget = Budget(100, burst=4)
    assert budget.takes(A, 400, 0.0)
    assert not budget.takes(A, 400, 0.0)
    assert budget.takes(B, 400, 0.0)


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    budget = Budget(100, burst=4)
    assert budget.takes(A, 400, 10.0)
    assert not budget.takes(A, 1, 5.0)
    assert not budget.takes(A, 1, 5.0)


def test_memory_is_bounded_and_whoever_was_silent_longest_is_forgotten() -> None:
    budget = Budget(100, burst=4, most_keys=3)
    for n in range(1000):
        budget.takes(n.to_bytes(32, "big"), 400, 0.0)
        assert not budget.takes(n.to_bytes(32, "big"), 1, 0.0)
        budget.takes(A, 1, 0.0)
    assert len(budget) == 3
    assert not budget.takes(A, 400, 0.0), "one that goes on sending is remembered"


def test_over_any_time_a_sender_gets_no_more_than_burst_and_rate_and_no_less_than_it_asks_within_them() -> None:
    draw = random.Random(3)
    budget, now, taken = Budget(1000, burst=2), 0.0, 0
    for _ in range(5000):
        now += draw.expovariate(10)
        size = draw.randrange(1, 400)
        taken += size if budget.takes(A, size, now) else 0
        assert taken <= 2000 + 1000 * now + 1e-6
    assert taken > 0.9 * 1000 * now


def test_a_charge_may_leave_a_debt_that_time_pays_off() -> None:
    budget = Budget(100, burst=1)
    budget.charge(A, 250, 0.0)
    assert budget.left(A, 0.0) == -150
    assert not budget.takes(A, 1, 1.5)
    assert budget.left(A, 1.6) > 0
    assert budget.left(B, 0.0) == 100
