"""One run from its first step to its last, and what has been run so far."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from convergence.bench import MODELS, Bench
from convergence.methods import METHODS, Method
from convergence.spec import ROWS, Point, Spec
from shared_seed.errors import HeadroomError

Builder = Callable[[Spec], Bench]


def run(spec: Spec, build: Builder | None = None, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Train and test as a spec says; returns its fields and its points, ``stopped`` if it diverged off the grid.

    Args:
        spec: what to run.
        build: makes the bench; by default that of the spec's model.
        tell: is told each point.
    """
    bench = (build or MODELS[spec.model])(spec)
    bench.train = bench.train[: spec.train_rows]
    method = METHODS[spec.method](bench, spec)
    points, seconds, stopped = [_point(method, 0, 0.0)], 0.0, ""
    due = {round(spec.steps * part / spec.points) for part in range(1, spec.points + 1)}
    for number in range(spec.steps):
        began = time.process_time()
        try:
            method.step(number)
        except HeadroomError as error:
            stopped = str(error)
            break
        seconds += time.process_time() - began
        if number + 1 in due:
            points.append(_point(method, number + 1, seconds))
            tell(f"  {points[-1]}")
    return {"spec": asdict(spec), "points": [asdict(point) for point in points], "stopped": stopped}


def _point(method: Method, steps: int, seconds: float) -> Point:
    spec, score = method.spec, method.bench.score()
    assert score.accuracy is not None
    rates, method.rates = method.rates, []
    passes = steps * spec.batch * spec.passes_a_step / ROWS
    return Point(
        passes,
        round(seconds, 1),
        method.sent,
        round(score.loss, 4),
        round(score.accuracy, 4),
        None if score.auc is None else round(score.auc, 4),
        None if score.median_accuracy is None else round(score.median_accuracy, 4),
        mean(rates) if rates else 0.0,
    )


class Ledger:
    """Results in a file, one JSON line a run, so that a lab that was stopped goes on; several may write to it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, specs: Iterable[Spec]) -> list[dict[str, Any]]:
        """The results of those that have been run."""
        if not self._path.exists():
            return []
        wanted = set(specs)
        found = [json.loads(line) for line in self._path.read_text().splitlines()]
        # What earlier runs do not say was as it is by default.
        return [result | {"spec": asdict(spec)} for result in found if (spec := Spec(**result["spec"])) in wanted]

    def complete(
        self, specs: Iterable[Spec], build: Builder | None = None, tell: Callable[[str], None] = print
    ) -> None:
        """Run what is not there yet, and write each down as it ends."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for spec in specs:
            if self.of([spec]):
                continue
            tell(spec.key)
            result = run(spec, build, tell)
            with self._path.open("a") as file:
                file.write(json.dumps(result) + "\n")
