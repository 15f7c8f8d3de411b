"""The noise of :mod:`~shared_seed.noise.reference`, bit for bit, in Triton kernels on tensors of a CUDA device.

Everything random is integer arithmetic, so a GPU has no say in the bits. What is added to floats is a constant or
its negative, sample by sample in the order of the CPU's kernel.

With ``TRITON_INTERPRET=1`` in the environment before Triton is imported, the kernels run in its interpreter, on
CPU tensors too: slow, and how they are tested where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from shared_seed.noise import BLOCK, Purpose, Sample
from shared_seed.transfer import uploaded

Counters = tuple[int, int, int, int, int]

_BLOCKS = tl.constexpr(16)
"""Blocks of 128 elements that one program writes.

Four warps then hold 16 elements a thread. Compiled for sm_90 that takes up to 56 registers; 32 blocks take 164,
and 64 more than there are.
"""


@triton.jit
def _philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Ten rounds of Philox4x32 on uint32: a tensor of counters, or scalars."""
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high1, low1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def _negative(first, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """int1 [4 * _BLOCKS, 32]: which elements are -1, row by row, from block ``first`` on."""
    number = (first + tl.arange(0, _BLOCKS)).to(tl.uint32)
    w0, w1, w2, w3 = _philox(number, c1, c2, c3, k0, k1)
    # Joining makes a new last dimension: this order leaves the words as w0, w1, w2, w3 of each block in turn. They
    # are drawn once a block and spread afterwards; drawn for each element, Philox would cost most of the time.
    words = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), [4 * _BLOCKS])
    bit = tl.arange(0, 32).to(tl.uint32)
    return ((words[:, None] >> bit[None, :]) & 1) != 0


@triton.jit
def _negative_of(row, first):  # type: ignore[no-untyped-def]
    """:func:`_negative` for the five words that a row of a table begins with, each in an int64."""
    c1, c2, c3 = tl.load(row).to(tl.uint32), tl.load(row + 1).to(tl.uint32), tl.load(row + 2).to(tl.uint32)
    return _negative(first, c1, c2, c3, tl.load(row + 3).to(tl.uint32), tl.load(row + 4).to(tl.uint32))


@triton.jit
def _elements(first):  # type: ignore[no-untyped-def]
    """int64 [4 * _BLOCKS, 32]: the places of the elements of :func:`_negative`."""
    word = first.to(tl.int64) * 4 + tl.arange(0, 4 * _BLOCKS)
    return word[:, None] * 32 + tl.arange(0, 32)[None, :]


# Not specialised: Triton would compile anew for each number that is 1 or a multiple of 16.
@triton.jit(do_not_specialize=["count", "base", "samples"])
def _add_signs(values, count, base, table, amounts, samples):  # type: ignore[no-untyped-def]
    """``values[e] += sum_i amounts[i] * sign_i[e]``, sample by sample; ``values`` begins at block ``base``.

    ``table`` is int64 [samples, 5], words as in :func:`_counters`.
    """
    first = tl.program_id(0) * _BLOCKS
    place = _elements(first)
    inside = place < count
    total = tl.load(values + place, mask=inside)
    for i in range(samples):
        amount = tl.load(amounts + i)
        total += tl.where(_negative_of(table + i * 5, base + first), -amount, amount)
    tl.store(values + place, total, mask=inside)


@triton.jit
def _vectors(out, table):  # type: ignore[no-untyped-def]
    """float32 sign vectors, each at its own place in ``out``.

    ``table`` is int64 [vectors, 8]: five words as in :func:`_counters`, the block that the vector begins at, its
    place, its length.
    """
    row = table + tl.program_id(0) * 8
    base, count = tl.load(row + 5).to(tl.int32), tl.load(row + 7)
    first = tl.program_id(1) * _BLOCKS
    # All vectors get as many programs as the longest.
    if first.to(tl.int64) * 128 < count:
        negative, place = _negative_of(row, base + first), _elements(first)
        tl.store(out + tl.load(row + 6) + place, tl.where(negative, -1.0, 1.0), mask=place < count)


