"""A perturbed model computes what a copy with moved weights computes, and its matrices are never written."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from models import EPSILON, SAMPLE
from shared_seed import perturbation as perturbation_module
from shared_seed.errors import ModelError
from shared_seed.grid import LIMIT
from shared_seed.noise import Family, Sample
from shared_seed.perturbation import Perturbation
from shared_seed.weights import Choice, Weights

WIDE = 2.0**-5
"""A step so wide that a direction in the wrong place cannot hide in rounding."""


class Reused(nn.Module):
    """One Linear called twice, by position and by keyword, on one row and on many."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(input=self.linear(values)) + self.linear(values[0])


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, values: Tensor) -> Tensor:
        return self.attention(values, values, values, need_weights=False)[0]


def evaluated(model: nn.Module, inputs: Tensor) -> Callable[[nn.Module], Tensor]:
    def outputs(which: nn.Module) -> Tensor:
        out = which(inputs)
        return out if isinstance(out, Tensor) else out.logits

    model.eval()
    return outputs


FLOATS = torch.linspace(-1, 1, 60).view(10, 6)
SEQUENCES = torch.linspace(-1, 1, 120).view(4, 5, 6)

CASES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "linear": (lambda: nn.Linear(6, 5), FLOATS),
    "linear without bias": (lambda: nn.Linear(6, 5, bias=False), FLOATS),
    "linear on one vector": (lambda: nn.Linear(6, 5), FLOATS[0]),
    "linear on sequences": (lambda: nn.Linear(6, 5), SEQUENCES),
    "linear on nothing": (lambda: nn.Linear(6, 5), FLOATS[:0]),
    "reused linear": (Reused, FLOATS),
    "mlp": (models.mlp, FLOATS),
    "embedding": (lambda: nn.Embedding(models.VOCABULARY, 7), models.tokens()),
    "embedding with padding": (lambda: nn.Embedding(models.VOCABULARY, 7, padding_idx=4), models.tokens()),
    "conv1d": (lambda: nn.Conv1d(5, 3, 3), SEQUENCES),
    "conv2d": (lambda: nn.Conv2d(1, 3, 3), FLOATS.view(1, 1, 10, 6)),
    "layer norm": (lambda: nn.LayerNorm(6), FLOATS),
    "batch norm": (lambda: nn.BatchNorm1d(6), FLOATS),
    "attention": (Attending, SEQUENCES),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), SEQUENCES),
    "encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 2),
        SEQUENCES,
    ),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), FLOATS),
    "lstm": (lambda: Recurrent(), SEQUENCES),
    "mixed and tied": (models.Mixed, models.tokens()),
    "llama": (models.llama, models.tokens()),
    "llama, untied": (lambda: models.llama(tie_word_embeddings=False), models.tokens()),
    "opt": (models.opt, models.tokens()),
    "gpt2": (models.gpt2, models.tokens()),
    "adapter on llama": (lambda: models.lora(models.llama()), models.tokens()),
    "adapter on opt": (lambda: models.lora(models.opt()), models.tokens()),
    "adapter on gpt2": (lambda: models.lora(models.gpt2(), ("c_attn",)), models.tokens()),
}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(6, 4, batch_first=True)

    def forward(self, values: Tensor) -> Tensor:
        return self.cell(values)[0]


def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were so few that activations are always cheaper than weights."""
    monkeypatch.setattr(perturbation_module, "READ", 0.0)
    monkeypatch.setattr(perturbation_module, "WRITTEN", 0.0)


def many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were so many that all matrices are written that can be."""
    monkeypatch.setattr(perturbation_module, "READ", 1e9)


