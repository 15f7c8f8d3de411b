"""Apply messages to weights: ``theta -= lr * decode(code) * z`` for every sample, in one pass a tensor.

The live step and replay both come here. Steps are integers of grid units, so the result is the same bits for
any order and any grouping of the samples, and applying with ``sign=-1`` takes them back exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from shared_seed import codec, exact
from shared_seed.errors import HeadroomError
from shared_seed.grid import LIMIT, units_table
from shared_seed.messages import Message
from shared_seed.noise import Sample, cpu
from shared_seed.weights import Weights

MOST_AT_ONCE = 512
"""Samples that one pass takes; bounds the memory for their signs, and more are no faster."""

Units = NDArray[np.int32]


def steps_of(
    messages: Iterable[Message], run: bytes, scale_exponent: int
) -> tuple[list[Sample], NDArray[np.float64]]:
    """The directions of all samples that do not abstain, and how far to go along each, float64 [samples].

    That of a plain sum; :func:`shared_seed.aggregation.steps` has the others.
    """
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
    sign: int | Units = 1,
) -> None:
    """Move weights along directions; all of it or, on an error, none.

    Args:
        weights: of one replica, changed in place.
        samples: which directions.
        steps: float64 [samples], how far along each, before rounding to grid units.
        sign: -1 to take back what +1 has done; one for all, or int32 [samples].

    Raises:
        HeadroomError: a weight would come too near the edge of its grid.
    """
    if not samples:
        return
    units = units_table(steps, weights.exponents, cpu.rounding_words(samples, len(weights)), weights.rates)
    units *= np.asarray(sign, np.int32).reshape(-1, 1)
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
    exact.add(weights, samples, units)
    for j, tensor in enumerate(weights):
        tensor.bound += int(np.abs(units[:, j], dtype=np.int64).sum())
