"""Which parameters get which directions, and how they come to lie on their grids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import models
from models import EPSILON
from shared_seed.errors import GridError, ModelError
from shared_seed.grid import LIMIT
from shared_seed.noise import Family
from shared_seed.weights import Choice, Weights, frozen_digest, is_transposed


def families(model: nn.Module, dense: tuple[str, ...] = ()) -> dict[str, str]:
    return {t.name: str(t.family) for t in Weights.of(model, EPSILON, Choice(dense=tuple(dense)))}


class Own(nn.Module):
    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.own = nn.Parameter(values)


class Tied(nn.Module):
    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.other = other
        self.other.weight = self.embed.weight


class DoublingLinear(nn.Linear):
    def forward(self, values: Tensor) -> Tensor:
        return super().forward(2 * values)


class RenamedLinear(nn.Linear):
    """A subclass that leaves forward alone."""


class Functional(nn.Module):
    """Ties a Linear's weight to a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4, bias=False)
        self.same = self.linear.weight


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Linear(3, 4), {"weight": "rank1", "bias": "dense"}),
        (nn.Linear(3, 4, bias=False), {"weight": "rank1"}),
        (nn.Embedding(5, 4, padding_idx=0), {"weight": "rank1"}),
        (nn.Conv1d(2, 3, 3), {"weight": "dense", "bias": "dense"}),
        (nn.Conv2d(2, 3, 3, bias=False), {"weight": "dense"}),
        (nn.LayerNorm(4), {"weight": "dense", "bias": "dense"}),
        (nn.BatchNorm1d(4), {"weight": "dense", "bias": "dense"}),
        (nn.EmbeddingBag(5, 4), {"weight": "dense"}),
        (Own(torch.ones(2, 3)), {"own": "dense"}),
        (DoublingLinear(3, 4, bias=False), {"weight": "dense"}),
        (RenamedLinear(3, 4, bias=False), {"weight": "rank1"}),
        (Tied(nn.Linear(4, 5, bias=False)), {"embed.weight": "rank1"}),
        (Tied(DoublingLinear(4, 5, bias=False)), {"embed.weight": "dense"}),
        (Tied(nn.EmbeddingBag(5, 4)), {"embed.weight": "dense"}),
        (Functional(), {"same": "dense"}),
        (
            nn.MultiheadAttention(4, 2),
            {
                "in_proj_weight": "dense",
                "in_proj_bias": "dense",
                "out_proj.weight": "dense",
                "out_proj.bias": "dense",
            },
        ),
        (
            nn.utils.parametrizations.weight_norm(nn.Linear(3, 4, bias=False)),
            {"parametrizations.weight.original0": "dense", "parametrizations.weight.original1": "dense"},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_only_matrices_that_their_module_applies_get_rank_1_directions(model: nn.Module, expected: Any) -> None:
    assert families(model) == expected


def test_conv1d_of_gpt2_is_rank_1_and_transposed() -> None:
    model = models.gpt2()
    found = families(model)
    matrices = [n for n in found if n.endswith("weight") and "ln_" not in n]
    assert {found[n] for n in matrices} == {"rank1"}
    assert {f for n, f in found.items() if n not in matrices} == {"dense"}
    assert is_transposed(model.transformer.h[0].mlp.c_fc)
    assert not is_transposed(nn.Linear(2, 2))


def test_opts_positions_override_forward_and_so_are_dense() -> None:
    found = families(models.opt())
    assert found["model.decoder.embed_positions.weight"] == "dense"
    assert found["model.decoder.embed_tokens.weight"] == "rank1"
    assert "lm_head.weight" not in found


@pytest.mark.parametrize(("build", "users"), [(models.llama, 2), (models.opt, 2), (models.gpt2, 2)])
def test_a_tied_head_is_one_parameter_with_two_users(build: Any, users: int) -> None:
    weights = Weights.of(build(), EPSILON)
    embedding = next(t for t in weights if t.name.endswith(("embed_tokens.weight", "wte.weight")))
    assert len(embedding.users) == users


@pytest.mark.parametrize("build", [models.llama, models.opt])
def test_an_adapter_trains_only_its_own_matrices(build: Any) -> None:
    found = families(models.lora(build()))
    assert len(found) == 8
    assert all("lora_" in name for name in found)
    assert set(found.values()) == {"rank1"}


@pytest.mark.parametrize(
    ("patterns", "dense"),
    [
        ((), set()),
        (("0.weight",), {"0.weight"}),
        (("*.weight",), {"0.weight", "2.weight"}),
        (("2.*",), {"2.weight"}),
    ],
)
def test_shell_patterns_make_matrices_dense(patterns: tuple[str, ...], dense: set[str]) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    found = families(model, patterns)
    assert {name for name, family in found.items() if family == "dense"} == dense


def test_frozen_parameters_are_left_out_and_untouched() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    before = models.bits(model[0])
    weights = Weights.of(model, EPSILON)
    assert [t.name for t in weights] == ["1.weight", "1.bias"]
    assert [t.index for t in weights] == [0, 1]
    assert weights.count == 12
    assert models.bits(model[0]) == before


@pytest.mark.parametrize("largest", [0.0, 1e-6, 0.3, 1.0, 1.9, 2.0, 37.0, 1000.0])
def test_snapping_moves_by_at_most_half_a_unit_and_leaves_headroom(largest: float) -> None:
    values = torch.linspace(-largest, largest, 1001)
    model = Own(values.clone())
    (entry,) = Weights.of(model, EPSILON)
    units = model.own.detach().double() / entry.grid.unit
    assert torch.equal(units, units.round())
    assert float((model.own.detach().double() - values.double()).abs().max()) <= entry.grid.unit / 2
    assert entry.bound == int(units.abs().max())
    assert entry.bound <= LIMIT // 4
    assert float(np.ldexp(EPSILON, entry.grid.exponent)).is_integer()


def test_snapping_twice_changes_nothing() -> None:
    model = models.Mixed()
    first = Weights.of(model, EPSILON)
    before, exponents = models.bits(model), first.exponents.tolist()
    second = Weights.of(model, EPSILON)
    assert models.bits(model) == before
    assert second.exponents.tolist() == exponents


def test_snapping_leaves_no_negative_zeros() -> None:
    # -0.0 + x - x is +0.0: bits that could not be restored.
    model = Own(torch.tensor([-0.0, -1e-12, 1e-12, 0.25]))
    Weights.of(model, EPSILON)
    assert not bool(torch.signbit(model.own).any())


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (1, 1), (2, 3, 4, 5)])
def test_any_shape_can_be_trained(shape: tuple[int, ...]) -> None:
    model = Own(torch.full(shape, 0.5))
    (entry,) = Weights.of(model, EPSILON)
    assert entry.parameter.shape == shape
    assert torch.equal(model.own, torch.full(shape, 0.5))
    assert entry.bound == (int(0.5 / entry.grid.unit) if model.own.numel() else 0)


