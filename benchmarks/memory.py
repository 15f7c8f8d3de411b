"""How much memory does training take? Each way beside plain inference of the same fp32 model.

    python benchmarks/memory.py                        # ten processes a model
    python benchmarks/memory.py --device cuda --model opt-1.3b

There was no GPU to run the last one on. Each way runs in a process of its own that states its own largest resident
set (Linux's VmHWM; on a GPU, what torch has allocated there at most), so interpreter and libraries count. Loading
may take more than anything after it, which would hide what training adds, so the peak after loading is stated too,
and targets are about that. Ways in the Trainer are compared with the Trainer's own evaluation, the others with a
plain loop over the same batches; inference with an idle adapter shows what PEFT itself takes. What numba compiles
should be in its cache already, as after any earlier use.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import child, options
from common.options import Options
from common.resident import WAYS
from common.target import Target
from common.workloads import saved

BATCH = (16, 32)
"""Rows and tokens a row: few, since activations, which all ways share, would hide the rest."""

BASE = "inference"

MOST = {"ours": 1.05, "ours, LoRA": 1.02}
"""By way: how many times plain inference's peak it may take."""


@dataclass(frozen=True)
class Row:
    """One way: peak in MB of 10**6 bytes, with and without loading, and in peaks of inference after loading."""

    model: str
    way: str
    peak: float
    after_loading: float
    to_inference: float


def run(way: str, folder: str, size: tuple[int, int], steps: int, device: str) -> tuple[float, float]:
    """MB at the peak, and at the peak after loading, of a process that uses a model one way."""
    found = child.run("resident", way, folder, *size, steps, device)
    return found["peak"] / 1e6, found["after_loading"] / 1e6


def measure(choice: Options, size: tuple[int, int] = BATCH, ways: Sequence[str] = tuple(WAYS)) -> list[Row]:
    """Measure every model every way; print a line each."""
    rows = []
    for name in choice.models:
        with tempfile.TemporaryDirectory() as temporary:
            folder = saved(name, Path(temporary))
            found = {way: run(way, folder, size, 2 if choice.quick else 5, choice.device) for way in ways}
        for way, (peak, after) in found.items():
            base = found[f"Trainer, {BASE}" if way.startswith("Trainer") else BASE][1]
            row = Row(name, way, peak, after, after / base)
            print(f"{name:20} {way:20} peak {peak:6.0f} MB, after loading {after:6.0f} MB {row.to_inference:6.3f}")
            rows.append(row)
    return rows


def targets(rows: Sequence[Any]) -> list[Target]:
    """Ours against inference."""
    return [
        Target(f"peak memory to inference, {row.way}, {row.model}", MOST[bare], row.to_inference)
        for row in rows
        for bare in [row.way.removeprefix("Trainer, ")]
        if bare in MOST
    ]


if __name__ == "__main__":
    options.main(str(__doc__), measure, targets)
