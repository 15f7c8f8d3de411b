"""Signs of many samples side by side: one bit a sample, 32 samples a word.

Where sums over samples are looked up instead of added one by one (:mod:`shared_seed.lookup`), the bits that belong
to one element of a vector are wanted together.
"""

from __future__ import annotations

import numba
import numpy as np

from shared_seed.noise.philox import AT_ONCE, draw

SAMPLES = 32
"""Samples that share a word."""


@numba.njit(cache=True, nogil=True)
def pack(out, first_block, count, c1, samples):  # type: ignore[no-untyped-def]
    """Bit ``i % 32`` of ``out[i // 32, e]`` is set where the sign of sample ``i`` at element ``e`` is -1.

    Args:
        out: uint32 [ceil(samples / 32), at least count], all zero.
        first_block: where element 0 lies, in blocks of 128.
        count: elements.
        c1: the counter's second word.
        samples: uint64 [samples, 3].
    """
    words = np.empty(4 * AT_ONCE, np.uint32)
    positions = np.arange(32).astype(np.uint32)
    for i in range(samples.shape[0]):
        place = np.uint32(i % 32)
        for start in range(0, count, 128 * AT_ONCE):
            end = min(start + 128 * AT_ONCE, count)
            draw(words[: (end - start + 127) // 128 * 4], first_block + start // 128, c1, samples[i])
            for w in range((end - start + 31) // 32):
                bits = words[w]
                part = out[i // 32, start + 32 * w : min(start + 32 * w + 32, end)]
                for b in range(part.size):
                    part[b] |= ((bits >> positions[b]) & np.uint32(1)) << place