def _counters(sample: Sample, tensor: int, purpose: Purpose) -> Counters:
    """Words 1 to 3 of the counter and both of the key; word 0 is the number of the block."""
    _, c1, c2, c3 = sample.counter(tensor, purpose)
    return c1, c2, c3, sample.key & 0xFFFFFFFF, sample.key >> 32


def _programs(count: int) -> int:
    return -(-count // (BLOCK * int(_BLOCKS.value)))


def _on(values: Tensor) -> AbstractContextManager[None]:
    """Triton launches on the current device, wherever the tensors are."""
    return torch.cuda.device(values.device) if values.is_cuda else nullcontext()


def shift(
    values: Tensor, sample: Sample, tensor: int, purpose: Purpose, amount: float, first_block: int = 0
) -> None:
    """Add ``amount * sign`` to every element of a contiguous float32 tensor, in place."""
    _add(values, [_counters(sample, tensor, purpose)], np.array([amount], np.float32), first_block)


def signs(sample: Sample, tensor: int, purpose: Purpose, count: int, device: torch.device) -> Tensor:
    """float32 [count] of -1 and +1, on a device."""
    out = torch.zeros(count, dtype=torch.float32, device=device)
    shift(out, sample, tensor, purpose, 1.0)
    return out


def add_signs(
    values: Tensor, samples: Sequence[Sample], amounts: NDArray[np.float32], tensor: int, first_block: int = 0
) -> None:
    """Add ``sum_i amounts[i] * sign_i`` to a contiguous float32 tensor, in place, in one pass."""
    _add(values, [_counters(s, tensor, Purpose.DENSE) for s in samples], amounts, first_block)


def _add(values: Tensor, rows: list[Counters], amounts: NDArray[np.float32], first_block: int) -> None:
    flat = values.view(-1)
    if not flat.numel():
        return
    table = uploaded(np.array(rows, np.int64).reshape(-1, 5), flat.device)
    steps = uploaded(amounts, flat.device)
    with _on(flat):
        _add_signs[(_programs(flat.numel()),)](flat, flat.numel(), first_block, table, steps, len(rows))


def _draw(out: Tensor, rows: Sequence[tuple[int, ...]], longest: int) -> None:
    """Write the vectors of a table as :func:`_vectors` has it."""
    if not rows or not longest:
        return
    table = uploaded(np.array(rows, np.int64), out.device)
    with _on(out):
        _vectors[(len(rows), _programs(longest))](out, table)


def sign_rows(
    samples: Sequence[Sample],
    tensor: int,
    purpose: Purpose,
    count: int,
    device: torch.device,
    first_block: int = 0,
) -> Tensor:
    """float32 [samples, count] of -1 and +1, from element ``128 * first_block`` on, on a device."""
    out = torch.empty(len(samples), count, dtype=torch.float32, device=device)
    rows = [(*_counters(s, tensor, purpose), first_block, i * count, count) for i, s in enumerate(samples)]
    _draw(out, rows, count)
    return out


def vectors(sample: Sample, wanted: Sequence[tuple[int, Purpose, int]], device: torch.device) -> list[Tensor]:
    """The float32 sign vector of each wanted tensor, purpose and count, all drawn by one kernel."""
    rows: list[tuple[int, ...]] = []
    end = 0
    for tensor, purpose, count in wanted:
        rows.append((*_counters(sample, tensor, purpose), 0, end, count))
        # On a block boundary, so that whatever reads a vector finds it aligned.
        end += -(-count // BLOCK) * BLOCK
    out = torch.empty(end, dtype=torch.float32, device=device)
    _draw(out, rows, max((row[-1] for row in rows), default=0))
    return [out[place : place + count] for *_, place, count in rows]
