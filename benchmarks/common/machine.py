"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def _processor() -> str:
    """The processor's model and, since model names can be hidden, what wide arithmetic it has."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    found = {name.strip(): value.strip() for name, value in fields.items()}
    wide = sorted({"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & set(found.get("flags", "").split()))
    return " ".join([found.get("model name", platform.processor()), *wide])


def describe(device: str = "cpu") -> dict[str, str | int]:
    """Processor, cores, threads, versions; the GPU's name where there is one."""
    out: dict[str, str | int] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.startswith("cuda"):
        out["gpu"] = torch.cuda.get_device_name()
    return out
