"""Philox4x32-10 in numba: the random words that all kernels begin from.

Kernels are compiled on first use, cached on disk, and release the GIL. A kernel takes samples as a table and draws
:data:`AT_ONCE` blocks at a time, which is what lets the compiler put them side by side in vector registers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from shared_seed.noise import Purpose, Sample

AT_ONCE = 32
"""Blocks that are drawn in one go."""

Table = NDArray[np.uint64]


def table(samples: Sequence[Sample]) -> Table:
    """uint64 [samples, 3]: key, number, index of each."""
    return np.array([(s.key, s.number, s.index) for s in samples], np.uint64).reshape(-1, 3)


def second_word(tensor: int, purpose: Purpose) -> np.uint64:
    """The counter's second word, which samples share."""
    return np.uint64(Sample(0, 0, 0).counter(tensor, purpose)[1])


@numba.njit(cache=True, nogil=True, inline="always")
def philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Four words from a counter and a key, all uint64 below 2**32."""
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
def draw(words, first_block, c1, sample):  # type: ignore[no-untyped-def]
    """Fill uint32 [4 * blocks] with the words of consecutive blocks; ``sample`` is a row of the table."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1 = sample[0] & mask, sample[0] >> half
    number, index = sample[1], sample[2]
    for b in range(words.size // 4):
        w0, w1, w2, w3 = philox(np.uint64(first_block + b), c1, index, number, k0, k1)
        words[4 * b], words[4 * b + 1], words[4 * b + 2], words[4 * b + 3] = w0, w1, w2, w3


@numba.njit(cache=True, nogil=True)
def first_words(out, c1, samples):  # type: ignore[no-untyped-def]
    """``out[i, j]`` is the first word of block 0 of tensor ``c1[j]`` for sample ``i``."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for i in range(samples.shape[0]):
        key, number, index = samples[i, 0], samples[i, 1], samples[i, 2]
        for j in range(c1.size):
            w0, _, _, _ = philox(np.uint64(0), c1[j], index, number, key & mask, key >> half)
            out[i, j] = w0
