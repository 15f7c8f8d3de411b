"""What is taken from a torch optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam, AdamW

import models
from shared_seed.errors import ModelError
from shared_seed.optimizer import Groups, check_usable


def model() -> nn.Module:
    return models.mlp(3, 4, 2)


def test_all_alike_is_a_rate_of_one_for_every_name() -> None:
    trained = model()
    groups = Groups.of(SGD(trained.parameters(), lr=0.3), trained, 10)
    assert groups.rates == dict.fromkeys(dict(trained.named_parameters()), 1.0)
    assert groups.decays == {}
    assert groups.notices == ()


def two_rates(trained: nn.Module) -> SGD:
    first, *rest = trained.parameters()
    return SGD([{"params": rest, "lr": 0.1}, {"params": [first], "lr": 0.01}])


def test_rates_are_multiples_of_the_first_groups() -> None:
    trained = model()
    groups = Groups.of(two_rates(trained), trained, 10)
    name = next(name for name, _ in trained.named_parameters())
    assert groups.rates[name] == pytest.approx(0.1, rel=1e-6)
    assert {rate for other, rate in groups.rates.items() if other != name} == {1.0}
    assert all(float(torch.tensor(rate, dtype=torch.float32)) == rate for rate in groups.rates.values())


def test_a_warmup_from_zero_keeps_the_ratio() -> None:
    trained = model()
    optimizer = two_rates(trained)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 4)
    groups = Groups.of(optimizer, trained, 10)
    assert groups.learning_rate(optimizer) == 0
    found = []
    for _ in range(4):
        optimizer.step()
        schedule.step()
        assert groups.hold(optimizer)
        found.append(groups.learning_rate(optimizer))
    assert found == pytest.approx([0.025, 0.05, 0.075, 0.1])


def test_a_parameter_outside_the_optimizer_has_no_rate() -> None:
    trained = model()
    groups = Groups.of(SGD([next(trained.parameters())], lr=0.1), trained, 10)
    assert list(groups.rates) == [next(name for name, _ in trained.named_parameters())]


def freeze(optimizer: Any) -> None:
    optimizer.param_groups[0]["params"][0].requires_grad_(False)


def add(optimizer: Any) -> None:
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def change(optimizer: Any) -> None:
    optimizer.param_groups[1]["lr"] *= 2


@pytest.mark.parametrize("disturb", [freeze, add, change])
def test_a_change_of_what_is_trained_or_how_shows(disturb: Any) -> None:
    trained = model()
    optimizer = two_rates(trained)
    groups = Groups.of(optimizer, trained, 10)
    assert groups.hold(optimizer)
    disturb(optimizer)
    assert not groups.hold(optimizer)


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [(AdamW, {}, "AdamW's learning rate"), (Adam, {}, "Adam's"), (SGD, {"momentum": 0.9}, "SGD's")],
)
def test_unused_moments_are_told(kind: Any, arguments: dict[str, Any], said: str) -> None:
    trained = model()
    optimizer = kind(trained.parameters(), lr=1e-3, weight_decay=0, **arguments)
    (notice,) = Groups.of(optimizer, trained, 10).notices
    assert said in notice
    assert "moments are not used and take no memory" in notice


@pytest.mark.parametrize(("kind", "about_moments"), [(AdamW, True), (SGD, False)])
def test_a_rate_that_is_found_is_told(kind: Any, about_moments: bool) -> None:
    trained = model()
    (notice,) = Groups.of(kind(trained.parameters(), lr=1e-3, weight_decay=0), trained, 10, found=True).notices
    assert f"finds the learning rate, and takes {kind.__name__}'s as its schedule" in notice
    assert f"Settings(promise=None) goes by {kind.__name__}'s own rate" in notice
    assert ("moments are not used" in notice) == about_moments


def test_weight_decay_that_hardly_shrinks_is_left_out_and_told() -> None:
    trained = model()
    groups = Groups.of(AdamW(trained.parameters(), lr=1e-5), trained, 1000)
    assert groups.decays == {}
    assert "would shrink the weights by only 0.01 % over all 1000 steps" in groups.notices[1]


def test_weight_decay_that_matters_is_by_parameter_and_told() -> None:
    trained = model()
    first, *rest = trained.parameters()
    optimizer = SGD([{"params": [first], "weight_decay": 0.1}, {"params": rest}], lr=0.1)
    groups = Groups.of(optimizer, trained, 1000)
    assert groups.decays == {next(name for name, _ in trained.named_parameters()): 0.1}
    assert groups.notices == (
        "weight_decay goes into the projected gradients: right on average, and replicas stay identical",
    )


@pytest.mark.parametrize(
    ("optimizers", "said"),
    [
        (lambda p: [], "got these optimizers: none"),
        (lambda p: [SGD(p, lr=1), Adam(p)], "got these optimizers: SGD, Adam"),
        (lambda p: [object()], "got these optimizers: object"),
        (lambda p: [LBFGS(p)], "LBFGS searches along lines of its own"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_can(optimizers: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said) as raised:
        check_usable(optimizers(list(model().parameters())))
    assert "expected one optimizer such as torch.optim.SGD" in str(raised.value)
