"""Does this machine's GPU draw and add the same bits as its CPU? Prints PASS or FAIL for each thing compared.

python benchmarks/gpu_bits.py

Without a GPU the kernels run in Triton's interpreter, on small sizes: that tests the kernels, not the compiler.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from shared_seed import exact, update
from shared_seed.errors import GridError
from shared_seed.noise import Family, Purpose, Sample, cpu, device
from shared_seed.noise.philox import second_word, table
from shared_seed.perturbation import Perturbation
from shared_seed.probe import Probe
from shared_seed.weights import Weights, as_bytes

EPSILON = 2.0**-8
SAMPLES = [Sample((1 << 64) - 59 * n, (1 << 32) - 1 - n, n % 255) for n in range(1, 71)]
"""More than one pass of an update takes, with words of the counter and the key that fill all their bits."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is compared."""

    elements: int
    vocabulary: int
    width: int
    samples: int


ON_GPU = Sizes(50_000_003, 50_257, 768, len(SAMPLES))
INTERPRETED = Sizes(5_003, 97, 40, 8)


def model(sizes: Sizes) -> nn.Sequential:
    """Rank-1 and dense tensors; an embedding, matrices, vectors."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(sizes.vocabulary, sizes.width),
        nn.LayerNorm(sizes.width),
        nn.Linear(sizes.width, 3 * sizes.width),
        nn.Tanh(),
        nn.Linear(3 * sizes.width, 1),
    )


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same bytes."""
    return one.dtype is other.dtype and as_bytes(one) == as_bytes(other)


def noise(
    where: torch.device, drawn_there: AbstractContextManager[object], count: int
) -> Iterator[tuple[str, bool]]:
    """Every kernel against numba's."""
    sample, amounts = SAMPLES[0], np.array([1, -70_000, 999_999], np.float32) * np.float32(2.0**-20)
    signs = torch.from_numpy(cpu.signs(sample, 3, Purpose.DENSE, count))
    start = torch.linspace(-1, 1, count)
    moved = start.clone()
    cpu.add_signs(moved.numpy(), 0, second_word(3, Purpose.DENSE), table(SAMPLES[:3]), amounts)
    rows = torch.from_numpy(cpu.sign_rows(SAMPLES[:3], 3, Purpose.ROW, count // 3, 1))
    u = torch.from_numpy(cpu.signs(sample, 3, Purpose.ROW, count // 3))
    v = torch.from_numpy(cpu.signs(sample, 3, Purpose.COLUMN, 3))
    with drawn_there:
        yield "signs", same(device.signs(sample, 3, Purpose.DENSE, count, where), signs)
        its = start.to(where, copy=True)
        device.add_signs(its, SAMPLES[:3], amounts, 3)
        yield "sum of signs", same(its, moved)
        drawn = device.sign_rows(SAMPLES[:3], 3, Purpose.ROW, count // 3, where, 1)
        yield "rows of signs", same(drawn, rows)
        pair = device.rank1(sample, {3: (where, (count // 3, 3))})[3]
        yield "rank-1 direction", same(pair[0], u) and same(pair[1], v)


def dense(perturbation: Perturbation) -> dict[int, str]:
    """A digest of all dense tensors at either side of a probe."""
    digests: dict[int, str] = {}
    with perturbation.along(SAMPLES[0]) as move:
        for sign in (+1, -1):
            move(sign)
            values = [t.values for t in perturbation.weights if t.family is Family.DENSE]
            digests[sign] = hashlib.sha256(b"".join(as_bytes(v) for v in values)).hexdigest()
    return digests


def training(
    where: torch.device, drawn_there: Callable[[], AbstractContextManager[object]], sizes: Sizes
) -> Iterator[tuple[str, bool]]:
    """A whole update, a probe and its way back, on a model."""
    mine = model(sizes)
    its = copy.deepcopy(mine).to(where)
    own, other = Weights.of(mine, EPSILON), Weights.of(its, EPSILON)
    yield "weights on their grids", own.digest() == other.digest()
    samples = SAMPLES[: sizes.samples]
    steps = np.random.default_rng(0).normal(0, 2.0**-12, len(samples))
    before = own.digest()
    update.apply(own, samples, steps)
    with drawn_there():
        update.apply(other, samples, steps)
    yield "update", own.digest() == other.digest() != before
    here, there = Perturbation(own, EPSILON), Perturbation(other, EPSILON)
    expected = dense(here)
    with drawn_there():
        found = dense(there)
    for sign, digest in expected.items():
        yield f"dense tensors at {sign:+d} epsilon", digest == found[sign]
    yield "weights after a probe", own.digest() == other.digest()
    ids = torch.arange(64) % sizes.vocabulary
    of_cpu = Probe(mine, here).measure(lambda: mine(ids).sum(), SAMPLES[1]).gradient
    with drawn_there():
        gradient = Probe(its, there).measure(lambda: its(ids.to(where)).sum(), SAMPLES[1]).gradient
    # Forward passes may round otherwise on another device; messages carry what was found.
    yield (
        f"projected gradient: {of_cpu:.6g} and {gradient:.6g}, to 1 %",
        abs(gradient - of_cpu) <= 0.01 * abs(of_cpu),
    )
    with drawn_there():
        update.apply(other, samples, steps, sign=-1)
    yield "update taken back", other.digest() == before


def exact_products(where: torch.device) -> bool:
    """Whether matrix products on a device are those of integers."""
    try:
        exact.check_device(where)
    except GridError:
        return False
    return True


def measure(sizes: Sizes | None = None) -> dict[str, bool]:
    """Print and return, by name, what is the same."""
    on_gpu = torch.cuda.is_available()
    where = torch.device("cuda" if on_gpu else "cpu")
    if not on_gpu:
        os.environ["TRITON_INTERPRET"] = "1"
    # Only now: Triton looks at the environment when it is imported.
    from shared_seed.noise import gpu

    def drawn_there() -> AbstractContextManager[object]:
        # A CPU would not be asked for its kernels.
        return nullcontext() if on_gpu else mock.patch.object(device, "_kernels", return_value=gpu)

    if on_gpu:
        print(f"{torch.cuda.get_device_name()} against this machine's CPU; torch {torch.__version__}")
    else:
        print("no GPU here: Triton's interpreter against numba's kernels, both on the CPU, on small sizes")
    sizes = sizes or (ON_GPU if on_gpu else INTERPRETED)
    results: dict[str, bool] = {}

    def note(name: str, passed: bool) -> None:
        results[name] = passed
        print("PASS" if passed else "FAIL", name, flush=True)

    with drawn_there():
        note("kernels run and are used", device._kernels(where) is gpu)
    note("matrix products are exact", exact_products(where))
    for name, passed in noise(where, drawn_there(), sizes.elements):
        note(name, passed)
    for name, passed in training(where, drawn_there, sizes):
        note(name, passed)
    print(f"{sum(results.values())} of {len(results)} are the same")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    sys.exit(0 if all(measure().values()) else 1)
