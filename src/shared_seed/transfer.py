"""Arrays on their way to a device."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def uploaded(values: NDArray[Any], device: torch.device) -> Tensor:
    """An array on a device, without making the host wait for what a CUDA device is doing; shared on a CPU."""
    host = torch.from_numpy(values)
    if device.type != "cuda":
        return host.to(device)
    # Only from pinned memory is a copy asynchronous; torch keeps that memory until the copy is done.
    return host.pin_memory().to(device, non_blocking=True)
