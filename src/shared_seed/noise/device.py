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
from shared_seed.noise.philox import second_word, table
from shared_seed.transfer import uploaded


def signs(sample: Sample, tensor: int, purpose: Purpose, count: int, device: torch.device) -> Tensor:
    """float32 [count] of -1 and +1, on a device."""
    if gpu := _kernels(device):
        drawn: Tensor = gpu.signs(sample, tensor, purpose, count, device)
        return drawn
    return uploaded(cpu.signs(sample, tensor, purpose, count, torch.get_num_threads()), device)


def add_signs(
    values: Tensor, samples: Sequence[Sample], amounts: NDArray[np.float32], tensor: int, first_block: int = 0
) -> None:
    """Add ``sum_i amounts[i] * sign_i`` to a flat float32 tensor of the dense family, in place, in one pass.

    Exact on a grid that the values do not leave on the way, which the caller sees to.
    """
    if gpu := _kernels(values.device):
        gpu.add_signs(values, samples, amounts, tensor, first_block)
        return
    here, word = _on_host(values), second_word(tensor, Purpose.DENSE)
    cpu.add_signs(here.numpy(), first_block, word, table(samples), amounts)
    _send_back(here, values)


def sign_rows(
    samples: Sequence[Sample],
    tensor: int,
    purpose: Purpose,
    count: int,
    device: torch.device,
    first_block: int = 0,
) -> Tensor:
    """float32 [samples, count] of -1 and +1, from element ``128 * first_block`` on, on a device."""
    if gpu := _kernels(device):
        drawn: Tensor = gpu.sign_rows(samples, tensor, purpose, count, device, first_block)
        return drawn
    return uploaded(cpu.sign_rows(samples, tensor, purpose, count, first_block), device)


Place = tuple[torch.device, tuple[int, ...]]
"""A matrix's device and shape."""


def rank1(sample: Sample, matrices: Mapping[int, Place]) -> dict[int, tuple[Tensor, Tensor]]:
    """The factors ``u`` [rows] and ``v`` [columns] of each matrix's direction, on its device, by tensor index."""
    out: dict[int, tuple[Tensor, Tensor]] = {}
    for device in {where for where, _ in matrices.values()}:
        here = {index: shape for index, (where, shape) in matrices.items() if where == device}
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


def is_numpys(device: torch.device) -> bool:
    """Whether noise is added to a device's tensors by numba's kernels, where they lie."""
    return _is_host(device) and _kernels(device) is None


def _is_host(device: torch.device) -> bool:
    """Whether numpy can write a device's memory."""
    return device.type == "cpu"


def _on_host(values: Tensor) -> Tensor:
    """Where the CPU adds what belongs to some values: these, or zeros to be sent to where they are."""
    return values if _is_host(values.device) else torch.zeros(values.shape, dtype=torch.float32)


def _send_back(here: Tensor, values: Tensor) -> None:
    if here is not values:
        values.add_(uploaded(here.numpy(), values.device))


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
    count, tensor, first = 4099, 1 << 16, 5
    samples = [Sample((1 << 64) - 3, (1 << 32) - 5, 7), Sample(5, 6, (1 << 32) - 7)]
    amounts = np.array([12_345, -67_890], np.float32) / 1024
    mine, its = np.zeros(count, np.float32), torch.zeros(count, device=device)
    cpu.shift(mine, samples[0], tensor, Purpose.DENSE, 0.5, 1, first)
    cpu.add_signs(mine, first, second_word(tensor, Purpose.DENSE), table(samples), amounts)
    gpu.shift(its, samples[0], tensor, Purpose.DENSE, 0.5, first)
    gpu.add_signs(its, samples, amounts, tensor, first)
    drawn = gpu.sign_rows(samples, tensor, Purpose.ROW, count, device, first).cpu().numpy()
    rows = cpu.sign_rows(samples, tensor, Purpose.ROW, count, first)
    return its.cpu().numpy().tobytes() == mine.tobytes() and drawn.tobytes() == rows.tobytes()


def _warn(device: torch.device, reason: str) -> None:
    warnings.warn(
        f"noise for {device} is drawn on the CPU and copied, which is slower, since {reason}; expected a Triton "
        "as torch for CUDA brings it on Linux; training goes on with the same bits",
        RuntimeWarning,
        stacklevel=3,
    )