@pytest.fixture(params=[few_tokens, many_tokens], ids=lambda way: way.__name__, autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    request.param(monkeypatch)


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    build, inputs = CASES[request.param]
    return build(), inputs


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@torch.no_grad()
def test_both_sides_equal_a_copy_whose_weights_were_moved(case: tuple[nn.Module, Tensor]) -> None:
    model, inputs = case
    outputs = evaluated(model, inputs)
    weights = Weights.of(model, WIDE)
    perturbation = Perturbation(weights, WIDE)
    before, plain = models.bits(model), outputs(model)
    expected = {s: outputs(models.moved_copy(model, weights, SAMPLE, s * WIDE)) for s in (+1, -1)}
    with perturbation.along(SAMPLE) as move:
        for sign in (+1, -1, -1, +1):
            move(sign)
            with perturbation.checked():
                found = outputs(model)
            torch.testing.assert_close(found, expected[sign], rtol=2e-5, atol=2e-5)
        move(0)
        assert torch.equal(outputs(model), plain)
    assert models.bits(model) == before
    assert torch.equal(outputs(model), plain)
    if plain.numel():
        assert not torch.allclose(expected[+1], expected[-1], atol=1e-3)


@pytest.mark.parametrize("name", ["linear", "mlp", "embedding", "mixed and tied", "llama", "opt", "gpt2"])
@torch.no_grad()
def test_dense_directions_for_matrices_do_the_same_in_place(name: str) -> None:
    build, inputs = CASES[name]
    model = build()
    outputs = evaluated(model, inputs)
    weights = Weights.of(model, WIDE, Choice(dense=("*",)))
    assert {t.family for t in weights} == {Family.DENSE}
    perturbation = Perturbation(weights, WIDE)
    for sign in (+1, -1):
        expected = outputs(models.moved_copy(model, weights, SAMPLE, sign * WIDE))
        with perturbation.along(SAMPLE) as move:
            move(sign)
            assert torch.equal(outputs(model), expected)


@pytest.mark.parametrize("name", ["linear", "embedding", "llama", "gpt2", "adapter on opt"])
@torch.no_grad()
def test_with_few_tokens_matrices_are_not_written_and_dense_tensors_are(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_tokens(monkeypatch)
    build, inputs = CASES[name]
    model = build()
    outputs = evaluated(model, inputs)
    weights = Weights.of(model, EPSILON)
    perturbation = Perturbation(weights, EPSILON)
    matrices = [t for t in weights if t.family is Family.RANK1]
    before = {
        t.name: (t.parameter._version, t.parameter.data_ptr(), t.parameter.detach().clone()) for t in weights
    }
    with perturbation.along(SAMPLE) as move:
        for sign in (+1, -1):
            move(sign)
            outputs(model)
            for t in matrices:
                version, address, values = before[t.name]
                assert (t.parameter._version, t.parameter.data_ptr()) == (version, address)
                assert torch.equal(t.parameter, values)
            for t in weights:
                if t.family is Family.DENSE:
                    assert torch.equal((t.parameter - before[t.name][2]).abs(), torch.full_like(t.values, EPSILON))
    assert matrices


@torch.no_grad()
def test_with_many_tokens_all_matrices_but_the_first_are_in_place_and_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many_tokens(monkeypatch)
    model, ids = models.llama(), models.tokens()
    outputs = evaluated(model, ids)
    weights = Weights.of(model, EPSILON)
    start, before = copy.deepcopy(model), models.bits(model)
    embedding = {t.name for t in weights if all(isinstance(m, nn.Embedding) for m in t.users) and t.users}
    with Perturbation(weights, EPSILON).along(SAMPLE) as move:
        for sign in (+1, -1):
            move(sign)
            outputs(model)
            moved = dict(models.moved_copy(start, weights, SAMPLE, sign * EPSILON).named_parameters())
            still = dict(start.named_parameters())
            for t in weights:
                assert torch.equal(t.parameter, (still if t.name in embedding else moved)[t.name]), t.name
                assert not t.parameter.requires_grad or t.name in embedding
        move(0)
        assert models.bits(model) == before
    assert models.bits(model) == before
    assert all(t.parameter.requires_grad for t in weights)


def test_the_choice_is_by_tokens_and_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perturbation_module, "READ", 0.6)
    monkeypatch.setattr(perturbation_module, "WRITTEN", 0.3)
    model = models.llama()
    weights = {t.name: t for t in Weights.of(model, EPSILON) if t.family is Family.RANK1}
    down = next(t for name, t in weights.items() if "down_proj" in name)
    rows, columns = down.storage.shape
    edge = rows * columns / (0.6 * columns + 0.3 * rows)
    assert not perturbation_module._is_cheaper_written(down, int(edge))
    assert perturbation_module._is_cheaper_written(down, int(edge) + 1)


@torch.no_grad()
def test_no_parameter_object_is_replaced_and_no_hook_is_left() -> None:
    model = models.opt()
    outputs = evaluated(model, models.tokens())
    parameters, hooks = list(map(id, model.parameters())), models.hooks(model)
    perturbation = Perturbation(Weights.of(model, EPSILON), EPSILON)
    with perturbation.along(SAMPLE) as move:
        move(1)
        outputs(model)
    assert list(map(id, model.parameters())) == parameters
    assert models.hooks(model) == hooks


@torch.no_grad()
def test_different_samples_are_different_directions() -> None:
    model = nn.Linear(6, 5)
    perturbation = Perturbation(Weights.of(model, WIDE), WIDE)
    seen = []
    for sample in (
        SAMPLE,
        Sample(SAMPLE.key, 8, 1),
        Sample(SAMPLE.key, 7, 2),
        Sample(SAMPLE.key + 1, 7, 1),
        SAMPLE,
    ):
        with perturbation.along(sample) as move:
            move(1)
            seen.append(model(FLOATS))
    assert torch.equal(seen[0], seen[-1])
    for i in range(4):
        assert not any(torch.allclose(seen[i], seen[j]) for j in range(i))


@torch.no_grad()
def test_hooks_of_others_see_the_perturbed_output() -> None:
    model = nn.Linear(6, 5)
    seen: list[Tensor] = []
    model.register_forward_hook(lambda module, args, out: seen.append(out.clone()))
    perturbation = Perturbation(Weights.of(model, WIDE), WIDE)
    with perturbation.along(SAMPLE) as move:
        move(1)
        out = model(FLOATS)
    assert torch.equal(seen[0], out)
    assert models.hooks(model) == 1


def test_an_error_inside_leaves_weights_and_hooks_as_they_were() -> None:
    model = models.mlp()
    perturbation = Perturbation(Weights.of(model, EPSILON), EPSILON)
    before = models.bits(model)
    for sign in (+1, -1, 0):
        with pytest.raises(ZeroDivisionError), perturbation.along(SAMPLE) as move:  # noqa: PT012
            move(sign)
            raise ZeroDivisionError
        assert models.bits(model) == before
        assert models.hooks(model) == 0


def test_a_weight_at_the_edge_of_its_grid_comes_back() -> None:
    # Updates may bring weights anywhere on the grid; half a step further, fp32 holds only every other point.
    model = nn.LayerNorm(4)
    weights = Weights.of(model, EPSILON)
    weight = weights.tensors[0]
    reserve = int(EPSILON / weight.grid.unit)
    highest = LIMIT - reserve - 1
    model.weight.data.copy_(torch.tensor([highest, -highest, 5 - highest, highest - 6]) * weight.grid.unit)
    before = models.bits(model)
    with Perturbation(weights, EPSILON).along(SAMPLE) as move:
        move(1)
        move(-1)
    assert models.bits(model) == before


# What the hooks do not see


class PastTheModule(nn.Module):
    """Uses a Linear's weight without calling the Linear, in one of many ways."""

    def __init__(self, use: Callable[[Tensor, Tensor], Tensor], also_call: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6, bias=False)
        self.use = use
        self.also_call = also_call

    def forward(self, values: Tensor) -> Tensor:
        out = self.use(values, self.linear.weight)
        return out + self.linear(values) if self.also_call else out


USES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "functional.linear": nn.functional.linear,
    "keyword": lambda x, w: nn.functional.linear(x, weight=w),
    "matmul": lambda x, w: torch.matmul(x, w),
    "@": lambda x, w: x @ w,
    "w @": lambda x, w: (w @ x.T).T,
    "transposed by .T": lambda x, w: x @ w.T,
    "transposed by .mT": lambda x, w: x @ w.mT,
    "transposed by .t()": lambda x, w: x @ w.t(),
    "einsum": lambda x, w: torch.einsum("ri,oi->ro", x, w),
    "concatenated": lambda x, w: nn.functional.linear(x, torch.cat([w, w]))[:, :6],
    "stacked": lambda x, w: x @ torch.stack([w, w])[0],
    "indexed": lambda x, w: x * w[0],
    "penalised": lambda x, w: x + (w**2).sum(),
    "its norm": lambda x, w: x * w.norm(),
    ".data": lambda x, w: x @ w.data,
    "detached": lambda x, w: x @ w.detach(),
    "chunked": lambda x, w: x @ torch.cat(w.chunk(2)),
    "cast": lambda x, w: (x.double() @ w.double()).float(),
}


