"""The learning rate that follows from projected gradients."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from shared_seed import codec
from shared_seed.errors import RecipeError
from shared_seed.messages import Message, Stream
from shared_seed.optimizer import Groups
from shared_seed.rate import WINDOW, Rate
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.training import Training
from told import as_told

EPSILON = 2.0**-8
STREAM = Stream(b"twelve bytes", 3)
CODES = st.lists(st.integers(0, 255), max_size=2 * WINDOW)


def rate(promise: float = 0.006, scale_exponent: int = 0) -> Rate:
    return Rate(promise, EPSILON, scale_exponent)


@given(CODES, st.integers(-8, 8), st.floats(1e-6, 1.0), st.floats(min_value=-1.0))
def test_it_promises_what_was_asked_for_and_goes_no_further_than_the_probe(
    codes: list[int], scale: int, promise: float, loss: float
) -> None:
    followed = rate(promise, scale)
    followed.note(codes)
    known = [Fraction(codec.decode(c, scale)) for c in codes if not codec.is_abstention(c)][-WINDOW:]
    square = sum(g * g for g in known) * (1 + Fraction(8, max(1, len(known)))) / max(1, len(known))
    if square == 0:
        assert followed.value(loss) == 0
        return
    far = promise * min(4.0, max(1.0, loss))
    promised, gone = followed.value(loss) * float(square), followed.value(loss) * math.sqrt(square)
    assert promised <= far * (1 + 1e-9)
    assert gone <= EPSILON * (1 + 1e-9)
    assert promised == pytest.approx(far) or gone == pytest.approx(EPSILON)


def test_a_loss_that_is_unknown_promises_no_more() -> None:
    followed = rate()
    followed.note([codec.encode(64.0)])
    assert 3 * followed.value(math.nan) == 3 * followed.value(1.0) == pytest.approx(followed.value(3.0))


def test_gradients_twice_as_large_halve_the_probe_or_quarter_the_promise() -> None:
    large, larger, small, smaller = rate(), rate(), rate(), rate()
    for followed, gradient in ((large, 32.0), (larger, 64.0), (small, 0.5), (smaller, 0.25)):
        followed.note([codec.encode(gradient)])
    assert large.value(0.5) == pytest.approx(4 * larger.value(0.5)) == pytest.approx(0.006 / 32**2 / 9)
    assert 2 * small.value(0.5) == pytest.approx(smaller.value(0.5)) == pytest.approx(EPSILON / 0.25 / 3)


@given(st.lists(CODES.filter(bool), min_size=1, max_size=60), st.data())
def test_a_peer_that_resumes_goes_on_as_if_it_had_not_stopped(steps: list[list[int]], data: st.DataObject) -> None:
    earlier = data.draw(st.integers(0, len(steps)))
    messages = [
        Message(Stream(STREAM.peer, 2), number, number, 1.0, bytes(codes))
        for number, codes in enumerate(steps[:earlier])
    ]
    messages += [
        Message(STREAM, number, earlier + number, 1.0, bytes(codes))
        for number, codes in enumerate(steps[earlier:])
    ]
    others = [Message(Stream(b"another peer"), n, n, 1.0, b"\x7e") for n in range(3)]
    until = data.draw(st.integers(0, len(steps) - earlier))
    going, resumed = rate(), rate()
    for codes in steps[: earlier + until]:
        going.note(codes)
    resumed.note(b"\x40")
    resumed.resume(data.draw(st.permutations(messages + others)), STREAM, until)
    assert resumed.value(0.5) == going.value(0.5)


class Bowl(nn.Module):
    """A quadratic, whose scale nobody knows."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.linspace(-1, 1, 64))
        self.scale = scale

    def loss(self) -> Tensor:
        return self.scale * self.values.square().sum()


