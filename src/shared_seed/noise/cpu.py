"""The noise of :mod:`~shared_seed.noise.reference`, bit for bit, in numba kernels.

Every kernel works on whole blocks of 128 elements, so a range may be cut between threads anywhere on a
block boundary and gives the same bits. Kernels release the GIL and are cached on disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numba
import numpy as np
from numpy.typing import NDArray

from shared_seed.noise import BLOCK, Purpose, Sample

Floats = NDArray[np.float32]

_SMALLEST_PIECE = 1 << 16
"""Elements below which a second thread costs more than it brings."""


@numba.njit(cache=True, nogil=True, inline="always")
def _philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for _ in range(10):
        product0 = np.uint64(0xD2511F53) * c0
        product1 = np.uint64(0xCD9E8D57) * c2
        c0 = (product1 >> half) ^ c1 ^ k0
        c1 = product1 & mask
        c2 = (product0 >> half) ^ c3 ^ k1
        c3 = product0 & mask
        k0 = (k0 + np.uint64(0x9E3779B9)) & mask
        k1 = (k1 + np.uint64(0xBB67AE85)) & mask
    return c0, c1, c2, c3


@numba.njit(cache=True, nogil=True)
def _shift(values, first_block, c1, c2, c3, key, amount):  # type: ignore[no-untyped-def]
    """``values[e] += amount * sign[e]``; ``values`` begins at block ``first_block``."""
    count = values.size
    words = np.empty(4, np.uint32)
    k0, k1 = key & np.uint64(0xFFFFFFFF), key >> np.uint64(32)
    for start in range(0, count, 128):
        number = np.uint64(first_block + start // 128)
        w0, w1, w2, w3 = _philox(number, c1, c2, c3, k0, k1)
        words[0], words[1], words[2], words[3] = w0, w1, w2, w3
        for word in range(4):
            base = start + 32 * word
            bits = words[word]
            for bit in range(min(32, count - base)):
                sign = np.float32(1.0) - np.float32(2.0) * np.float32((bits >> np.uint32(bit)) & np.uint32(1))
                values[base + bit] += amount * sign


@numba.njit(cache=True, nogil=True)
def _accumulate(values, first_block, c1, samples, units, unit):  # type: ignore[no-untyped-def]
    """``values[e] += unit * sum_i units[i] * sign_i[e]``, the sum in integers.

    ``samples`` is uint64 [n, 3]: key, number, index.
    """
    count = values.size
    words = np.empty(4, np.uint32)
    totals = np.empty(128, np.int32)
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for start in range(0, count, 128):
        number = np.uint64(first_block + start // 128)
        totals[:] = 0
        for i in range(units.size):
            key = samples[i, 0]
            w0, w1, w2, w3 = _philox(number, c1, samples[i, 2], samples[i, 1], key & mask, key >> half)
            words[0], words[1], words[2], words[3] = w0, w1, w2, w3
            step = units[i]
            for word in range(4):
                bits = words[word]
                for bit in range(32):
                    negative = np.int32((bits >> np.uint32(bit)) & np.uint32(1))
                    totals[32 * word + bit] += step * (np.int32(1) - np.int32(2) * negative)
        for e in range(min(128, count - start)):
            values[start + e] += unit * np.float32(totals[e])


@numba.njit(cache=True, nogil=True)
def _first_words(out, c1, samples):  # type: ignore[no-untyped-def]
    """``out[i, j]`` is the first word of block 0 of tensor ``c1[j]`` for sample ``i``."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for i in range(samples.shape[0]):
        key = samples[i, 0]
        for j in range(c1.size):
            w0, _, _, _ = _philox(np.uint64(0), c1[j], samples[i, 2], samples[i, 1], key & mask, key >> half)
            out[i, j] = w0


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="shared-seed-noise")


def _in_pieces(kernel: Callable[[Floats, int], None], values: Floats, threads: int, first: int) -> None:
    """Run ``kernel(piece, first_block)`` over ``values``, from block ``first`` on, cut on block boundaries."""
    pieces = min(threads, max(1, values.size // _SMALLEST_PIECE))
    blocks = -(-values.size // BLOCK)
    bounds = [blocks * i // pieces for i in range(pieces + 1)]
    spans = [(values[a * BLOCK : b * BLOCK], first + a) for a, b in itertools.pairwise(bounds)]
    if pieces == 1:
        kernel(*spans[0])
        return
    for done in [_pool(threads).submit(kernel, *span) for span in spans]:
        done.result()


def shift(
    values: Floats,
    sample: Sample,
    tensor: int,
    purpose: Purpose,
    amount: float,
    threads: int = 1,
    first: int = 0,
) -> None:
    """Add ``amount * sign`` to every element of a flat float32 array, in place; it begins at block ``first``."""
    _, c1, c2, c3 = (np.uint64(word) for word in sample.counter(tensor, purpose))
    key, step = np.uint64(sample.key), np.float32(amount)
    _in_pieces(lambda piece, block: _shift(piece, block, c1, c2, c3, key, step), values, threads, first)


def signs(sample: Sample, tensor: int, purpose: Purpose, count: int, threads: int = 1) -> Floats:
    """float32 [count] of -1 and +1."""
    out = np.zeros(count, np.float32)
    shift(out, sample, tensor, purpose, 1.0, threads)
    return out


def _table(samples: Sequence[Sample]) -> NDArray[np.uint64]:
    """uint64 [n, 3]: key, number, index of each sample."""
    return np.array([(s.key, s.number, s.index) for s in samples], np.uint64).reshape(-1, 3)


def rounding_words(samples: Sequence[Sample], tensors: int) -> NDArray[np.uint32]:
    """uint32 [samples, tensors]: the random word that rounds each sample's step in each tensor."""
    out = np.empty((len(samples), tensors), np.uint32)
    c1 = np.array([Sample(0, 0, 0).counter(t, Purpose.ROUNDING)[1] for t in range(tensors)], np.uint64)
    _first_words(out, c1, _table(samples))
    return out


def accumulate(
    values: Floats,
    samples: Sequence[Sample],
    units: NDArray[np.int32],
    tensor: int,
    unit: float,
    threads: int = 1,
    first: int = 0,
) -> None:
    """Add ``unit * sum_i units[i] * sign_i`` to a flat float32 array, in place, in one pass.

    The array begins at block ``first`` of the tensor.

    The sum is exact as long as the absolute units add up to less than 2**24, which the caller sees to.
    """
    table = _table(samples)
    c1 = np.uint64(Sample(0, 0, 0).counter(tensor, Purpose.DENSE)[1])
    scale = np.float32(unit)
    _in_pieces(lambda piece, block: _accumulate(piece, block, c1, table, units, scale), values, threads, first)
