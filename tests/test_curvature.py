"""What one side adds to projected gradients."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from shared_seed import codec
from shared_seed.audit import taken_off
from shared_seed.curvature import WINDOW, Curvature
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.training import Training

MESSAGES = st.lists(st.lists(st.integers(0, 255), max_size=6), max_size=3 * WINDOW)


@given(MESSAGES, st.integers(-8, 8))
def test_it_is_a_mean_of_what_was_published_and_what_was_taken_off(messages: list[list[int]], scale: int) -> None:
    followed = Curvature(scale, 4)
    means, squares = [Fraction(0)], Fraction(0)
    for codes in messages:
        followed.note(codes)
        known = [Fraction(codec.decode(c, scale)) for c in codes if not codec.is_abstention(c)]
        if known:
            # The gradient itself is the published one and what was taken off; the newest WINDOW count most.
            weight = Fraction(1, min(len(means) + 1, WINDOW))
            raw = means[-1] + sum(known) / len(known)
            squares += (sum(g * g for g in known) / len(known) - squares) / min(len(means), WINDOW)
            means.append((1 - weight) * means[-1] + weight * raw)
    assert followed.count == len(means) - 1
    assert followed.excess == pytest.approx(float(means[-1]), rel=1e-9, abs=1e-9)
    assert followed.square == pytest.approx(float(squares), rel=1e-9, abs=1e-9)
    assert followed.trace(0.25) == 8 * followed.excess


@given(MESSAGES)
def test_who_follows_from_the_beginning_knows_the_same(messages: list[list[int]]) -> None:
    one, other = Curvature(0, 4), Curvature(0, 4)
    for codes in messages:
        one.note(codes)
    other.note([codec.encode(9.0)])
    other.follow(messages)
    assert (other.excess, other.square, other.count) == (one.excess, one.square, one.count)


def test_both_sides_of_one_direction_have_no_curvature_to_take_off() -> None:
    followed = Curvature(0, 1)
    followed.note([codec.encode(3.0)])
    assert (followed.excess, followed.square, followed.count) == (0, 0, 0)


class Bent(nn.Module):
    """A quadratic at its lowest point: all that one side sees is curvature."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(64))

    def loss(self) -> Tensor:
        return 20 * self.values.square().sum()


def test_a_session_takes_off_what_curvature_adds() -> None:
    model, epsilon = Bent(), 2.0**-6
    settings = Settings(promise=None, directions=4, epsilon=epsilon, seed=3)
    session = Session.open(model, settings, Training(rounds=200))
    session.begin()
    published = []
    for _ in range(200):
        session.measure(model.loss)
        report = session.step(0.0)  # It stays where it is.
        published.append(report.gradient)
    contents = session.finish().contents
    # epsilon / 2 * z H z, with z H z = 40 * 64 whatever the signs.
    assert published[0] == pytest.approx(epsilon / 2 * 40 * 64, rel=0.01)
    assert abs(published[-1]) < 0.1 * published[0]
    excess = taken_off(contents, 4)
    for message in contents.messages:
        # Whoever has the log knows what was taken off, and so what was measured.
        measured = codec.decode(message.codes[0]) + excess[message.stream, message.number]
        assert measured == pytest.approx(published[0], rel=0.1)


@pytest.mark.parametrize("directions", [1, 4])
def test_a_session_that_resumes_takes_off_the_same(directions: int, tmp_path: Path) -> None:
    settings = Settings(promise=None, directions=directions, epsilon=2.0**-6, folder=tmp_path, number=0)
    published: list[list[float]] = []
    for end in (6, 12):
        model = Bent()
        session = Session.open(model, settings, Training(rounds=12))
        session.begin()
        published.append([])
        while session.round < end:
            session.measure(model.loss)
            published[-1].append(session.step(0.0).gradient)
        session.close()
    if directions == 1:
        assert published == [[0.0] * 6] * 2
    else:
        assert 0 < published[1][0] < published[0][-1] * 1.01
