"""The noise on tensors, drawn where they live: by ``cpu`` on a CPU, by ``gpu`` on a CUDA device.

On any other device, and where Triton is missing or fails its check, the noise is drawn on the CPU and copied. The
bits are the same whichever way.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared_seed.noise import Purpose, Sample, cpu
from shared_seed.transfer import uploaded


def shift(values: Tensor, sample: Sample, tensor: int, purpose: Purpose, amount: float) -> None:
    """Add ``amount * sign`` to every element of a contiguous float32 tensor, in place."""
    if gpu := _kernels(values.device):
        gpu.shift(values, sample, tensor, purpose, amount)
    elif _is_host(values.device):
        cpu.shift(values.view(-1).numpy(), sample, tensor, purpose, amount, torch.get_num_threads())
    else:
        values.view(-1).add_(signs(sample, tensor, purpose, values.numel(), values.device), alpha=amount)


def signs(sample: Sample, tensor: int, purpose: Purpose, count: int, device: torch.device) -> Tensor:
    """float32 [count] of -1 and +1, on a device."""
    if gpu := _kernels(device):
        drawn: Tensor = gpu.signs(sample, tensor, purpose, count, device)
        return drawn
    return uploaded(cpu.signs(sample, tensor, purpose, count, torch.get_num_threads()), device)


def accumulate(
    values: Tensor, samples: Sequence[Sample], units: NDArray[np.int32], tensor: int, unit: float
) -> None:
    """Add ``unit * sum_i units[i] * sign_i`` to a contiguous float32 tensor, in place, in one pass.

    The sum is exact as long as the absolute units add up to less than 2**24, which the caller sees to.
    """
    threads = torch.get_num_threads()
    if gpu := _kernels(values.device):
        gpu.accumulate(values, samples, units, tensor, unit)
    elif _is_host(values.device):
        cpu.accumulate(values.view(-1).numpy(), samples, units, tensor, unit, threads)
    else:
        total = np.zeros(values.numel(), np.float32)
        cpu.accumulate(total, samples, units, tensor, unit, threads)
        values.view(-1).add_(uploaded(total, values.device))


def factors(
    samples: Sequence[Sample],
    tensor: int,
    purpose: Purpose,
    count: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """[samples, count] of -1 and +1, on a device."""
    if gpu := _kernels(device):
        drawn: Tensor = gpu.factors(samples, tensor, purpose, count, device, dtype)
        return drawn
    out = np.zeros((len(samples), count), np.float32)
    for row, sample in zip(out, samples, strict=True):
        cpu.shift(row, sample, tensor, purpose, 1.0, torch.get_num_threads())
    return uploaded(out, device).to(dtype)


def rank1(sample: Sample, matrices: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
    """The factors ``u`` [rows] and ``v`` [columns] of each matrix's direction, on its device, by tensor index."""
    out: dict[int, tuple[Tensor, Tensor]] = {}
    for device in {matrix.device for matrix in matrices.values()}:
        here = {index: matrix.shape for index, matrix in matrices.items() if matrix.device == device}
        wanted = [
            (index, purpose, shape[axis])
            for index, shape in here.items()
            for axis, purpose in enumerate((Purpose.ROW, Purpose.COLUMN))
        ]
        # One kernel for all: launching one for each would take longer than they run.
        gpu = _kernels(device)
        drawn = gpu.vectors(sample, wanted, device) if gpu else [signs(sample, *one, device) for one in wanted]
        out |= dict(zip(here, zip(drawn[::2], drawn[1::2], strict=True), strict=True))
    return out


def _is_host(device: torch.device) -> bool:
    """Whether numpy can write a device's memory."""
    return device.type == "cpu"


def _kernels(device: torch.device) -> ModuleType | None:
    """The kernels that draw on a device, ``None`` where the CPU has to."""
    return _proven(device) if device.type == "cuda" else None


@cache
def _proven(device: torch.device) -> ModuleType | None:
    """The Triton kernels, if they are there, run, and draw on this device what the CPU draws."""
    try:
        from shared_seed.noise import gpu
    except ImportError as error:
        _warn(device, f"Triton cannot be imported ({error})")
        return None
    try:
        right = _draws_the_same(gpu, device)
    except Exception as error:  # Whatever Triton, its C compiler or the driver raises.
        _warn(device, f"Triton's kernels do not run ({error})")
        return None
    if not right:
        _warn(device, "Triton's kernels draw other bits than the CPU's")
        return None
    return gpu


def _draws_the_same(gpu: ModuleType, device: torch.device) -> bool:
    """Run every kernel once, on more elements than one program takes and no multiple of a block."""
    count, tensor = 4099, 1 << 16
    samples = [Sample((1 << 64) - 3, (1 << 32) - 5, 7), Sample(5, 6, (1 << 32) - 7)]
    units = np.array([12_345, -67_890], np.int32)
    mine, its = np.zeros(count, np.float32), torch.zeros(count, device=device)
    cpu.shift(mine, samples[0], tensor, Purpose.DENSE, 0.5)
    cpu.accumulate(mine, samples, units, tensor, 2.0**-10)
    gpu.shift(its, samples[0], tensor, Purpose.DENSE, 0.5)
    gpu.accumulate(its, samples, units, tensor, 2.0**-10)
    drawn = gpu.factors(samples, tensor, Purpose.ROW, count, device).cpu().numpy()
    rows = [cpu.signs(sample, tensor, Purpose.ROW, count) for sample in samples]
    return its.cpu().numpy().tobytes() == mine.tobytes() and drawn.tobytes() == np.stack(rows).tobytes()


def _warn(device: torch.device, reason: str) -> None:
    warnings.warn(
        f"noise for {device} is drawn on the CPU and copied, which is slower, since {reason}; expected a Triton "
        "as torch for CUDA brings it on Linux; training goes on with the same bits",
        RuntimeWarning,
        stacklevel=3,
    )
