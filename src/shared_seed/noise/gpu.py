"""The noise of :mod:`~shared_seed.noise.reference`, bit for bit, in Triton kernels on tensors of a CUDA device.

Everything random is integer arithmetic, so a GPU has no say in the bits. What is added to floats is a sign times
a constant, or an integer times a power of two: exact, so that a fused multiply-add gives the same.

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

_BLOCKS = tl.constexpr(16)
"""Blocks of 128 elements that one program writes.

Four warps then hold 16 elements a thread. Compiled for sm_90 that takes up to 56 registers; 32 blocks take 164,
and 64 more than there are.
"""

_SCALARS = ["count", "c1", "c2", "c3", "k0", "k1"]
"""Arguments that differ from call to call; Triton would compile anew for each that is 1 or a multiple of 16."""


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
def _word(value):  # type: ignore[no-untyped-def]
    """The 32 bits of an int32 that came as an argument, or the lower ones of an int64 from a table."""
    return value.to(tl.uint32)


@triton.jit
def _negative_of(row, first):  # type: ignore[no-untyped-def]
    """:func:`_negative` for the five words that a row of a table begins with."""
    c1, c2, c3 = _word(tl.load(row)), _word(tl.load(row + 1)), _word(tl.load(row + 2))
    return _negative(first, c1, c2, c3, _word(tl.load(row + 3)), _word(tl.load(row + 4)))


@triton.jit
def _elements(first):  # type: ignore[no-untyped-def]
    """int64 [4 * _BLOCKS, 32]: the places of the elements of :func:`_negative`."""
    word = first.to(tl.int64) * 4 + tl.arange(0, 4 * _BLOCKS)
    return word[:, None] * 32 + tl.arange(0, 32)[None, :]


@triton.jit(do_not_specialize=_SCALARS)
def _shift(values, count, amount, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """``values[e] += amount * sign[e]``."""
    first = tl.program_id(0) * _BLOCKS
    place = _elements(first)
    negative = _negative(first, _word(c1), _word(c2), _word(c3), _word(k0), _word(k1))
    inside = place < count
    old = tl.load(values + place, mask=inside)
    tl.store(values + place, tl.where(negative, old - amount, old + amount), mask=inside)


@triton.jit(do_not_specialize=["count", "samples"])
def _accumulate(values, count, table, samples, unit):  # type: ignore[no-untyped-def]
    """``values[e] += unit * sum_i units[i] * sign_i[e]``, the sum in integers.

    ``table`` is int64 [samples, 6]: five words as in :func:`_counters`, then the units.
    """
    first = tl.program_id(0) * _BLOCKS
    total = tl.zeros([4 * _BLOCKS, 32], tl.int32)
    for i in range(samples):
        row = table + i * 6
        units = tl.load(row + 5).to(tl.int32)
        total += tl.where(_negative_of(row, first), -units, units)
    place = _elements(first)
    inside = place < count
    old = tl.load(values + place, mask=inside)
    tl.store(values + place, old + unit * total.to(tl.float32), mask=inside)


@triton.jit
def _vectors(out, table):  # type: ignore[no-untyped-def]
    """Sign vectors, each at its own place in ``out``, whose dtype they take.

    ``table`` is int64 [vectors, 7]: five words as in :func:`_counters`, the vector's place, its length.
    """
    row = table + tl.program_id(0) * 7
    count = tl.load(row + 6)
    first = tl.program_id(1) * _BLOCKS
    # All vectors get as many programs as the longest.
    if first.to(tl.int64) * 128 < count:
        negative, place = _negative_of(row, first), _elements(first)
        # From float32: the interpreter converts integers to bf16 by their bits.
        signs = tl.where(negative, -1.0, 1.0).to(out.dtype.element_ty)
        tl.store(out + tl.load(row + 5) + place, signs, mask=place < count)


def _counters(sample: Sample, tensor: int, purpose: Purpose) -> tuple[int, int, int, int, int]:
    """Words 1 to 3 of the counter and both of the key; word 0 is the number of the block."""
    _, c1, c2, c3 = sample.counter(tensor, purpose)
    return c1, c2, c3, sample.key & 0xFFFFFFFF, sample.key >> 32


def _programs(count: int) -> int:
    return -(-count // (BLOCK * int(_BLOCKS.value)))


def _on(values: Tensor) -> AbstractContextManager[None]:
    """Triton launches on the current device, wherever the tensors are."""
    return torch.cuda.device(values.device) if values.is_cuda else nullcontext()


def shift(values: Tensor, sample: Sample, tensor: int, purpose: Purpose, amount: float) -> None:
    """Add ``amount * sign`` to every element of a contiguous float32 tensor, in place."""
    flat = values.view(-1)
    if not flat.numel():
        return
    # As int32, so that their type, and with it the compiled kernel, does not depend on their size.
    words = np.array(_counters(sample, tensor, purpose), np.uint32).view(np.int32).tolist()
    with _on(flat):
        _shift[(_programs(flat.numel()),)](flat, flat.numel(), amount, *words)


def signs(sample: Sample, tensor: int, purpose: Purpose, count: int, device: torch.device) -> Tensor:
    """float32 [count] of -1 and +1, on a device."""
    out = torch.zeros(count, dtype=torch.float32, device=device)
    shift(out, sample, tensor, purpose, 1.0)
    return out


def accumulate(
    values: Tensor, samples: Sequence[Sample], units: NDArray[np.int32], tensor: int, unit: float
) -> None:
    """Add ``unit * sum_i units[i] * sign_i`` to a contiguous float32 tensor, in place, in one pass.

    The sum is exact as long as the absolute units add up to less than 2**24, which the caller sees to.
    """
    flat = values.view(-1)
    if not flat.numel():
        return
    rows = [(*_counters(s, tensor, Purpose.DENSE), step) for s, step in zip(samples, units.tolist(), strict=True)]
    table = uploaded(np.array(rows, np.int64).reshape(-1, 6), flat.device)
    with _on(flat):
        grid = (_programs(flat.numel()),)
        _accumulate[grid](flat, flat.numel(), table, len(rows), unit)


def _draw(out: Tensor, rows: list[tuple[int, ...]], longest: int) -> None:
    """Write the vectors of a table as :func:`_vectors` has it."""
    if not rows or not longest:
        return
    table = uploaded(np.array(rows, np.int64), out.device)
    with _on(out):
        _vectors[(len(rows), _programs(longest))](out, table)


def factors(
    samples: Sequence[Sample],
    tensor: int,
    purpose: Purpose,
    count: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """[samples, count] of -1 and +1, on a device, in any dtype that has them."""
    out = torch.empty(len(samples), count, dtype=dtype, device=device)
    _draw(out, [(*_counters(s, tensor, purpose), i * count, count) for i, s in enumerate(samples)], count)
    return out


def vectors(sample: Sample, wanted: Sequence[tuple[int, Purpose, int]], device: torch.device) -> list[Tensor]:
    """The float32 sign vector of each wanted tensor, purpose and count, all drawn by one kernel."""
    rows: list[tuple[int, ...]] = []
    end = 0
    for tensor, purpose, count in wanted:
        rows.append((*_counters(sample, tensor, purpose), end, count))
        # On a block boundary, so that whatever reads a vector finds it aligned.
        end += -(-count // BLOCK) * BLOCK
    out = torch.empty(end, dtype=torch.float32, device=device)
    _draw(out, rows, max((row[-1] for row in rows), default=0))
    return [out[place : place + count] for *_, place, count in rows]
