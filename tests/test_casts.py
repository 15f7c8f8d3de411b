"""Autocast casts a weight once for all evaluations of a batch, and never hands out an old one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import models
from models import SAMPLE
from shared_seed import exact
from shared_seed.noise import Sample
from shared_seed.perturbation import Perturbation
from shared_seed.probe import Measurement, Probe
from shared_seed.weights import Weights

EPSILON = 2.0**-5
SAMPLES = [Sample(1, number, 0) for number in range(3)]


class Casts(TorchDispatchMode):
    """Counts how often the values at an address are cast to bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") is torch.bfloat16:
            self.of[args[0].data_ptr()] += 1
        return func(*args, **(kwargs or {}))


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def probe_of(model: nn.Module) -> Probe:
    return Probe(model, Perturbation(Weights.of(model, EPSILON), EPSILON))


def frozen_but_attention() -> nn.Module:
    model: nn.Module = models.llama().eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("self_attn" in name)
    return model


@pytest.mark.parametrize(
    "build", [lambda: models.llama().eval(), frozen_but_attention, lambda: models.lora(models.llama()).eval()]
)
def test_every_matrix_is_cast_once_for_all_directions(build: Callable[[], nn.Module]) -> None:
    model = build()
    trained = [p.requires_grad for p in model.parameters()]
    probe, counted = probe_of(model), Casts()
    # So few that none but an adapter's is cheaper written: those are cast anew for each direction.
    few = models.tokens()[:1, :4]
    with counted:
        probe.measure_all(models.next_token_loss(model, few), SAMPLES, autocast())
    matrices = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and ".lora_" not in n}
    assert {name: counted.of[m.weight.data_ptr()] for name, m in matrices.items()} == dict.fromkeys(matrices, 1)
    assert [p.requires_grad for p in model.parameters()] == trained


@pytest.mark.parametrize("build", [lambda: models.opt().eval(), frozen_but_attention])
def test_casts_that_are_kept_change_no_measurement(build: Callable[[], nn.Module]) -> None:
    """Also where one autocast is around everything, in which weights are updated."""
    expected, found = measured(build, around=False), measured(build, around=True)
    assert found == expected
    assert len(set(expected)) == len(expected)


def measured(build: Callable[[], nn.Module], *, around: bool) -> list[Measurement]:
    torch.manual_seed(0)
    model = build()
    probe, evaluate = probe_of(model), models.next_token_loss(model, models.tokens())
    results = []

    def alone() -> Any:
        with autocast():
            return evaluate()

    def probe_and_step() -> None:
        results.extend(probe.measure_all(evaluate if around else alone, SAMPLES))
        with torch.no_grad():
            exact.shift(list(probe.perturbation.weights), SAMPLE, EPSILON)

    for _ in range(2):
        with autocast() if around else nullcontext():
            probe_and_step()
            probe_and_step()
    return results


def test_what_is_frozen_is_frozen_again_after_an_error() -> None:
    model = frozen_but_attention()
    trained = [p.requires_grad for p in model.parameters()]

    def fail() -> None:
        assert all(p.requires_grad for p in model.parameters())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        probe_of(model).measure(fail, SAMPLE, autocast())
    assert [p.requires_grad for p in model.parameters()] == trained
