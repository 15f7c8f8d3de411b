"""Runs one peer's way through recipes, in children that die by SIGKILL after so many rounds, one after the other.

Takes a JSON list of ways, as :func:`main` does, and prints a line for each way: how its processes ended, and of
which rows each batch was that their loops fetched. One process that has imported everything forks the others.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared_seed import data, recipe
from shared_seed.classification import Classification
from shared_seed.integrations.lightning import fit as lightning
from shared_seed.integrations.transformers import fit as transformers
from shared_seed.integrations.transformers.models import load
from shared_seed.job import Job, fit
from shared_seed.outcome import Step
from shared_seed.run import settings_for
from shared_seed.session import Session
from shared_seed.text_task import Batch, Feature

LOADED = (lightning, transformers)


class Noted(Classification):
    """Writes down of what each batch is made."""

    path: Path

    def collate(self, features: Sequence[Feature]) -> Batch:
        """As the task's own."""
        with self.path.open("a") as file:
            file.write(json.dumps([feature["input_ids"] for feature in features]) + "\n")
        return super().collate(features)


def run(way: dict[str, Any], batches: Path, die_after: int | None) -> None:
    """Train until the end, or until so many rounds of this process are done."""
    terms = recipe.load(Path(way["recipe"]))
    model, tokenizer = load(terms.model)
    task = Noted(terms.task, tokenizer, model)  # type: ignore[arg-type]
    task.path = batches
    features = task.encode(data.parts(terms.dataset, terms.task, 0).train)
    done = 0

    def step(session: Session, step: Step) -> None:
        nonlocal done
        done += 1
        if done == die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = settings_for(terms, Path(way["folder"]), number=way["number"], listen=way["listen"])
    fit(Job(terms, settings, model, task, features, step))


def forked(way: dict[str, Any], die_after: int | None) -> dict[str, Any]:
    """How a child ended, its exit code or the signal, negative; and the batches that it fetched."""
    batches = Path(way["folder"]).with_suffix(".batches")
    batches.write_text("")
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            run(way, batches, die_after)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"code": code, "batches": [json.loads(line) for line in batches.read_text().splitlines()]}


def main(ways: Sequence[dict[str, Any]]) -> None:
    """Go each way: a process for each entry of ``deaths``, which dies after so many rounds, and one to the end."""
    for way in ways:
        print(json.dumps([forked(way, after) for after in (*way["deaths"], None)]), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
