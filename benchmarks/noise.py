"""How long does it take to draw signs? Beside a copy of a tensor of the same size.

    python benchmarks/noise.py

Drawing into fresh memory (``noise.cpu.signs``) is set beside a copy into fresh memory, and adding signs to memory
that is there (``noise.cpu.shift``) beside a copy into memory that is there. All threads draw. This measures the
CPU whatever the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common import options, timing
from common.options import Options
from common.target import Target
from shared_seed.noise import Purpose, Sample, cpu

ELEMENTS = 1 << 24

MOST = 1.3
"""How many times as long as a copy signs may take."""

PAIRS = {"signs": "copy to fresh memory", "shift": "copy"}
"""What is measured, and the copy that it stands beside."""


@dataclass(frozen=True)
class Row:
    """Nanoseconds a weight, and times as long as the copy beside it."""

    method: str
    beside: str
    nanoseconds: float
    to_copy: float


def measure(choice: Options, elements: int = ELEMENTS) -> list[Row]:
    """Time both ways and both copies; print a line each."""
    sample, threads = Sample(1, 2, 3), torch.get_num_threads()
    source, target = torch.zeros(elements), torch.zeros(elements)
    values = target.numpy()
    times = timing.contest(
        {
            "signs": lambda: cpu.signs(sample, 0, Purpose.DENSE, elements, threads),
            "copy to fresh memory": source.clone,
            "shift": lambda: cpu.shift(values, sample, 0, Purpose.DENSE, 1.0, threads),
            "copy": lambda: target.copy_(source),
        },
        5 if choice.quick else 31,
    )
    rows = []
    for method, beside in PAIRS.items():
        row = Row(method, beside, 1e9 * times.median(method) / elements, times.ratio(method, beside))
        print(f"{method:6} {row.nanoseconds:6.2f} ns a weight, {row.to_copy:5.2f} of a {beside}", flush=True)
        rows.append(row)
    return rows


def targets(rows: Sequence[Any]) -> list[Target]:
    """Signs against copies."""
    return [Target(f"{row.method} to a {row.beside} of the same tensor", MOST, row.to_copy) for row in rows]


if __name__ == "__main__":
    options.main(str(__doc__), measure, targets)