@pytest.mark.parametrize("scale", [0.03, 1.0, 30.0])
def test_a_session_descends_whatever_the_scale_of_the_loss(scale: float) -> None:
    model = Bowl(scale)
    before = model.loss().item()
    training = Training(rounds=400)
    session = Session.open(model, Settings(promise=0.2 * scale, epsilon=2.0**-6), training)
    session.begin()
    for _ in range(400):
        session.measure(model.loss)
        report = session.step(1.0)
    assert report.learning_rate > 0
    session.close()
    assert model.loss().item() < 0.6 * before


def test_a_session_that_resumes_takes_the_same_steps(tmp_path: Path) -> None:
    digests = []
    for stops in ((12,), (5, 12)):
        folder = tmp_path / str(len(stops))
        for end in stops:
            model = Bowl(1.0)
            settings = Settings(promise=0.006, directions=1, folder=folder, number=0)
            session = Session.open(model, settings, Training(rounds=12))
            session.begin()
            while session.round < end:
                session.measure(model.loss)
                session.step(1 - session.round / 12)
            rates = [m.learning_rate for m in session.protocol.archive]
            if end == 12:
                digests.append((rates, session.finish().messages))
            session.close()
    # A restarted process draws other directions, so what is compared is how many steps promise how much.
    assert [len(rates) for rates, _ in digests] == [12, 12]
    assert digests[0][0][:5] == digests[1][0][:5]


def test_a_schedule_goes_by_the_rounds_of_the_run_and_not_of_the_process(tmp_path: Path) -> None:
    rates: list[float] = []
    for end in (3, 8):
        model = Bowl(1.0)
        settings = as_told(schedule="linear", folder=tmp_path, number=0)
        session = Session.open(model, settings, Training(rounds=8))
        session.begin()
        while session.round < end:
            session.measure(model.loss)
            rates.append(session.step(0.5).learning_rate)
        session.close()
    assert rates == [0.5 * (1 - round_ / 8) for round_ in range(8)]


def test_a_schedule_that_rises_stays_at_what_was_found() -> None:
    model = Bowl(1.0)
    model.values.requires_grad_(True)
    optimizer = torch.optim.SGD([model.values], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=30, div_factor=25)
    groups = Groups.of(optimizer, model, 30)
    session = Session.open(model, Settings(directions=1), Training(rounds=30, groups=groups))
    session.begin()
    followed, parts = Rate(0.01, EPSILON, 0), []
    for number in range(30):
        session.measure(model.loss)
        report = session.step(groups.learning_rate(optimizer))
        followed.note(next(m.codes for m in session.protocol.archive if m.number == number))
        parts.append(report.learning_rate / followed.value(report.loss))
        optimizer.step()
        schedule.step()
    session.close()
    assert parts[:20] == pytest.approx([1.0] * 20)
    assert parts[-1] < 1e-3


def test_several_directions_of_a_batch_are_so_many_bytes_of_a_message() -> None:
    model = Bowl(1.0)
    session = Session.open(model, Settings(directions=5, promise=0.2, epsilon=2.0**-6), Training(rounds=40))
    session.begin()
    before, evaluated = model.loss().item(), 0

    def loss() -> Tensor:
        nonlocal evaluated
        evaluated += 1
        return model.loss()

    for _ in range(40):
        session.measure(loss)
        session.measure(loss)
        session.step(1.0)
    assert evaluated == 40 * 2 * (1 + 5)
    assert {len(message.codes) for message in session.protocol.archive} == {10}
    assert model.loss().item() < before
    session.close()


def test_more_directions_than_a_message_carries_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"directions is 256; expected 1 to 255"):
        Settings(directions=256)
    session = Session.open(Bowl(1.0), Settings(directions=200), Training(rounds=1))
    session.begin()
    session.measure(lambda: torch.tensor(1.0))
    with pytest.raises(RecipeError, match=r"more than 200 probes in one step, and 200 for the next batch"):
        session.measure(lambda: torch.tensor(1.0))
    session.close()


@pytest.mark.parametrize("promise", [0, -1, math.inf, math.nan])
def test_a_promise_that_is_none_is_refused(promise: float) -> None:
    with pytest.raises(RecipeError, match=r"promise is .* expected nats"):
        Settings(promise=promise)
