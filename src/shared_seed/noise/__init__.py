"""Counter-based noise: the same bits everywhere, with no state and no global generator.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a
128-bit counter and a 64-bit key into 128 random bits, in integers only. Here

=========  ==========================================================================
key        a hash of (run, stream), 64 bits: :func:`stream_key`
counter 0  which block of 128 elements of the tensor
counter 1  tensor index in the manifest (24 bits) and :class:`Purpose` (8 bits)
counter 2  index of the sample within its message
counter 3  number of the message in its stream
=========  ==========================================================================

so element ``e`` of a tensor takes bit ``e % 32`` of word ``e // 32 % 4`` of block ``e // 128``; a set bit is
-1, a clear one +1. ``reference`` is the definition; ``cpu`` is the same, fast.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum, StrEnum

BLOCK = 128
"""Elements that one Philox call serves."""

MOST_TENSORS = 1 << 24
"""Tensor indices must be below this."""


class Family(StrEnum):
    """How the direction of a tensor is drawn."""

    RANK1 = "rank1"
    """``z[i, j] = u[i] * v[j]`` for a matrix: applied to activations, the matrix is never written."""
    DENSE = "dense"
    """An independent sign for each element: applied in place."""


class Purpose(IntEnum):
    """What a random bit is for; different purposes never share a counter."""

    DENSE = 0
    ROW = 1
    COLUMN = 2
    ROUNDING = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """Which direction: the key of a stream, a message number in it, and the index within the message."""

    key: int
    number: int
    index: int

    def counter(self, tensor: int, purpose: Purpose, block: int = 0) -> tuple[int, int, int, int]:
        """The 128-bit counter, as four 32-bit words."""
        return block, int(purpose) << 24 | tensor, self.index, self.number


def stream_key(run: bytes, stream: bytes) -> int:
    """The 64-bit Philox key of one stream of one run."""
    return int.from_bytes(hashlib.blake2b(run + stream, digest_size=8, person=b"shared-seed").digest(), "little")
