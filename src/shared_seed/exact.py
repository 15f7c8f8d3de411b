"""Add combinations of directions to weights without rounding: ``theta += unit * sum_i units[i] * z_i``.

Everything stays on the grid, so that a look-up in tables, a matrix product and an addition at a time give the same
bits. Weights are taken in pieces, which threads share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared_seed import lookup
from shared_seed.errors import GridError
from shared_seed.noise import BLOCK, Family, Purpose, Sample, cpu, device
from shared_seed.noise.philox import second_word, table
from shared_seed.parallel import for_each
from shared_seed.transfer import uploaded
from shared_seed.weights import Trainable, Weights

PIECE = 1 << 19
"""Elements that a thread takes at once."""


@contextmanager
def exact_products() -> Iterator[None]:
    """Matrix products in true fp32: no autocast, no TF32, no bf16 inside."""
    with (
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        _true_fp32(),
    ):
        yield


@contextmanager
def _true_fp32() -> Iterator[None]:
    backends: list[Any] = [getattr(kind, "matmul", None) for kind in (torch.backends.cuda, torch.backends.mkldnn)]
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # torch before 2.9
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
        return
    # One by one: the getter of them all raises once a user has set one of these.
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def check_device(where: torch.device) -> None:
    """Prove that matrix products on a device take factors of 18 bits, and sum up to 24 bits, without rounding.

    Raises:
        GridError: they do round.
    """
    # As an update has them: units times signs, of sizes that tensor cores like. Powers of two would prove nothing,
    # since TF32 keeps 11 bits of a factor and bf16 8.
    samples, rows, columns = 64, 256, 128
    generator = np.random.default_rng(0)
    left, right = (1 - 2 * generator.integers(0, 2, (samples, n)) for n in (rows, columns))
    left *= generator.integers(-(1 << 17), 1 << 17, (samples, 1)) | 1
    start = generator.integers(-(1 << 22), 1 << 22, (rows, columns))
    expected = (start + left.T @ right).astype(np.float32)
    total, u, v = (torch.from_numpy(x.astype(np.float32)).to(where) for x in (start, left, right))
    with exact_products():
        total.addmm_(u.T, v)
    if not np.array_equal(total.cpu().numpy(), expected):
        raise GridError(
            f"matrix products on {where} round small integers; expected exact fp32; turn off reduced-precision "
            "matmul modes (TF32, oneDNN bf16) in your environment, such as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
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
    amounts = units.astype(np.float32) * np.array([t.grid.unit for t in weights], np.float32)
    _add([(tensor, amounts[:, tensor.index].copy()) for tensor in weights], samples)


def shift(tensors: Iterable[Trainable], sample: Sample, step: float) -> None:
    """Add ``step * z`` to some tensors, in place; ``step`` is on every grid."""
    amounts = np.array([step], np.float32)
    _add([(tensor, amounts) for tensor in tensors], [sample])


def _add(steps: Iterable[tuple[Trainable, NDArray[np.float32]]], samples: Sequence[Sample]) -> None:
    """Move tensors, each by so much along every sample's direction."""
    rows = table(samples)
    looked_up: list[_Piece] = []
    multiplied: list[_Piece] = []
    with exact_products():
        for tensor, amounts in steps:
            by_kernel = device.is_numpys(tensor.storage.device) and (
                tensor.family is Family.DENSE or lookup.available()
            )
            (looked_up if by_kernel else multiplied).extend(_pieces(tensor, amounts))
        looked_up.sort(key=lambda piece: piece.part.start - piece.part.stop)
        for_each(lambda piece: _look_up(piece, rows), looked_up, torch.get_num_threads())
        for piece in multiplied:
            _multiply(piece, samples)


def _pieces(tensor: Trainable, amounts: NDArray[np.float32]) -> Iterator[_Piece]:
    """A tensor, cut on block boundaries of its rows or elements."""
    shape = tensor.storage.shape
    width, count = (shape[1] if tensor.family is Family.RANK1 else 1), math.prod(shape)
    at_once = PIECE if tensor.storage.device.type == "cpu" else tensor.storage.piece
    length = width * BLOCK * max(1, at_once // max(1, BLOCK * width))
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
    """The sum as a product of matrices, or, for the dense family, by its device's kernels."""
    index, first = piece.tensor.index, piece.first_block
    with piece.tensor.storage.part(piece.part) as values:
        if piece.tensor.family is Family.DENSE:
            device.add_signs(values, samples, piece.amounts, index, first)
            return
        matrix, where = values.view(-1, piece.width), values.device
        u = device.sign_rows(samples, index, Purpose.ROW, len(matrix), where, first)
        v = device.sign_rows(samples, index, Purpose.COLUMN, piece.width, where)
        matrix.addmm_(u.mul_(uploaded(piece.amounts, where)[:, None]).T, v)