@pytest.mark.parametrize("also_call", [False, True], ids=["only so", "and called too"])
@pytest.mark.parametrize("use", list(USES))
@torch.no_grad()
def test_a_matrix_used_past_its_module_is_noticed_and_works_as_dense(use: str, also_call: bool) -> None:
    model = PastTheModule(USES[use], also_call)
    perturbation = Perturbation(Weights.of(model, EPSILON), EPSILON)
    with pytest.raises(ModelError, match=r"'linear\.weight' outside the module.*dense=\['linear\.weight'\]"):  # noqa: PT012, SIM117
        with perturbation.along(SAMPLE) as move:
            move(1)
            with perturbation.checked():
                model(FLOATS)
    assert models.hooks(model) == 0

    weights = Weights.of(model, WIDE, Choice(dense=("linear.weight",)))
    expected = models.moved_copy(model, weights, SAMPLE, WIDE)(FLOATS)
    perturbation = Perturbation(weights, WIDE)
    with perturbation.along(SAMPLE) as move:
        move(1)
        with perturbation.checked():
            torch.testing.assert_close(model(FLOATS), expected)


def looking(x: Tensor, w: Tensor) -> Tensor:
    assert w.shape == (6, 6)
    assert w.size(0) == w.numel() // 6
    assert w.requires_grad
    assert not w.is_sparse
    assert w.stride() == (6, 1)
    assert w.is_floating_point()
    assert w.ndim == w.dim() == 2
    return x.to(w.dtype).to(w.device)


