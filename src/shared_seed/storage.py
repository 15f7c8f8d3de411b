"""How the exact fp32 values of one trainable parameter are kept.

A float32 parameter holds them itself. A bfloat16 parameter holds the nearest bfloat16 of each, which the forward
uses as it is, and the 16 low bits lie beside it: 4 bytes a parameter in all, where float32 with a cast for the
forward takes 6. Split numbers are worked on as fp32, a piece at a time, so there is never a copy of the whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import final

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

    def pieces(self) -> Iterator[tuple[int, Tensor]]:
        """The values as flat fp32 pieces, each with the number of its first element; changes to them are kept."""
        for start in range(0, self._source.numel(), self.piece):
            part = slice(start, start + self.piece)
            piece = self._load(part)
            yield start, piece
            self._store(part, piece)

    def rows(self) -> Iterator[tuple[slice, Tensor]]:
        """A matrix as fp32 blocks of whole rows, each with which rows it holds; changes to them are kept."""
        rows, columns = self.shape
        at_once = self._rows_at_once()
        for start in range(0, rows, at_once):
            block = slice(start, min(start + at_once, rows))
            part = slice(block.start * columns, block.stop * columns)
            piece = self._load(part)
            yield block, piece.view(block.stop - block.start, columns)
            self._store(part, piece)

    def read(self) -> Iterator[Tensor]:
        """The values as flat fp32 pieces, to look at."""
        for start in range(0, self._source.numel(), self.piece):
            yield self._load(slice(start, start + self.piece))

    def largest(self) -> float:
        """The largest magnitude, 0 for none, NaN where there is one."""
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
        high = self.values.view(-1).view(torch.int16)[part].to(torch.int32)
        low = self._low.view(-1)[part].to(torch.int32)
        return high.bitwise_left_shift_(16).add_(low).view(torch.float32)

    def _store(self, part: slice, piece: Tensor) -> None:
        bits = piece.view(torch.int32)
        # Casting to int16 keeps the low 16 bits, which are bits - (high << 16) already.
        self._low.view(-1)[part].copy_(bits)
        self.values.view(-1).view(torch.int16)[part].copy_(bits.add_(HALF).bitwise_right_shift_(16))

    def _rows_at_once(self) -> int:
        return max(1, self.piece // max(1, self.shape[1]))


def of(source: Tensor, low: Tensor | None = None) -> Storage:
    """The storage for a parameter, float32 or bfloat16."""
    return Split(source, low) if source.dtype is torch.bfloat16 else Whole(source)
