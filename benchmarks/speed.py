"""All speed benchmarks and what was promised of them: one table, target beside measured.

    python benchmarks/speed.py --out runs/speed        # about a quarter of an hour on 2 cores
    python benchmarks/speed.py --quick --out runs/speed
    python benchmarks/speed.py --scaling --out runs/speed      # the scaling curves too
    python benchmarks/speed.py --device cuda --model opt-1.3b llama-3.2-1b --dtype bf16 --out runs/speed

There was no GPU to run the last one on; it gives the same table, and first compares the bits of an update with the
CPU's. The folder gets ``speed.json`` (the table, every figure behind it, the machine), ``table.md`` and
``speed.png``. Ratios are taken within one run on one machine, between neighbours in time;
benchmarks/common/timing.py says how. Steps are measured on all models, the rest on the first, where it takes many
processes or minutes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import memory
import noise
import replay
import scaling
import startup
import step
import update
from common import figures, machine, options, target
from common.options import Options
from common.target import Target

Judge = Callable[[Sequence[Any]], list[Target]]

PARTS: dict[str, tuple[Callable[..., Sequence[Any]], Judge]] = {
    "noise": (noise.measure, noise.targets),
    "update": (update.measure, update.targets),
    "step": (step.measure, step.targets),
    "replay": (replay.measure, replay.targets),
    "memory": (memory.measure, memory.targets),
    "startup": (startup.measure, startup.targets),
}
"""The benchmarks in the order that they run."""

ON_ONE_MODEL = ("replay", "memory", "startup")


def measure(choice: Options, out: Path, parts: Sequence[str] = tuple(PARTS)) -> list[Target]:
    """Run benchmarks, print the table, and write everything into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"the machine is in use (load {load:.1f}): ratios hold, seconds do not", flush=True)
    rows: dict[str, list[dict[str, Any]]] = {}
    judged: list[Target] = []
    for part in parts:
        print(f"--- {part}", flush=True)
        run, judge = PARTS[part]
        on = dataclasses.replace(choice, models=choice.models[:1]) if part in ON_ONE_MODEL else choice
        found = run(on)
        rows[part] = [asdict(row) for row in found]
        judged += judge(found)
    table = target.table(judged)
    print(", ".join(f"{key} {value}" for key, value in machine.describe(choice.device).items()))
    print(table)
    (out / "table.md").write_text(table + "\n")
    content = {"load_before": load, "targets": [t.as_json() for t in judged], "rows": rows}
    options.write(out / "speed.json", content, choice.device)
    figures.bars(out / "speed.png", judged)
    return judged


if __name__ == "__main__":
    parser = options.parser(str(__doc__))
    parser.add_argument("--out", type=Path, default=Path("runs/speed"), help="folder for the results")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), help="these benchmarks")
    parser.add_argument("--scaling", action="store_true", help="the scaling curves too")
    words = parser.parse_args()
    measure(options.of(words), words.out, words.only)
    if words.scaling:
        scaling.measure(options.of(words), words.out)
