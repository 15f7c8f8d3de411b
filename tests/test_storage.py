"""bfloat16 and its low bits hold fp32 exactly, and training on them is training on fp32, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

import models
from models import EPSILON, SAMPLE
from shared_seed import decay, directions, exact, storage
from shared_seed.errors import HeadroomError, ManifestMismatchError
from shared_seed.grid import Grid
from shared_seed.noise import Sample
from shared_seed.perturbation import Perturbation
from shared_seed.storage import Split, Storage, Whole
from shared_seed.weights import Choice, Weights

LARGEST_ON_A_GRID = 2.0**24
"""A grid must hold epsilon, which is 1 at most, so that its unit is, too."""


def split_of(values: Tensor) -> Split:
    """The storage of fp32 values, by way of its own writing."""
    made = Split(torch.zeros(values.shape, dtype=torch.bfloat16))
    flat = values.reshape(-1)
    for start, piece in made.pieces():
        piece.copy_(flat[start : start + len(piece)])
    return made


def one_by_one(number: float) -> tuple[int, int]:
    """High and low bits as the definition has them, in integers without a size."""
    bits = int(np.float32(number).view(np.uint32))
    high = (bits + 0x8000) >> 16
    return high, bits - (high << 16)


floats = st.floats(width=32, min_value=-LARGEST_ON_A_GRID, max_value=LARGEST_ON_A_GRID, allow_subnormal=False)


@given(values=arrays.arrays(np.float32, st.integers(0, 40), elements=floats))
def test_split_values_come_back_and_are_as_defined(values: np.ndarray[Any, Any]) -> None:
    kept = split_of(torch.from_numpy(values))
    assert kept.exact().numpy().tobytes() == values.tobytes()
    expected = [one_by_one(float(v)) for v in values]
    assert [int(h) & 0xFFFF for h in kept.values.view(torch.int16)] == [high for high, _ in expected]
    assert kept.low.tolist() == [low for _, low in expected]
    assert torch.isfinite(kept.values).all()


@given(values=arrays.arrays(np.float32, st.integers(1, 40), elements=floats))
def test_the_forward_sees_the_nearest_bfloat16(values: np.ndarray[Any, Any]) -> None:
    seen = split_of(torch.from_numpy(values)).values.double().numpy()
    nearest = torch.from_numpy(values).bfloat16().double().numpy()
    exact = values.astype(np.float64)
    # Both are nearest; halves may go either way.
    assert (np.abs(seen - exact) == np.abs(nearest - exact)).all()


@pytest.mark.parametrize("exponent", range(20, -1, -4))
def test_the_edges_of_every_grid_stay_finite(exponent: int) -> None:
    unit = Grid(exponent).unit
    edges = torch.tensor([(2**24 - 1) * unit, -(2**24 - 1) * unit, unit, -unit, 0.0])
    kept = split_of(edges)
    assert torch.equal(kept.exact(), edges)
    assert torch.isfinite(kept.values).all()


@pytest.mark.parametrize("shape", [(0,), (3,), (0, 4), (4, 0), (5, 7), (700, 512), (3, 2, 5), (300_000,)])
@pytest.mark.parametrize("kind", [Whole, Split])
def test_pieces_and_rows_cover_everything_once(shape: tuple[int, ...], kind: Callable[[Tensor], Storage]) -> None:
    # Multiples of 2**-8 below 2**-1 are bfloat16 too.
    start = (torch.arange(torch.Size(shape).numel()) % 127 / 256).reshape(shape)
    kept = kind(start.bfloat16() if kind is Split else start.clone())
    for first, piece in kept.pieces():
        piece += torch.arange(first, first + len(piece)) % 3
    expected = start + (torch.arange(start.numel()) % 3).view(shape)
    assert torch.equal(kept.exact(), expected)
    assert torch.equal(torch.cat([torch.zeros(0), *kept.read()]), expected.view(-1))
    assert kept.largest() == (float(expected.abs().max()) if expected.numel() else 0.0)
    if len(shape) == 2:
        for rows, block in kept.rows():
            assert torch.equal(block, expected[rows])
            block += torch.arange(rows.start, rows.stop)[:, None]
        assert torch.equal(kept.exact(), expected + torch.arange(shape[0])[:, None])


@pytest.mark.parametrize("values", [[1.0, float("nan")], [float("nan"), 1.0], [float("-inf"), 2.0]])
def test_the_largest_tells_of_what_is_not_finite(values: list[float]) -> None:
    for kept in (Whole(torch.tensor(values)), Split(torch.tensor(values, dtype=torch.bfloat16))):
        assert not np.isfinite(kept.largest())


def rounded(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The same weights in bfloat16, and in float32."""
    halves = model.bfloat16()
    return halves, copy.deepcopy(halves).float()


