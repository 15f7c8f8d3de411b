"""How near are a dry run's estimates? Memory and time that it foretells beside those of the run itself.

    python benchmarks/dry_run.py recipes/quickstart.yaml
    python benchmarks/dry_run.py recipes/quickstart.yaml weights=bf16 'lora={rank: 8}'

Every process states its own largest resident set: the estimate's, and that of a run of a few steps without
loading, as in `benchmarks/memory.py`. Overrides are those of `shared-seed run`. Linux only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

STEPS = 5
"""Rounds of the run that is measured; the first is left out of its time."""


@dataclass(frozen=True)
class Row:
    """Bytes at the peak and median seconds a step, foretold and measured, and their ratios."""

    memory_foretold: int
    memory_measured: int
    time_foretold: float
    time_measured: float

    @property
    def memory_ratio(self) -> float:
        """Foretold to measured."""
        return self.memory_foretold / self.memory_measured

    @property
    def time_ratio(self) -> float:
        """Foretold, at full length, to measured, on the task's rows."""
        return self.time_foretold / self.time_measured


def foretell(reference: str, overrides: Sequence[str], answers: SimpleQueue[Any]) -> None:
    """What a dry run says."""
    from shared_seed.calibration import seconds_a_step
    from shared_seed.collection import Request
    from shared_seed.estimate import Memory
    from shared_seed.integrations.transformers.models import config, skeleton

    recipe = Request(reference, tuple(overrides)).find().recipe
    total = Memory.of(skeleton(config(recipe.model), recipe.lora), recipe).total
    answers.put((total, seconds_a_step(recipe, total)))


def measure(reference: str, overrides: Sequence[str], answers: SimpleQueue[Any]) -> None:
    """What a short run takes."""
    from shared_seed import metrics
    from shared_seed.collection import Request
    from shared_seed.integrations.transformers import models
    from shared_seed.run import Part, settings_for, take_part

    recipe = Request(reference, (*overrides, f"training.steps={STEPS}")).find().recipe

    def begin(event: dict[str, Any]) -> None:
        if event.get("round") == 0:
            # Makes VmHWM begin anew (man 5 proc): loading, snapping and the test are over.
            Path("/proc/self/clear_refs").write_text("5")

    models.quiet()
    with tempfile.TemporaryDirectory() as folder:
        take_part(recipe, settings_for(recipe, Path(folder), number=0), Part(), False, begin)
        seconds = [line["seconds"] for line in metrics.read(Path(folder))]
    times = [after - before for before, after in pairwise(seconds)]
    status = Path("/proc/self/status").read_text()
    answers.put((1024 * int(status.split("VmHWM:")[1].split()[0]), statistics.median(times)))


def compare(reference: str, overrides: Sequence[str] = ()) -> Row:
    """Both, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    found = []
    for work in (foretell, measure):
        answers = context.SimpleQueue()
        process = context.Process(target=work, args=(reference, overrides, answers))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise SystemExit(f"{work.__name__} failed")
        found.append(answers.get())
    (memory, seconds), (peak, took) = found
    return Row(memory, peak, seconds, took)


def main(words: Sequence[str] | None = None) -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="print JSON")
    choice = parser.parse_args(words)
    row = compare(choice.recipe, choice.overrides)
    if choice.json:
        print(json.dumps(asdict(row)))
        return
    print(
        f"memory    {row.memory_foretold / 1e6:,.0f} MB foretold, {row.memory_measured / 1e6:,.0f} MB measured: "
        f"{row.memory_ratio:.2f}"
    )
    times = f"{row.time_foretold:.2f} s a step foretold, {row.time_measured:.2f} s measured"
    print(f"time      {times}: {row.time_ratio:.2f}")


if __name__ == "__main__":
    main()
