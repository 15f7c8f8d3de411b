"""Add combinations of directions to weights without rounding: ``theta += unit * sum_i units[i] * z_i``.

Everything stays on the grid, so that a look-up in tables, a matrix product and an addition at a time give the same
bits. Weights are taken in pieces, which threads share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from shared_seed import lookup
from shared_seed.directions import Family
from shared_seed.errors import GridError
from shared_seed.noise import BLOCK, Purpose, Sample, cpu
from shared_seed.noise.philox import second_word, table
from shared_seed.parallel import for_each
from shared_seed.weights import Trainable, Weights

PIECE = 1 << 19
"""Elements that a thread takes at once."""


@contextmanager
def exact_products() -> Iterator[None]:
    """Matrix products in true fp32: no autocast, no TF32, no bf16 inside."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def check_device(device: torch.device) -> None:
    """Prove that matrix products on a device sum 24-bit integers without rounding.

    Raises:
        GridError: they do round.
    """
    left = torch.full((4, 3), 1 << 22, dtype=torch.float32, device=device)
    right = torch.tensor([[1.0], [1.0], [-1.0]], device=device).expand(3, 5).contiguous()
    start = torch.ones(4, 5, device=device)
    with exact_products():
        start.addmm_(left, right)
    if not bool((start == float((1 << 22) + 1)).all()):
        raise GridError(
            f"matrix products on {device} round small integers; expected exact fp32; turn off reduced-precision "
            "matmul modes (TF32, oneDNN bf16) in your environment"
        )


@dataclass(frozen=True, slots=True)
class _Piece:
    """Whole rows of a matrix, or elements of anything else, as a part of a tensor's flat values.

    ``width`` is that of a row, 1 for the dense family; ``amounts`` float32 [samples] are how far to go along each
    direction.
    """

    tensor: Trainable
    part: slice
    width: int
    amounts: NDArray[np.float32]

    @property
    def first_block(self) -> int:
        """Where the piece's noise begins: in blocks of rows or of elements."""
        first: int = self.part.start // self.width // BLOCK
        return first


def add(weights: Weights, samples: Sequence[Sample], units: NDArray[np.int32]) -> None:
    """Add ``unit * sum_i units[i] * z_i`` to every tensor, in place.

    Args:
        weights: of one replica; no weight may come to its grid's end on the way, which the caller sees to.
        samples: name the directions.
        units: int32 [samples, tensors].
    """
    rows = table(samples)
    with exact_products():
        amounts = units.astype(np.float32) * np.array([t.grid.unit for t in weights], np.float32)
        looked_up: list[_Piece] = []
        multiplied: list[_Piece] = []
        for tensor in weights:
            on_cpu = tensor.storage.device.type == "cpu"
            by_kernel = on_cpu and (tensor.family is Family.DENSE or lookup.available())
            (looked_up if by_kernel else multiplied).extend(_pieces(tensor, amounts[:, tensor.index].copy()))
        looked_up.sort(key=lambda piece: piece.part.start - piece.part.stop)
        for_each(lambda piece: _look_up(piece, rows), looked_up, torch.get_num_threads())
        for piece in multiplied:
            _multiply(piece, samples)


def _pieces(tensor: Trainable, amounts: NDArray[np.float32]) -> Iterator[_Piece]:
    """A tensor, cut on block boundaries of its rows or elements."""
    shape = tensor.storage.shape
    width, count = (shape[1] if tensor.family is Family.RANK1 else 1), math.prod(shape)
    length = width * BLOCK * max(1, PIECE // max(1, BLOCK * width))
    for start in range(0, count, length):
        yield _Piece(tensor, slice(start, min(start + length, count)), width, amounts)


def _look_up(piece: _Piece, rows: NDArray[np.uint64]) -> None:
    """The sum by kernels of our own."""
    index = piece.tensor.index
    with piece.tensor.storage.part(piece.part) as values:
        if piece.tensor.family is Family.DENSE:
            word = second_word(index, Purpose.DENSE)
            cpu.add_signs(values.numpy(), piece.first_block, word, rows, piece.amounts)
            return
        words = second_word(index, Purpose.ROW), second_word(index, Purpose.COLUMN)
        lookup.add(values.view(-1, piece.width).numpy(), piece.first_block, *words, rows, piece.amounts)


def _multiply(piece: _Piece, samples: Sequence[Sample]) -> None:
    """The sum as a product of matrices, or, for the dense family, drawn on the CPU and sent over."""
    index, first = piece.tensor.index, piece.first_block
    with piece.tensor.storage.part(piece.part) as values:
        device = values.device
        if piece.tensor.family is Family.DENSE:
            total = np.zeros(len(values), np.float32)
            cpu.add_signs(total, first, second_word(index, Purpose.DENSE), table(samples), piece.amounts)
            values.add_(torch.from_numpy(total).to(device))
            return
        matrix = values.view(-1, piece.width)
        u = cpu.sign_rows(samples, index, Purpose.ROW, len(matrix), first) * piece.amounts[:, None]
        v = cpu.sign_rows(samples, index, Purpose.COLUMN, piece.width)
        matrix.addmm_(torch.from_numpy(u).to(device).T, torch.from_numpy(v).to(device))