BUILDS: dict[str, Callable[[], nn.Module]] = {
    "llama": models.llama,
    "gpt2": models.gpt2,
    "mixed": models.Mixed,
    "one wide matrix": lambda: nn.Linear(700, 900),
    "one long vector": lambda: nn.LayerNorm(300_001),
}

messages = st.lists(st.tuples(st.sampled_from([0.25, 1e-3, 3e-2]), st.binary(min_size=1, max_size=6)), max_size=4)


@pytest.mark.parametrize("name", BUILDS)
@given(sent=messages)
def test_replicas_in_bfloat16_and_float32_are_identical(name: str, sent: list[tuple[float, bytes]]) -> None:
    half, whole = (models.replica_of(model, -6) for model in rounded(BUILDS[name]()))
    assert half.manifest.tensors == whole.manifest.tensors
    assert half.digest() == whole.digest()
    batch = [models.message(1, number, rate, codes) for number, (rate, codes) in enumerate(sent)]
    start = half.digest()
    try:
        whole.apply(batch)
    except HeadroomError:
        with pytest.raises(HeadroomError):
            half.apply(batch)
        assert half.digest() == start
        return
    half.apply(batch[::-1])
    assert half.digest() == whole.digest()
    for a, b in zip(half.weights, whole.weights, strict=True):
        assert torch.equal(a.values, b.values)
        assert a.bound == b.bound
        assert a.parameter.dtype is torch.bfloat16
    half.apply(batch, sign=-1)
    assert half.digest() == start


def test_a_whole_copy_is_never_made() -> None:
    model = nn.Linear(1024, 4096, bias=False).bfloat16()
    loaded = []

    class Watching(Split):
        def _load(self, part: slice) -> Tensor:
            piece = Split._load(self, part)
            loaded.append(piece.numel())
            return piece

    replica = models.replica_of(model)
    (tensor,) = replica.weights
    tensor.storage = Watching(tensor.parameter, tensor.storage.low)
    replica.apply([models.message(1, 0, 1e-3, b"\x42\x17")])
    replica.weights.widen(EPSILON)
    replica.digest()
    decay.projected(replica.weights, {"weight": 0.1}, SAMPLE)
    assert max(loaded) == exact.PIECE < tensor.parameter.numel()


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixed"])
@torch.no_grad()
def test_dense_tensors_are_moved_to_the_nearest_and_come_back(name: str) -> None:
    half, whole = rounded(BUILDS[name]())
    ours, theirs = (Weights.of(model, EPSILON, Choice(dense=("*",))) for model in (half, whole))
    # Low bits that are not zero.
    for weights in (ours, theirs):
        for t in weights:
            for start, piece in t.storage.pieces():
                piece += t.grid.unit * (torch.arange(start, start + len(piece)) % 1000)
    before = models.bits(half), ours.digest()
    assert before[1] == theirs.digest()
    here, there = Perturbation(ours, EPSILON), Perturbation(theirs, EPSILON)
    with here.along(SAMPLE) as move, there.along(SAMPLE) as follow:
        for sign in (+1, -1, -1, 0, +1):
            move(sign)
            follow(sign)
            for a, b in zip(ours, theirs, strict=True):
                assert torch.equal(a.values, b.values)
                assert (a.parameter.float() - b.parameter).abs().max() <= b.parameter.abs().max() / 256
    assert (models.bits(half), ours.digest()) == before