def test_views_are_made_contiguous_with_the_same_values() -> None:
    values = torch.arange(12.0).view(3, 4).T
    model = Own(values)
    (entry,) = Weights.of(model, EPSILON)
    assert model.own.is_contiguous()
    assert torch.equal(model.own, values)
    assert entry.parameter is model.own


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        (nn.Linear(2, 2).half(), ModelError, r"'weight' is torch.float16; expected torch.float32.*bfloat16"),
        (nn.Linear(2, 2, device="meta"), ModelError, "'weight' is on the meta device.*freeze it"),
        (nn.Linear(2, 2).to(torch.float64), ModelError, r"torch.float64; expected torch.float32"),
        (nn.Linear(2, 2).requires_grad_(False), ModelError, "no parameter of the model requires grad"),
        (nn.ReLU(), ModelError, "no parameter of the model requires grad"),
        (nn.Embedding(4, 2, max_norm=1.0), ModelError, "max_norm"),
        (Own(torch.tensor([1.0, float("nan")])), GridError, "holds nan, expected finite"),
        (Own(torch.tensor([1.0, float("-inf")])), GridError, "holds inf, expected finite"),
        (Own(torch.tensor([1e9])), GridError, "raise epsilon"),
    ],
    ids=["float16", "meta", "float64", "frozen", "nothing", "max_norm", "nan", "infinite", "huge"],
)
def test_models_that_cannot_be_trained_are_refused(model: nn.Module, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Weights.of(model, EPSILON)


def test_a_frozen_bf16_base_is_fine() -> None:
    model = nn.Sequential(nn.Linear(2, 2).to(torch.bfloat16).requires_grad_(False), nn.Linear(2, 2))
    assert len(Weights.of(model, EPSILON)) == 2


def test_the_digest_changes_with_any_bit() -> None:
    model = models.Mixed()
    weights = Weights.of(model, EPSILON)
    seen = {weights.digest()}
    assert weights.digest() in seen
    for t in weights:
        raw = t.values.view(-1).view(torch.int32)
        for element in (0, raw.numel() // 2, raw.numel() - 1):
            for bit in (0, 13, 30):
                raw[element] ^= 1 << bit
                seen.add(weights.digest())
                raw[element] ^= 1 << bit
    elements = sum(len({0, t.values.numel() // 2, t.values.numel() - 1}) for t in weights)
    assert len(seen) == 1 + 3 * elements


def test_specs_say_name_shape_family_and_first_bits() -> None:
    model = models.mlp()
    first = Weights.of(model, EPSILON).specs()
    assert [s.name for s in first] == [n for n, _ in model.named_parameters()]
    assert [s.shape for s in first] == [tuple(p.shape) for p in model.parameters()]
    assert first[0].family is Family.RANK1
    model[0].weight.data[0, 0] += 0.5
    second = Weights.of(model, EPSILON).specs()
    assert [a.digest == b.digest for a, b in zip(first, second, strict=True)] == [False] + [True] * (
        len(first) - 1
    )


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (lambda m: m[0].weight.data[0, 0].add_(1), True),
        (lambda m: m[1].running_mean.add_(1), True),
        (lambda m: m[1].num_batches_tracked.add_(1), True),
        (lambda m: m[0].to(torch.float64), True),
        (lambda m: m[2].weight.data.add_(1), False),
    ],
    ids=["frozen weight", "buffer", "integer buffer", "dtype", "trained weight"],
)
def test_the_frozen_digest_covers_all_but_what_is_trained(change: Any, differs: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    weights = Weights.of(model, EPSILON)
    before = frozen_digest(model, weights)
    change(model)
    assert (frozen_digest(model, weights) != before) is differs


def test_a_tied_trained_weight_is_in_no_frozen_digest() -> None:
    model = Tied(nn.Linear(4, 5, bias=False))
    weights = Weights.of(model, EPSILON)
    before = frozen_digest(model, weights)
    model.embed.weight.data.add_(1)
    assert frozen_digest(model, weights) == before
