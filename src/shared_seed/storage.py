"""How the exact fp32 values of one trainable parameter are kept.

A float32 parameter holds them itself. A bfloat16 parameter holds the nearest bfloat16 of each, which the forward
uses as it is, and the 16 low bits lie beside it: 4 bytes a parameter in all, where float32 with a cast for the
forward takes 6. Split numbers are worked on as fp32, a piece at a time, so there is never a copy of the whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import numba
import numpy as np
import torch
from torch import Tensor

PIECE = 1 << 18
"""Elements that are worked on at once, a multiple of the noise's block: as fp32 they stay in a core's cache."""

DTYPES = (torch.float32, torch.bfloat16)
"""What trainable parameters may be."""

LAUNCHES = 64
"""How many times larger pieces are on an accelerator, where each costs the launch of some kernels."""

HALF = 1 << 15
"""Half of the last bit that bfloat16 keeps, as an integer of fp32's bits."""


def join(high: Tensor, low: Tensor) -> Tensor:
    """fp32 from int16 halves, on any device."""
    return high.to(torch.int32).bitwise_left_shift_(16).add_(low).view(torch.float32)


def split(piece: Tensor, high: Tensor, low: Tensor) -> None:
    """Write the int16 halves of fp32 numbers, which are used up, on any device."""
    bits = piece.view(torch.int32)
    # Casting to int16 keeps the low 16 bits, which are bits - (high << 16) already.
    low.copy_(bits)
    high.copy_(bits.add_(HALF).bitwise_right_shift_(16))


# The same on a CPU, without the GIL and in one pass, for the threads that share an update.


@numba.njit(cache=True, nogil=True)
def _join(high, low, bits):  # type: ignore[no-untyped-def]
    for e in range(bits.size):
        bits[e] = (np.int32(high[e]) << np.int32(16)) + np.int32(low[e])


@numba.njit(cache=True, nogil=True)
def _split(bits, high, low):  # type: ignore[no-untyped-def]
    for e in range(bits.size):
        low[e] = np.int16(bits[e] & 0xFFFF)
        high[e] = np.int16((bits[e] + np.int32(HALF)) >> np.int32(16))


