"""A probe measures the directional derivative and leaves nothing behind, however it ends."""

from __future__ import annotations

import contextlib
import gc
import linecache
import math
import os
import random
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import models
import shared_seed.interrupts
import shared_seed.perturbation
import shared_seed.probe
from models import EPSILON, SAMPLE
from shared_seed import directions
from shared_seed.errors import ModelError, RecipeError
from shared_seed.grid import check_epsilon
from shared_seed.noise import Sample
from shared_seed.perturbation import Perturbation
from shared_seed.probe import Measurement, Probe
from shared_seed.weights import Choice, Weights

INPUTS = torch.linspace(-1, 1, 60).view(10, 6)


def probe_of(model: nn.Module, epsilon: float = EPSILON, dense: tuple[str, ...] = ()) -> Probe:
    return Probe(model, Perturbation(Weights.of(model, epsilon, Choice(dense=tuple(dense))), epsilon))


class Noisy(nn.Module):
    """Draws from every generator, has buffers of every kind, and remembers what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(8, 1)
        self.register_buffer("replaced", torch.zeros(3))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.drawn: list[tuple[float, ...]] = []

    def forward(self, values: Tensor) -> Tensor:
        mask = self.drop(torch.ones(8))
        self.drawn.append((random.random(), np.random.random(), float(torch.rand(())), *mask.tolist()))
        self.replaced = self.replaced + 1
        self.hidden.add_(1)
        return self.out(torch.tanh(self.norm(self.linear(values))) * mask).square().mean()


def everything(model: nn.Module) -> list[Any]:
    return [models.bits(model), models.generators(), models.hooks(model), model.training]


# What is measured


@pytest.mark.parametrize(
    "build", [models.Mixed, models.llama, models.opt, models.gpt2, lambda: models.lora(models.opt())]
)
@torch.no_grad()
def test_the_losses_are_those_of_copies_with_moved_weights(build: Callable[[], nn.Module]) -> None:
    model = build().eval()
    ids = models.tokens()
    probe = probe_of(model)
    weights = probe.perturbation.weights
    found = probe.measure(models.next_token_loss(model, ids), SAMPLE)
    for sign, loss in ((+1, found.plus), (-1, found.minus)):
        moved = models.moved_copy(model, weights, SAMPLE, sign * EPSILON)
        assert loss == pytest.approx(float(models.next_token_loss(moved, ids)()), rel=1e-5)
    assert found.gradient == (found.plus - found.minus) / (2 * EPSILON)
    assert found.loss == (found.plus + found.minus) / 2
    assert found.plus != found.minus


@pytest.mark.parametrize("build", [models.Mixed, models.llama, models.opt, models.gpt2])
def test_the_gradient_is_the_directional_derivative(build: Callable[[], nn.Module]) -> None:
    model = build().eval()
    probe = probe_of(model, 2.0**-11)
    loss = models.next_token_loss(model, models.tokens())
    loss().backward()
    gradients = {t.name: t.parameter.grad for t in probe.perturbation.weights}
    model.zero_grad(set_to_none=True)
    exact, found = [], []
    for number in range(12):
        sample = Sample(11, number, 0)
        exact.append(
            sum(
                float((gradients[t.name] * torch.from_numpy(direction_of(t, sample))).sum())
                for t in probe.perturbation.weights
            )
        )
        found.append(probe.measure(loss, sample).gradient)
    error = np.linalg.norm(np.subtract(found, exact)) / np.linalg.norm(exact)
    assert error < 0.03


def direction_of(tensor: Any, sample: Sample) -> Any:
    shape = tuple(tensor.parameter.shape)
    return directions.direction(tensor.family, sample, tensor.index, shape).reshape(shape)


def test_following_measured_gradients_lowers_the_loss() -> None:
    model = models.mlp(6, 8, 1)
    probe = probe_of(model)
    target = INPUTS.sum(1, keepdim=True)

    def loss() -> Tensor:
        return nn.functional.mse_loss(model(INPUTS), target)

    first = float(loss().detach())
    for number in range(150):
        sample = Sample(5, number, 0)
        gradient = probe.measure(loss, sample).gradient
        for t in probe.perturbation.weights:
            t.values.sub_(0.01 * gradient * torch.from_numpy(direction_of(t, sample)).view_as(t.values))
    assert float(loss().detach()) < first / 4


@pytest.mark.parametrize(
    "kind", [float, torch.tensor, lambda x: torch.tensor([x], requires_grad=True), np.float64]
)
def test_the_loss_may_be_a_number_or_a_tensor(kind: Callable[[float], Any]) -> None:
    model = models.mlp()
    values = iter([0.75, 0.25])
    assert probe_of(model).measure(lambda: kind(next(values)), SAMPLE) == Measurement(0.75, 0.25, 0.25 / EPSILON)


@pytest.mark.parametrize(
    ("plus", "minus"),
    [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, math.inf), (math.inf, math.inf), (-math.inf, 1.0)],
)
def test_a_loss_that_is_not_finite_gives_a_gradient_that_is_not(plus: float, minus: float) -> None:
    model = models.mlp()
    before = everything(model)
    values = iter([plus, minus])
    assert not math.isfinite(probe_of_snapped(model).measure(lambda: next(values), SAMPLE).gradient)
    Weights.of(model, EPSILON)
    assert everything(model)[1:] == before[1:]


def probe_of_snapped(model: nn.Module) -> Probe:
    Weights.of(model, EPSILON)
    return probe_of(model)


def test_a_measurement_is_the_same_every_time() -> None:
    model = models.Mixed()
    probe = probe_of(model)
    loss = models.next_token_loss(model, models.tokens())
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    found = set()
    for _ in range(3):
        torch.manual_seed(4)
        for name, values in model.named_buffers():
            values.copy_(buffers[name])
        found.add(probe.measure(loss, SAMPLE))
    assert len(found) == 1


def test_the_context_is_around_both_sides() -> None:
    model = models.mlp()
    seen = []
    context = torch.autocast("cpu", torch.bfloat16)

    def loss() -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return model(INPUTS).float().square().mean()

    found = probe_of(model).measure(loss, SAMPLE, context)
    assert seen == [True, True]
    assert not torch.is_autocast_enabled("cpu")
    assert math.isfinite(found.gradient)


def test_an_outer_autocast_changes_no_measurement() -> None:
    model = models.opt().eval()
    probe = probe_of(model, 2.0**-5)
    ids = models.tokens()

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return models.next_token_loss(model, ids)()

    alone = probe.measure(loss, SAMPLE)
    around = probe.measure(loss, SAMPLE, torch.autocast("cpu", torch.bfloat16))
    assert around == alone


# What is left behind


@pytest.mark.parametrize(
    "build", [models.Mixed, models.llama, models.opt, models.gpt2, lambda: models.lora(models.llama())]
)
@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_a_probe_stays_in_the_weights(build: Callable[[], nn.Module], training: bool) -> None:
    model = build().train(training)
    modes = [m.training for m in model.modules()]
    probe = probe_of(model)
    before = {n: b for n, b in models.bits(model).items() if n in dict(model.named_parameters())}
    loss = models.next_token_loss(model, models.tokens())
    hooks = models.hooks(model)
    for number in range(5):
        probe.measure(loss, Sample(1, number, 0))
    after = models.bits(model)
    assert {name: after[name] for name in before} == before
    assert models.hooks(model) == hooks
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None and p.grad_fn is None for p in model.parameters())


def test_existing_gradients_are_not_touched() -> None:
    model = models.mlp()
    for p in model.parameters():
        p.grad = torch.full_like(p, 3.0)
    kept = [p.grad for p in model.parameters()]
    with torch.enable_grad():
        probe_of(model).measure(lambda: model(INPUTS).sum(), SAMPLE)
        assert torch.is_grad_enabled()
    for p, grad in zip(model.parameters(), kept, strict=True):
        assert p.grad is grad
        assert torch.equal(grad, torch.full_like(p, 3.0))


def test_the_loss_is_evaluated_twice_without_autograd() -> None:
    model = models.mlp()
    seen = []

    def loss() -> Tensor:
        out = model(INPUTS).sum()
        seen.append((torch.is_grad_enabled(), out.requires_grad))
        return out

    probe_of(model).measure(loss, SAMPLE)
    assert seen == [(False, False), (False, False)]


def test_both_sides_draw_the_same_and_generators_advance_once() -> None:
    model, plain = Noisy(), Noisy()
    probe = probe_of(model)
    start = models.generators()
    for number in range(3):
        probe.measure(lambda: model(INPUTS), Sample(1, number, 0))
    after = models.generators()
    assert model.drawn[0::2] == model.drawn[1::2]
    assert len(set(model.drawn)) == 3

    random.seed(0)
    np.random.seed(0)
    torch.set_rng_state(torch.tensor(start[0], dtype=torch.uint8))
    with torch.no_grad():
        for _ in range(3):
            plain(INPUTS)
    assert plain.drawn == model.drawn[0::2]
    assert models.generators() == after


def test_buffers_advance_once() -> None:
    model = Noisy()
    probe = probe_of(model)
    objects = {name: id(values) for name, values in model.named_buffers()}
    before = {name: values.clone() for name, values in model.named_buffers()}
    weights = probe.perturbation.weights
    moved = models.moved_copy(model, weights, SAMPLE, -EPSILON)
    probe.measure(lambda: model(INPUTS), SAMPLE)
    with torch.no_grad():
        moved(INPUTS)
    assert int(model.norm.num_batches_tracked) == 1
    assert torch.equal(model.replaced, torch.ones(3))
    assert torch.equal(model.hidden, torch.ones(2))
    for name, values in model.named_buffers():
        torch.testing.assert_close(values, dict(moved.named_buffers())[name], rtol=1e-4, atol=1e-6)
        assert not torch.equal(values, before[name])
    assert id(model.hidden) == objects["hidden"]


def test_buffers_in_evaluation_mode_do_not_advance() -> None:
    model = models.Mixed().eval()
    probe = probe_of(model)
    before = models.bits(model)
    probe.measure(models.next_token_loss(model, models.tokens()), SAMPLE)
    assert models.bits(model) == before


# How a probe may end


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
@pytest.mark.parametrize("evaluation", [0, 1])
@pytest.mark.parametrize("after_forward", [False, True])
def test_an_error_in_the_loss_leaves_everything_as_it_was(
    error: type[BaseException], evaluation: int, after_forward: bool
) -> None:
    model = Noisy()
    probe = probe_of(model)
    before = everything(model)
    calls = []

    def loss() -> Tensor:
        calls.append(1)
        if after_forward:
            model(INPUTS)
        if len(calls) == evaluation + 1:
            raise error
        return model(INPUTS)

    with pytest.raises((error, RuntimeError)):
        probe.measure(loss, SAMPLE)
    assert len(calls) == evaluation + 1
    assert everything(model) == before
    assert math.isfinite(probe.measure(lambda: model(INPUTS), SAMPLE).gradient)


@pytest.mark.parametrize("value", ["no number", torch.ones(2)])
def test_a_loss_that_is_no_number_leaves_everything_as_it_was(value: Any) -> None:
    model = Noisy()
    probe = probe_of(model)
    before = everything(model)

    def loss() -> Any:
        model(INPUTS)
        return value

    with pytest.raises((TypeError, ValueError, RuntimeError)):
        probe.measure(loss, SAMPLE)
    assert everything(model) == before


@pytest.mark.parametrize("evaluation", [0, 1])
def test_ctrl_c_in_the_loss_leaves_everything_as_it_was(evaluation: int) -> None:
    model = Noisy()
    probe = probe_of(model)
    before = everything(model)
    handler = signal.getsignal(signal.SIGINT)
    calls = []

    def loss() -> Tensor:
        out = model(INPUTS)
        calls.append(1)
        if len(calls) == evaluation + 1:
            os.kill(os.getpid(), signal.SIGINT)
        return out

    with pytest.raises(KeyboardInterrupt):
        probe.measure(loss, SAMPLE)
    assert everything(model) == before
    assert signal.getsignal(signal.SIGINT) is handler


PACKAGE_FILES = frozenset(
    m.__file__ for m in (shared_seed.probe, shared_seed.perturbation, shared_seed.interrupts)
)


def interrupted_at(line: int, run: Callable[[], object], files: frozenset[str]) -> bool:
    """Run with a Ctrl-C at the given line that is executed in some files; whether there was such a line.

    Lines of ``with`` are left out: they are traced once more when their block has ended, where no signal strikes.
    """
    left = line

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        code = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and not code.lstrip().startswith("with "):
            left -= 1
            if left == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            run()
    finally:
        sys.settrace(before)
    return left <= 0


def states_of(model: nn.Module) -> tuple[Any, ...]:
    parameters = {name for name, _ in model.named_parameters()}
    bits = models.bits(model)
    rest = (tuple(b for n, b in sorted(bits.items()) if n not in parameters), repr(models.generators()))
    return tuple(b for n, b in sorted(bits.items()) if n in parameters), rest


@pytest.mark.parametrize("checked", [False, True], ids=["first probe", "later probe"])
def test_ctrl_c_at_any_line_restores_weights_and_leaves_the_probe_undone_or_done(checked: bool) -> None:
    model = Noisy()
    probe = probe_of(model)
    handler = signal.getsignal(signal.SIGINT)
    probe.measure(lambda: model(INPUTS), SAMPLE)
    weights, undone = states_of(model)
    generators, buffers = shared_seed.probe.Generators(), shared_seed.probe._Buffers(model)
    probe.measure(lambda: model(INPUTS), SAMPLE)
    done = states_of(model)[1]

    line, wrong = 0, []
    while True:
        line += 1
        generators.restore()
        buffers.restore()
        probe.perturbation._checked = checked
        struck = interrupted_at(line, lambda: probe.measure(lambda: model(INPUTS), SAMPLE), PACKAGE_FILES)
        if models.hooks(model):
            gc.collect()  # A generator that was cut off tidies up when it goes.
        found, rest = states_of(model)
        if found != weights:
            wrong.append((line, "weights"))
        if rest not in (undone, done):
            wrong.append((line, "buffers or generators"))
        if models.hooks(model):
            wrong.append((line, "hooks"))
            for module in model.modules():
                module._forward_hooks.clear()
        if signal.getsignal(signal.SIGINT) is not handler:
            wrong.append((line, "handler"))
            signal.signal(signal.SIGINT, handler)
        if not struck:
            break
    assert wrong == []
    assert line > 50


def test_differences_from_one_evaluation_in_common_are_those_of_each_direction_alone() -> None:
    model = Noisy()
    probe = probe_of(model)
    before = everything(model)
    samples = [Sample(1, number, 0) for number in range(5)]
    generators, buffers = shared_seed.probe.Generators(), shared_seed.probe._Buffers(model)
    evaluated = []

    def loss() -> Tensor:
        evaluated.append(model(INPUTS))
        return evaluated[-1]

    together = probe.measure_along(loss, samples)
    assert len(evaluated) == 6
    after = states_of(model)[1]
    for sample, found in zip(samples, together, strict=True):
        generators.restore()
        buffers.restore()
        assert probe.measure_along(lambda: model(INPUTS), [sample]) == [found]
        assert found.gradient == (found.plus - found.minus) / probe.perturbation.epsilon
        # The pair's gradient has no part of the second order, which is small at a small distance.
        generators.restore()
        buffers.restore()
        pair = probe.measure(lambda: model(INPUTS), sample)
        assert pair.plus == found.plus
        assert found.gradient == pytest.approx(pair.gradient, rel=0.1, abs=0.02)
    generators.restore()
    buffers.restore()
    assert everything(model) == before
    assert after != states_of(model)[1]


def test_a_batch_without_a_loss_has_no_gradient_along_any_direction() -> None:
    probe = probe_of(Noisy())
    found = probe.measure_along(lambda: None, [SAMPLE, SAMPLE])
    assert [math.isnan(measured.gradient) for measured in found] == [True, True]


def test_ctrl_c_at_any_time_restores_weights() -> None:
    model = Noisy()
    probe = probe_of(model)
    weights, _ = states_of(model)
    handler = signal.getsignal(signal.SIGINT)
    generator = random.Random(3)
    interrupts, wrong = 0, []
    probe.measure(lambda: model(INPUTS), SAMPLE)
    timer = signal.setitimer(signal.ITIMER_REAL, 0)  # pytest-timeout's.
    tracer = sys.gettrace()
    sys.settrace(None)  # Coverage holds a lock here and there, which an interrupt would leave locked.
    clock = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for number in range(200):
            delay = generator.uniform(2e-5, 2e-3)
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                probe.measure(lambda: model(INPUTS), Sample(1, number, 0))
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupts += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            if states_of(model)[0] != weights:
                wrong.append(number)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, clock)
        signal.setitimer(signal.ITIMER_REAL, *timer)
        sys.settrace(tracer)
        # Between two instructions of `with` itself nobody can tidy up.
        torch.set_grad_enabled(True)
    assert wrong == []
    assert interrupts > 20
    assert signal.getsignal(signal.SIGINT) is handler
    assert math.isfinite(probe.measure(lambda: model(INPUTS), SAMPLE).gradient)
    assert models.hooks(model) == 0


def test_a_model_that_reads_a_matrix_elsewhere_is_refused_at_its_first_probe_and_left_clean() -> None:
    model = nn.ModuleDict({"body": nn.Linear(6, 6), "head": nn.Linear(6, 6, bias=False)})
    probe = probe_of(model)
    before = everything(model)

    def loss() -> Tensor:
        return nn.functional.linear(model["body"](INPUTS), model["head"].weight).square().mean()

    with pytest.raises(ModelError, match=r"'head\.weight' outside the module"):
        probe.measure(loss, SAMPLE)
    assert everything(model) == before
    assert math.isfinite(probe_of(model, dense=("head.weight",)).measure(loss, SAMPLE).gradient)


# epsilon


@pytest.mark.parametrize("epsilon", [1.0, 0.5, 2.0**-8, 2.0**-20])
def test_powers_of_two_are_good_steps(epsilon: float) -> None:
    check_epsilon(epsilon)


@pytest.mark.parametrize(
    ("epsilon", "said"),
    [
        (1e-3, "use 0.000976562"),
        (0.3, "use 0.25"),
        (3.0, "use 1"),
        (2.0, "use 1"),
        (1e300, "use 1"),
        (0.0, "use 0.00390625"),
        (-0.5, "use 0.00390625"),
        (2.0**-21, "use 9.53674e-07"),
        (1e-300, "use 9.53674e-07"),
        (math.nan, "use 0.00390625"),
        (math.inf, "use "),
        (-math.inf, "use 0.00390625"),
    ],
)
def test_other_steps_are_refused_with_the_nearest(epsilon: float, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_epsilon(epsilon)


def test_a_batch_without_a_loss_is_evaluated_once_and_measures_nothing() -> None:
    model = Noisy()
    probe = probe_of(model)
    weights = [p.detach().clone() for p in model.parameters()]
    calls: list[int] = []

    def loss() -> None:
        calls.append(1)
        model(INPUTS)

    measured = probe.measure(loss, SAMPLE)
    assert len(calls) == 1
    assert math.isnan(measured.gradient)
    assert math.isnan(measured.loss)
    assert all(torch.equal(p, before) for p, before in zip(model.parameters(), weights, strict=True))
    assert models.hooks(model) == 0