@torch.no_grad()
def test_looking_at_a_matrix_without_computing_with_it_is_fine() -> None:
    model = PastTheModule(looking, also_call=True)
    perturbation = Perturbation(Weights.of(model, EPSILON), EPSILON)
    with perturbation.along(SAMPLE) as move:
        move(1)
        with perturbation.checked():
            out = model(FLOATS)
    assert out.shape == (10, 6)


@torch.no_grad()
def test_the_check_is_repeated_until_it_has_passed() -> None:
    model = PastTheModule(USES["matmul"], also_call=False)
    perturbation = Perturbation(Weights.of(model, EPSILON), EPSILON)
    for _ in range(2):
        with pytest.raises(ModelError), perturbation.along(SAMPLE), perturbation.checked():
            model(FLOATS)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(6, 6)
        self.idle = nn.Linear(6, 6)

    def forward(self, values: Tensor) -> Tensor:
        return self.used(values)


@torch.no_grad()
def test_a_matrix_that_is_not_used_at_all_is_fine() -> None:
    model = Unused()
    weights = Weights.of(model, WIDE)
    perturbation = Perturbation(weights, WIDE)
    expected = models.moved_copy(model, weights, SAMPLE, -WIDE)(FLOATS)
    with perturbation.along(SAMPLE) as move:
        move(-1)
        with perturbation.checked():
            torch.testing.assert_close(model(FLOATS), expected)


# Precision


def bf16_outputs(model: nn.Module, inputs: Tensor) -> Any:
    out = model(inputs)
    return (out if isinstance(out, Tensor) else out.logits).float()


@pytest.mark.parametrize("name", ["mlp", "conv2d", "mixed and tied", "llama", "opt", "gpt2", "adapter on llama"])
@torch.no_grad()
def test_in_autocast_both_sides_are_near_those_of_moved_copies(name: str) -> None:
    # An outer autocast keeps its casts from one side to the other: those of dense tensors must not be stale.
    build, inputs = CASES[name]
    model = build().eval()
    weights = Weights.of(model, WIDE)
    perturbation = Perturbation(weights, WIDE)
    copies = {s: models.moved_copy(model, weights, SAMPLE, s * WIDE) for s in (+1, -1)}
    exact = {s: bf16_outputs(c, inputs) for s, c in copies.items()}
    found = {}
    with torch.autocast("cpu", torch.bfloat16), perturbation.along(SAMPLE) as move:
        for sign in (+1, -1):
            move(sign)
            found[sign] = bf16_outputs(model, inputs)
    difference = exact[+1] - exact[-1]
    error = (found[+1] - found[-1]) - difference
    assert float(error.norm() / difference.norm()) < 0.15


@pytest.mark.parametrize("build", [lambda: nn.Conv1d(5, 4, 3), lambda: nn.Linear(6, 4)], ids=["conv", "bias"])
@torch.no_grad()
def test_in_autocast_a_dense_tensor_is_never_read_stale(build: Callable[[], nn.Module]) -> None:
    model = build()
    weights = Weights.of(model, WIDE, Choice(dense=("*",)))
    expected = []
    for sign in (+1, -1):
        moved = models.moved_copy(model, weights, SAMPLE, sign * WIDE)
        with torch.autocast("cpu", torch.bfloat16):
            expected.append(moved(SEQUENCES))
    found = []
    with torch.autocast("cpu", torch.bfloat16), Perturbation(weights, WIDE).along(SAMPLE) as move:
        for sign in (+1, -1):
            move(sign)
            found.append(model(SEQUENCES))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_copies_made_in_this_file_are_of_their_own() -> None:
    # moved_copy must not move the model itself, or every comparison above would be with itself.
    model = models.mlp()
    before = models.bits(copy.deepcopy(model))
    models.moved_copy(model, Weights.of(copy.deepcopy(model), EPSILON), SAMPLE, 1.0)
    assert models.bits(model) == before
