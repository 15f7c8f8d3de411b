"""Random directions for one tensor: two sign vectors, or a sign for each element.

Both have identity covariance, so either gives the SPSA estimator of Spall (1992), section II, to first order.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from shared_seed.noise import Family, Purpose, Sample, cpu

Floats = NDArray[np.float32]


def rank1(sample: Sample, tensor: int, shape: tuple[int, ...], threads: int = 1) -> tuple[Floats, Floats]:
    """The factors ``u`` float32 [rows] and ``v`` float32 [columns] of a matrix's direction."""
    rows, columns = shape
    return (
        cpu.signs(sample, tensor, Purpose.ROW, rows, threads),
        cpu.signs(sample, tensor, Purpose.COLUMN, columns, threads),
    )


def dense(sample: Sample, tensor: int, shape: tuple[int, ...], threads: int = 1) -> Floats:
    """The direction of a tensor, float32 of its shape."""
    return cpu.signs(sample, tensor, Purpose.DENSE, math.prod(shape), threads).reshape(shape)


def direction(family: Family, sample: Sample, tensor: int, shape: tuple[int, ...]) -> Floats:
    """The whole direction of a tensor of either family, float32 of its shape; for tests and small tensors."""
    if family is Family.DENSE:
        return dense(sample, tensor, shape)
    u, v = rank1(sample, tensor, shape)
    return np.outer(u, v)