WIDE = 2.0**-3


@pytest.mark.parametrize("context", ["plain", "autocast"])
@pytest.mark.parametrize("build", [models.llama, models.opt, models.gpt2])
@torch.no_grad()
def test_a_probe_in_bfloat16_measures_what_moved_float32_weights_give(build: Any, context: str) -> None:
    half, whole = rounded(build().eval())
    weights = Weights.of(half, WIDE)
    same = Weights.of(whole, WIDE)
    ids = models.tokens(8)
    perturbation = Perturbation(weights, WIDE)

    def logits(model: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=context == "autocast"):
            return torch.as_tensor(model(ids).logits).float()

    plain = whole(ids).logits
    for sample in (SAMPLE, Sample(1, 2, 3)):
        found, expected = {}, {}
        with perturbation.along(sample) as move:
            for sign in (+1, -1):
                move(sign)
                with perturbation.checked():
                    found[sign] = logits(half)
                expected[sign] = models.moved_copy(whole, same, sample, sign * WIDE)(ids).logits
        for sign in (+1, -1):
            error = (found[sign] - expected[sign]).norm() / (expected[sign] - plain).norm()
            assert error < 0.05


def test_low_bits_are_taken_up() -> None:
    replica = models.replica_of(models.llama().bfloat16())
    replica.apply([models.message(1, 0, 1e-3, b"\x42\x17")])
    low = {name: bits.clone() for name, bits in replica.weights.low().items()}
    exponents = {t.name: t.grid.exponent for t in replica.weights}
    model = models.llama().bfloat16()
    model.load_state_dict({name: t.parameter.detach() for t in replica.weights for name in t.names})
    again = Weights.of(model, EPSILON, Choice(exponents=exponents, low=low))
    assert again.digest() == replica.digest()
    assert Weights.of(model, EPSILON, Choice(exponents=exponents)).digest() != replica.digest()


@pytest.mark.parametrize(
    "model",
    [nn.Linear(2, 3, bias=False), nn.Linear(3, 3, bias=False).bfloat16()],
    ids=["float32", "another shape"],
)
def test_low_bits_of_something_else_are_refused(model: nn.Module) -> None:
    low = {"weight": torch.zeros(3, 2, dtype=torch.int16)}
    with pytest.raises(ManifestMismatchError, match=r"low bits for a torch\.bfloat16 parameter 'weight'"):
        Weights.of(model, EPSILON, Choice(low=low))


def test_a_model_of_both_kinds_trains_both() -> None:
    model = models.mlp().bfloat16()
    model[2].float()
    weights = Weights.of(model, EPSILON)
    assert {type(t.storage) for t in weights} == {Whole, Split}
    assert set(weights.low()) == {t.name for t in weights if t.parameter.dtype is torch.bfloat16}


def test_decay_is_projected_alike() -> None:
    half, whole = rounded(models.llama())
    found = [
        decay.projected(weights, {t.name: 0.1 for t in weights}, SAMPLE)
        for weights in (Weights.of(half, EPSILON), Weights.of(whole, EPSILON))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert directions.Family.DENSE in {t.family for t in Weights.of(half, EPSILON)}


@given(
    numbers=st.lists(st.floats(-(2.0**24), 2.0**24, width=32), max_size=70),
)
def test_the_kernels_halve_and_join_as_tensor_operations_do(numbers: list[float]) -> None:
    source = torch.tensor(numbers, dtype=torch.float32)
    high, low = (torch.empty(len(numbers), dtype=torch.int16) for _ in range(2))
    storage.split(source.clone(), high, low)
    kept = Split(torch.zeros(len(numbers), dtype=torch.bfloat16))
    with kept.part(slice(0, len(numbers))) as piece:
        piece.copy_(source)
    assert torch.equal(kept.values.view(torch.int16), high)
    assert torch.equal(kept.low, low)
    assert torch.equal(kept.exact().view(torch.int32), source.view(torch.int32))
    assert torch.equal(storage.join(high, low).view(torch.int32), source.view(torch.int32))
