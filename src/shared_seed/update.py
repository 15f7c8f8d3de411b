"""Apply messages to weights: ``theta -= lr * decode(code) * z`` for every sample, in one pass a tensor.

The live step and replay both come here. Steps are integers of grid units, so the result is the same bits for
any order and any grouping of the samples, and applying with ``sign=-1`` takes them back exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared_seed import codec
from shared_seed.directions import Family
from shared_seed.errors import GridError, HeadroomError
from shared_seed.grid import LIMIT, units_table
from shared_seed.messages import Message
from shared_seed.noise import Purpose, Sample, cpu, device
from shared_seed.transfer import uploaded
from shared_seed.weights import Trainable, Weights

MOST_AT_ONCE = 64
"""Samples that one pass takes; bounds the memory for their sign vectors."""

Units = NDArray[np.int32]


@contextmanager
def exact_products() -> Iterator[None]:
    """Matrix products in true fp32: no autocast, no TF32, no bf16 inside."""
    with (
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        _true_fp32(),
    ):
        yield


@contextmanager
def _true_fp32() -> Iterator[None]:
    backends: list[Any] = [getattr(kind, "matmul", None) for kind in (torch.backends.cuda, torch.backends.mkldnn)]
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # torch before 2.9
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
        return
    # One by one: the getter of them all raises once a user has set one of these.
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def check_device(where: torch.device) -> None:
    """Prove that matrix products on a device take factors of 18 bits, and sum up to 24 bits, without rounding.

    Raises:
        GridError: they do round.
    """
    # As an update has them: units times signs, of sizes that tensor cores like. Powers of two would prove nothing,
    # since TF32 keeps 11 bits of a factor and bf16 8.
    samples, rows, columns = 64, 256, 128
    generator = np.random.default_rng(0)
    left, right = (1 - 2 * generator.integers(0, 2, (samples, n)) for n in (rows, columns))
    left *= generator.integers(-(1 << 17), 1 << 17, (samples, 1)) | 1
    start = generator.integers(-(1 << 22), 1 << 22, (rows, columns))
    expected = (start + left.T @ right).astype(np.float32)
    total, u, v = (torch.from_numpy(x.astype(np.float32)).to(where) for x in (start, left, right))
    with exact_products():
        total.addmm_(u.T, v)
    if not np.array_equal(total.cpu().numpy(), expected):
        raise GridError(
            f"matrix products on {where} round small integers; expected exact fp32; turn off reduced-precision "
            "matmul modes (TF32, oneDNN bf16) in your environment, such as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
        )


def steps_of(
    messages: Iterable[Message], run: bytes, scale_exponent: int
) -> tuple[list[Sample], NDArray[np.float64]]:
    """The directions of all samples that do not abstain, and how far to go along each, float64 [samples]."""
    samples: list[Sample] = []
    steps: list[float] = []
    for message in messages:
        for sample, code in message.samples(run):
            if codec.is_abstention(code):
                continue
            step = -message.learning_rate * codec.decode(code, scale_exponent)
            if step != 0:
                samples.append(sample)
                steps.append(step)
    return samples, np.array(steps, np.float64)


def apply(
    weights: Weights,
    samples: Sequence[Sample],
    steps: NDArray[np.float64],
    sign: int = 1,
) -> None:
    """Move weights along directions; all of it or, on an error, none.

    Args:
        weights: of one replica, changed in place.
        samples: which directions.
        steps: float64 [samples], how far along each, before rounding to grid units.
        sign: -1 to take back what +1 has done.

    Raises:
        HeadroomError: a weight would come too near the edge of its grid.
    """
    if not samples:
        return
    units = sign * units_table(steps, weights.exponents, cpu.rounding_words(samples, len(weights)), weights.rates)
    groups: list[slice] = []
    done = 0
    try:
        while done < len(samples):
            group = slice(done, _fitting(weights, units, done))
            _apply_group(weights, samples[group], units[group])
            groups.append(group)
            done = group.stop
    except HeadroomError:
        # Going back the way we came, step by step, stays inside the range that we came through.
        for group in reversed(groups):
            _apply_group(weights, samples[group], -units[group])
        raise


def _fitting(weights: Weights, units: Units, start: int) -> int:
    """The end of the longest group from ``start`` that no tensor can overflow by; measures where it must."""
    cumulated = np.cumsum(np.abs(units[start : start + MOST_AT_ONCE], dtype=np.int64), axis=0)
    fitting = len(cumulated)
    for j, tensor in enumerate(weights):
        total = cumulated[:, j]
        if tensor.bound + total[fitting - 1] < tensor.ceiling:
            continue
        tensor.measure()
        fitting = min(fitting, int(np.searchsorted(total, tensor.ceiling - tensor.bound)))
        if fitting == 0:
            raise HeadroomError(
                f"parameter {tensor.name!r} has reached {tensor.bound * tensor.grid.unit:g}; its grid ends at "
                f"{LIMIT * tensor.grid.unit:g}, and beyond it updates would not be exact; the weights are as they "
                "were before this step; lower the learning rate, or start a new run from these weights"
            )
    return start + fitting


def _apply_group(weights: Weights, samples: Sequence[Sample], units: Units) -> None:
    with exact_products():
        for j, tensor in enumerate(weights):
            column = np.ascontiguousarray(units[:, j])
            if tensor.family is Family.RANK1:
                _add_rank1(tensor, samples, column)
            else:
                _add_dense(tensor, samples, column)
            tensor.bound += int(np.abs(column, dtype=np.int64).sum())


def _add_rank1(tensor: Trainable, samples: Sequence[Sample], units: Units) -> None:
    """``W += unit * sum_i units[i] * outer(u_i, v_i)`` as one matrix product."""
    where, (rows, columns) = tensor.parameter.device, tensor.parameter.shape
    step = uploaded(units.astype(np.float32) * np.float32(tensor.grid.unit), where)
    u = device.factors(samples, tensor.index, Purpose.ROW, rows, where)
    v = device.factors(samples, tensor.index, Purpose.COLUMN, columns, where)
    tensor.values.addmm_(u.mul_(step[:, None]).T, v)


def _add_dense(tensor: Trainable, samples: Sequence[Sample], units: Units) -> None:
    """``w += unit * sum_i units[i] * signs_i`` in one pass over the tensor."""
    device.accumulate(tensor.values, samples, units, tensor.index, tensor.grid.unit)
