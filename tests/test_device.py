"""The same bits whichever way a device's noise is drawn: by kernels there, on the CPU, or there and copied."""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import models
from shared_seed import codec, decay, directions, noise
from shared_seed.noise import Family, Purpose, Sample, cpu, device, reference
from shared_seed.noise.philox import second_word, table
from shared_seed.perturbation import Perturbation
from shared_seed.transfer import uploaded

CPU = torch.device("cpu")
WHERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SAMPLES = [Sample((1 << 64) - 9, 8, 7), Sample(6, (1 << 32) - 5, 4), models.SAMPLE]
COUNT = 3000


def through_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = pytest.importorskip("shared_seed.noise.gpu", reason="Triton is on Linux only", exc_type=ImportError)
    if torch.cuda.is_available():
        pytest.skip("no interpreter where there is a GPU; benchmarks/gpu_bits.py runs there")
    monkeypatch.setattr(device, "_kernels", lambda where: gpu)


def on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    pass


def by_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_is_host", lambda where: False)


@pytest.fixture(params=[through_kernels, on_the_host, by_copies], ids=lambda way: way.__name__)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    request.param(monkeypatch)


@pytest.mark.usefixtures("_way")
def test_signs() -> None:
    drawn = device.signs(SAMPLES[1], 4, Purpose.COLUMN, COUNT, CPU)
    assert drawn.numpy().tobytes() == cpu.signs(SAMPLES[1], 4, Purpose.COLUMN, COUNT).tobytes()


@pytest.mark.usefixtures("_way")
def test_add_signs() -> None:
    expected = np.arange(COUNT, dtype=np.float32) / 4096
    values = torch.from_numpy(expected.copy())
    amounts = np.array([3, -70_000, 999_999], np.float32) / 4096
    cpu.add_signs(expected, 2, second_word(5, Purpose.DENSE), table(SAMPLES), amounts)
    device.add_signs(values, SAMPLES, amounts, 5, 2)
    assert values.numpy().tobytes() == expected.tobytes()


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("first", [0, 3])
def test_sign_rows(first: int) -> None:
    drawn = device.sign_rows(SAMPLES, 6, Purpose.ROW, COUNT, CPU, first)
    assert drawn.dtype is torch.float32
    skipped = first * noise.BLOCK
    whole = [cpu.signs(sample, 6, Purpose.ROW, skipped + COUNT).tolist() for sample in SAMPLES]
    assert drawn.tolist() == [row[skipped:] for row in whole]
    assert device.sign_rows([], 6, Purpose.ROW, 5, CPU).shape == (0, 5)


@pytest.mark.usefixtures("_way")
def test_rank1_factors_of_many_matrices() -> None:
    matrices = {7: (CPU, (3, 200)), 9: (CPU, (COUNT, 1))}
    drawn = device.rank1(SAMPLES[2], matrices)
    assert list(drawn) == [7, 9]
    for index, (u, v) in drawn.items():
        expected = directions.rank1(SAMPLES[2], index, matrices[index][1])
        assert [u.numpy().tobytes(), v.numpy().tobytes()] == [f.tobytes() for f in expected]
    assert device.rank1(SAMPLES[2], {}) == {}


@pytest.mark.usefixtures("_way")
def test_a_whole_update_leaves_the_weights_that_the_definitions_give() -> None:
    model = models.Mixed()
    messages = [models.message(w, n, 2.0**-12, bytes([0x35, 0xB9, 0x41])) for w in range(3) for n in range(2)]
    replica = models.replica_of(model)
    expected = [t.values.double().numpy().copy() for t in replica.weights]
    replica.apply(messages)
    for message in messages:
        for sample, code in message.samples(replica.manifest.run_bytes):
            for t, total in zip(replica.weights, expected, strict=True):
                random = reference.block(sample, t.index, Purpose.ROUNDING)[0]
                step = -message.learning_rate * codec.decode(code, 0)
                shape = tuple(t.parameter.shape)
                direction = directions.direction(t.family, sample, t.index, shape).astype(np.float64)
                total += t.grid.units(step, random) * t.grid.unit * direction
    for t, total in zip(replica.weights, expected, strict=True):
        assert np.array_equal(t.values.numpy(), total), t.name


@pytest.mark.usefixtures("_way")
def test_a_probe_moves_along_the_direction_and_back() -> None:
    model = models.Mixed()
    weights = models.replica_of(model).weights
    before = models.bits(model)
    start = copy.deepcopy(model)
    with Perturbation(weights, models.EPSILON).along(models.SAMPLE) as move:
        for sign in (+1, -1):
            move(sign)
            expected = models.moved_copy(start, weights, models.SAMPLE, sign * models.EPSILON)
            moved = dict(expected.named_parameters())
            dense = [t for t in weights if t.family is Family.DENSE]
            assert dense
            for t in dense:
                assert torch.equal(t.values, moved[t.name])
    assert models.bits(model) == before


@pytest.mark.usefixtures("_way")
def test_decay_is_projected_on_the_direction() -> None:
    weights = models.replica_of(nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4))).weights
    expected = 0.0
    for t in weights:
        direction = directions.direction(t.family, SAMPLES[0], t.index, tuple(t.values.shape))
        expected += float((t.values.double().numpy() * direction).sum())
    found = decay.projected(weights, {t.name: 1.0 for t in weights}, SAMPLES[0])
    assert found == pytest.approx(expected, rel=1e-5)


def test_kernels_that_draw_the_same_are_used() -> None:
    gpu = pytest.importorskip("shared_seed.noise.gpu", reason="Triton is on Linux only", exc_type=ImportError)
    assert device._proven(WHERE) is gpu


def test_only_cuda_devices_are_asked() -> None:
    assert [device._kernels(torch.device(kind)) for kind in ("cpu", "mps", "xpu", "meta")] == [None] * 4


def replaced(monkeypatch: pytest.MonkeyPatch, **kernels: Any) -> None:
    """Make the dispatcher find other kernels: the CPU's, but for those given."""
    gpu = pytest.importorskip("shared_seed.noise.gpu", reason="Triton is on Linux only", exc_type=ImportError)
    names = ("shift", "add_signs", "sign_rows")
    monkeypatch.setattr(noise, "gpu", SimpleNamespace(**{n: getattr(gpu, n) for n in names} | kernels))


def refusal() -> str:
    with pytest.warns(RuntimeWarning, match=f"noise for {WHERE} is drawn on the CPU and copied") as caught:
        assert device._proven.__wrapped__(WHERE) is None
    return str(caught[0].message)


def test_without_triton_the_cpu_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(noise, "gpu", raising=False)
    monkeypatch.setitem(sys.modules, "shared_seed.noise.gpu", None)
    assert "Triton cannot be imported" in refusal()


def test_where_kernels_do_not_run_the_cpu_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    replaced(monkeypatch, shift=fail)
    assert "do not run (Failed to find C compiler)" in refusal()


@pytest.mark.parametrize("kernel", ["shift", "add_signs", "sign_rows"])
def test_where_kernels_draw_other_bits_the_cpu_draws(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "shift": lambda values, *_: values.add_(1),
        "add_signs": lambda *_: None,
        "sign_rows": lambda samples, tensor, purpose, count, where, *_: torch.ones(
            len(samples), count, device=where
        ),
    }
    replaced(monkeypatch, **{kernel: wrong[kernel]})
    assert "draw other bits" in refusal()


def test_an_array_for_the_cpu_is_not_copied() -> None:
    values = np.zeros(3, np.float32)
    uploaded(values, CPU)[1] = 2
    assert values.tolist() == [0, 2, 0]
