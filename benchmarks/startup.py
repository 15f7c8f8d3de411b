"""How long until the first step? A process that trains beside one that only evaluates.

    python benchmarks/startup.py                       # about a minute a model
    python benchmarks/startup.py --device cuda --model opt-1.3b

There was no GPU to run the last one on. One process imports, loads the model and does two plain forwards; the
other imports, loads it the same way, opens a session and does one full step, which holds two forwards, too. The
difference is what training adds, in the median of pairs of processes that run one after the other. Then once with
an empty folder for what numba compiles, as on a machine's very first use.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from common import child, options
from common.options import Options
from common.target import Target
from common.workloads import saved

BATCH = (16, 32)
"""Rows and tokens a row."""

MOST = 2.0
"""Seconds that a first step may add."""

Parts = dict[str, float]


@dataclass(frozen=True)
class Row:
    """Seconds from the process's start: of plain inference, what a first step adds to it, and its parts."""

    model: str
    cache: str
    inference: float
    added: float
    importing: float
    opening: float
    stepping: float


def run(way: str, folder: str, size: tuple[int, int], device: str, environment: Mapping[str, str]) -> Parts:
    """Seconds that each part of a process took, and ``total``."""
    began = time.monotonic()
    stamps = child.run("started", way, folder, *size, device, environment=environment)
    parts, before = {}, began
    for part, stamp in stamps.items():
        parts[part], before = stamp - before, stamp
    return {**parts, "total": before - began}


def compare(name: str, cache: str, inference: Sequence[Parts], ours: Sequence[Parts]) -> Row:
    """Print and return what pairs of processes say."""
    row = Row(
        name,
        cache,
        median(parts["total"] for parts in inference),
        median(b["total"] - a["total"] for a, b in zip(inference, ours, strict=True)),
        *(median(parts[part] for parts in ours) for part in ("import", "open", "step")),
    )
    print(
        f"{name:20} {cache} cache: inference {row.inference:.2f} s, a first step adds {row.added:.2f} s"
        f" (import {row.importing:.2f}, open {row.opening:.2f}, step {row.stepping:.2f})",
        flush=True,
    )
    return row


def measure(choice: Options, size: tuple[int, int] = BATCH) -> list[Row]:
    """Measure every model with a warm and a cold cache; print a line each."""
    rows = []
    for name in choice.models:
        with tempfile.TemporaryDirectory() as temporary:
            folder = saved(name, Path(temporary))

            def pair(cache: Mapping[str, str], folder: str = folder) -> tuple[Parts, Parts]:
                inference, ours = (run(way, folder, size, choice.device, cache) for way in ("inference", "ours"))
                return inference, ours

            pair({})  # fills numba's cache and the kernel's
            warm = [pair({}) for _ in range(1 if choice.quick else 5)]
            rows.append(compare(name, "warm", [a for a, _ in warm], [b for _, b in warm]))
            inference, ours = pair({"NUMBA_CACHE_DIR": str(Path(temporary) / "numba")})
            rows.append(compare(name, "cold", [inference], [ours]))
    return rows


def targets(rows: Sequence[Any]) -> list[Target]:
    """What a first step adds, where numba has compiled before."""
    return [
        Target(f"start to first step beyond plain inference, {row.model}", MOST, row.added, unit=" s")
        for row in rows
        if row.cache == "warm"
    ]


if __name__ == "__main__":
    options.main(str(__doc__), measure, targets)
