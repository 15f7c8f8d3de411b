"""How far the steps of a session go."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared_seed import codec
from shared_seed.belief import FALL
from shared_seed.errors import RecipeError
from shared_seed.optimizer import Groups
from shared_seed.rate import BOLDNESS, Rate, boldness
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.training import MOST_ROUNDS, Training
from told import as_told

EPSILON = 2.0**-8


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


def test_a_session_plans_by_the_rounds_of_its_run_and_an_endless_one_does_not() -> None:
    shares, promises = [], []
    for rounds in (8, 50, MOST_ROUNDS):
        model = Bowl(1.0)
        session = Session.open(model, Settings(epsilon=2.0**-6), Training(rounds=rounds))
        session.begin()

        def loss() -> Tensor:
            rows = (model.values - torch.linspace(-1, 1, 16)[:, None]).square().sum(1)  # noqa: B023
            session.row_losses.note(rows)  # noqa: B023
            return rows.mean()

        session.measure(loss)
        session.step(1.0)
        promise, *_ = session.stride.learnt
        assert session.stride._rate is not None
        promises.append(promise)
        shares.append(session.stride._rate.share)
        session.close()
    assert shares[1:] == pytest.approx(shares[:-1])
    expected = [boldness(FALL * 4 * rounds * shares[0]) for rounds in (8, 50)]
    assert promises[1:] == pytest.approx([promises[0] * b / expected[0] for b in (expected[1], BOLDNESS)])


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


def test_who_has_not_learnt_does_not_take_what_a_schedule_did_for_what_was_promised() -> None:
    model = Bowl(1.0)
    settings = Settings(promise=0.006, directions=1, schedule="linear")
    session = Session.open(model, settings, Training(rounds=12))
    session.begin()
    for _ in range(9):
        session.measure(model.loss)
        session.step(1.0)
    told = dataclasses.replace(session.snapshot(), learnt=())
    messages = list(session.protocol.archive)
    session.close()
    session = Session.open(model, settings, Training(rounds=12, resume=told))
    session.begin()
    measured = session.measure(model.loss)
    expected = Rate(0.006, EPSILON, 0)

    def part(number: int) -> float:
        return 1 - number / 12

    expected.resume(messages, messages, part)
    expected.note([codec.encode(measured.gradient)])
    expected.learn(measured.loss)
    assert session.round == 9
    assert session.step(1.0).learning_rate == pytest.approx(part(9) * expected.value(), rel=1e-6)
    session.close()


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
        message = next(m for m in session.protocol.archive if m.number == number)
        followed.note(message.codes)
        followed.learn(report.loss)
        parts.append(report.learning_rate / followed.value())
        followed.went([message])
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