class Storage(ABC):
    """The exact values of one parameter, and how to work on them.

    Args:
        source: the parameter, or the tensor that holds its data; contiguous, and changed in place from here on.
    """

    def __init__(self, source: Tensor) -> None:
        self._source = source

    @property
    def values(self) -> Tensor:
        """The data, detached, sharing memory."""
        # Not kept: a parameter's data may be exchanged, as by a move to another device.
        return self._source.detach()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameter."""
        return tuple(self._source.shape)

    @property
    def device(self) -> torch.device:
        """Where the values lie and are worked on."""
        return self._source.device

    @property
    def piece(self) -> int:
        """How many elements are worked on at once."""
        return PIECE if self.device.type == "cpu" else LAUNCHES * PIECE

    @contextmanager
    def part(self, part: slice) -> Iterator[Tensor]:
        """Some of the flat values as fp32; changes to them are kept."""
        piece = self._load(part)
        yield piece
        self._store(part, piece)

    def pieces(self) -> Iterator[tuple[int, Tensor]]:
        """The values as flat fp32 pieces, each with the number of its first element; changes to them are kept."""
        for start in range(0, self._source.numel(), self.piece):
            with self.part(slice(start, start + self.piece)) as piece:
                yield start, piece

    def rows(self) -> Iterator[tuple[slice, Tensor]]:
        """A matrix as fp32 blocks of whole rows, each with which rows it holds; changes to them are kept."""
        rows, columns = self.shape
        at_once = self._rows_at_once()
        for start in range(0, rows, at_once):
            block = slice(start, min(start + at_once, rows))
            with self.part(slice(block.start * columns, block.stop * columns)) as piece:
                yield block, piece.view(block.stop - block.start, columns)

    def read(self) -> Iterator[Tensor]:
        """The values as flat fp32 pieces, to look at."""
        for start in range(0, self._source.numel(), self.piece):
            yield self._load(slice(start, start + self.piece))

    def largest(self) -> float:
        """The largest magnitude, 0 for none, NaN where there is one."""
        if self.device.type == "cpu":
            # By numpy, whose one thread suits callers that share tensors between threads.
            found = (piece.numpy() for piece in self.read())
            return float(np.max([np.maximum(-piece.min(), piece.max()) for piece in found], initial=0))
        bounds = [torch.stack(torch.aminmax(piece)).abs().max() for piece in self.read()]
        # Tensors to the end, since every number read off an accelerator waits for it; max() of torch keeps a NaN.
        return float(torch.stack(bounds).max()) if bounds else 0.0

    @abstractmethod
    def exact(self) -> Tensor:
        """All values as fp32, to look at; a copy where they are split."""

    @property
    @abstractmethod
    def low(self) -> Tensor | None:
        """What the parameter itself does not hold: int16 of its shape, or None."""

    @abstractmethod
    def _load(self, part: slice) -> Tensor:
        """Some of the flat values as fp32."""

    @abstractmethod
    def _store(self, part: slice, piece: Tensor) -> None:
        """Keep what :meth:`_load` gave, as it is now; the piece may be used up."""

    @abstractmethod
    def _rows_at_once(self) -> int:
        """How many rows a block of :meth:`rows` has."""


@final
class Whole(Storage):
    """A float32 parameter: pieces share its memory."""

    def exact(self) -> Tensor:
        """The parameter's own memory."""
        return self.values

    @property
    def low(self) -> None:
        """Nothing is missing."""

    def _load(self, part: slice) -> Tensor:
        return self.values.view(-1)[part]

    def _store(self, part: slice, piece: Tensor) -> None:
        pass

    def _rows_at_once(self) -> int:
        return max(1, self.shape[0])


@final
class Split(Storage):
    """A bfloat16 parameter and the low bits beside it.

    With ``bits`` those of the exact fp32 number as an integer, the parameter has the bits
    ``high = (bits + 0x8000) >> 16`` and the low bits are ``bits - (high << 16)``, which fit an int16. Floats have
    their sign apart from the magnitude, so this rounds to the nearest, halves away from zero; grids end far below
    where it would give infinity.

    Args:
        source: bfloat16.
        low: int16 of the same shape, taken over; zeros by default, for exact values that bfloat16 holds.
    """

    def __init__(self, source: Tensor, low: Tensor | None = None) -> None:
        super().__init__(source)
        none = torch.zeros(self.shape, dtype=torch.int16) if low is None else low
        self._low = none.to(source.device).contiguous()

    def exact(self) -> Tensor:
        """A copy in fp32."""
        return self._load(slice(None)).view(self.shape)

    @property
    def low(self) -> Tensor:
        """The low bits themselves, not a copy."""
        return self._low

    def _load(self, part: slice) -> Tensor:
        high, low = self._parts(part)
        if high.device.type != "cpu":
            return join(high, low)
        piece = torch.empty(len(high), dtype=torch.float32)
        _join(high.numpy(), low.numpy(), piece.view(torch.int32).numpy())
        return piece

    def _store(self, part: slice, piece: Tensor) -> None:
        high, low = self._parts(part)
        if high.device.type != "cpu":
            split(piece, high, low)
        else:
            _split(piece.view(torch.int32).numpy(), high.numpy(), low.numpy())

    def _parts(self, part: slice) -> tuple[Tensor, Tensor]:
        """The int16 halves of some of the flat values, sharing memory."""
        return self.values.view(-1).view(torch.int16)[part], self._low.view(-1)[part]

    def _rows_at_once(self) -> int:
        return max(1, self.piece // max(1, self.shape[1]))


def of(source: Tensor, low: Tensor | None = None) -> Storage:
    """The storage for a parameter, float32 or bfloat16."""
    return Split(source, low) if source.dtype is torch.bfloat16 else Whole(source)
