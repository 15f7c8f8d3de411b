"""The noise of :mod:`~shared_seed.noise.reference`, bit for bit, in numba kernels.

Every kernel works on whole blocks of 128 elements, so a range may be cut between threads anywhere on a
block boundary and gives the same bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from shared_seed.noise import BLOCK, Purpose, Sample
from shared_seed.noise.philox import AT_ONCE, draw, first_words, second_word, table
from shared_seed.parallel import for_each

Floats = NDArray[np.float32]

_SMALLEST_PIECE = 1 << 16
"""Elements below which a second thread costs more than it brings."""


# In the kernels below, positions of bits come from an array and parts of arrays from slices: with constants, or
# with an index that might be negative, the compiler takes the bits one by one.


@numba.njit(cache=True, nogil=True)
def _add_words(values, words, positions, amount):  # type: ignore[no-untyped-def]
    """``values[e] += amount * sign[e]``, the signs given as words."""
    for w in range((values.size + 31) // 32):
        bits = words[w]
        part = values[32 * w : min(32 * w + 32, values.size)]
        for b in range(part.size):
            part[b] += -amount if (bits >> positions[b]) & np.uint32(1) else amount


@numba.njit(cache=True, nogil=True)
def add_signs(values, first_block, c1, samples, amounts):  # type: ignore[no-untyped-def]
    """``values[e] += sum_i amounts[i] * sign_i[e]``, in place.

    Args:
        values: float32, flat; element 0 is element ``128 * first_block`` of the tensor.
        first_block: see above.
        c1: the counter's second word.
        samples: uint64 [samples, 3].
        amounts: float32 [samples].
    """
    words = np.empty(4 * AT_ONCE, np.uint32)
    positions = np.arange(32).astype(np.uint32)
    for start in range(0, values.size, 128 * AT_ONCE):
        part = values[start : min(start + 128 * AT_ONCE, values.size)]
        drawn = words[: (part.size + 127) // 128 * 4]
        for i in range(amounts.size):
            draw(drawn, first_block + start // 128, c1, samples[i])
            _add_words(part, drawn, positions, amounts[i])


@numba.njit(cache=True, nogil=True)
def _signs(out, first_block, c1, sample):  # type: ignore[no-untyped-def]
    """``out[e] = sign[e]``; ``out`` begins at block ``first_block``."""
    words = np.empty(4 * AT_ONCE, np.uint32)
    positions = np.arange(32).astype(np.uint32)
    for start in range(0, out.size, 128 * AT_ONCE):
        part = out[start : min(start + 128 * AT_ONCE, out.size)]
        drawn = words[: (part.size + 127) // 128 * 4]
        draw(drawn, first_block + start // 128, c1, sample)
        part[:] = np.float32(0)
        _add_words(part, drawn, positions, np.float32(1))


@numba.njit(cache=True, nogil=True)
def _sign_rows(out, first_block, c1, samples):  # type: ignore[no-untyped-def]
    for i in range(samples.shape[0]):
        _signs(out[i], first_block, c1, samples[i])


def _pieces(values: Floats, first: int, threads: int) -> list[tuple[Floats, int]]:
    """Flat values cut on block boundaries for so many threads, each piece with the number of its first block."""
    pieces = min(threads, max(1, values.size // _SMALLEST_PIECE))
    blocks = -(-values.size // BLOCK)
    bounds = [blocks * i // pieces for i in range(pieces + 1)]
    return [(values[a * BLOCK : b * BLOCK], first + a) for a, b in itertools.pairwise(bounds)]


def _in_pieces(kernel: Callable[[Floats, int], None], values: Floats, first: int, threads: int) -> None:
    """Run ``kernel(piece, first_block)`` over ``values``, which begin at block ``first``."""
    for_each(lambda piece: kernel(*piece), _pieces(values, first, threads), threads)


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
    c1, row, amounts = second_word(tensor, purpose), table([sample]), np.array([amount], np.float32)
    _in_pieces(lambda piece, block: add_signs(piece, block, c1, row, amounts), values, first, threads)


def signs(sample: Sample, tensor: int, purpose: Purpose, count: int, threads: int = 1) -> Floats:
    """float32 [count] of -1 and +1."""
    out = np.empty(count, np.float32)
    c1, row = second_word(tensor, purpose), table([sample])[0]
    _in_pieces(lambda piece, block: _signs(piece, block, c1, row), out, 0, threads)
    return out


def sign_rows(
    samples: Sequence[Sample], tensor: int, purpose: Purpose, count: int, first_block: int = 0
) -> Floats:
    """float32 [samples, count]: the signs of each sample, from element ``128 * first_block`` on."""
    out = np.empty((len(samples), count), np.float32)
    _sign_rows(out, first_block, second_word(tensor, purpose), table(samples))
    return out


def rounding_words(samples: Sequence[Sample], tensors: int) -> NDArray[np.uint32]:
    """uint32 [samples, tensors]: the random word that rounds each sample's step in each tensor."""
    out = np.empty((len(samples), tensors), np.uint32)
    c1 = second_word(0, Purpose.ROUNDING) + np.arange(tensors, dtype=np.uint64)
    first_words(out, c1, table(samples))
    return out
