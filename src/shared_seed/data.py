"""Rows: from a package, a local file or the Hub; split and sharded the same way everywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_seed import packages
from shared_seed.errors import DataError
from shared_seed.examples import Dropped, examples
from shared_seed.task import Task
from shared_seed.templates import Row

LOADERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""File endings and the ``datasets`` loaders that read them."""


@dataclass(frozen=True)
class Split:
    """Examples to train, to validate and to test on, and how many rows gave none, by reason."""

    train: list[Any]
    validation: list[Any]
    test: list[Any]
    dropped: Dropped


def preload() -> None:
    """Import what reading data needs, ahead of time."""
    import datasets  # noqa: F401


def parts(reference: str, task: Task, seed: int) -> Split:
    """A dataset's examples as a task splits them.

    Where the dataset has splits, test rows come from the task's ``test_split``; a single file has none.

    Raises:
        DataError: as :func:`load` and :func:`split`.
    """
    train = load(reference, task)
    if task.test_split is None or _is_file(reference):
        return split(train, task, seed)
    return split(train, task, seed, _read_split(reference, task.test_split, task))


def load(reference: str, task: Task | None = None) -> list[Row]:
    """All rows of a dataset, or of its training split.

    Args:
        reference: ``package:NAME/FILE``, a local file, a local folder with a file for each split, or a Hub name.
        task: names subset, revision and split, where it is no file; by default the split ``train``.

    Raises:
        DataError: there is no such data, or it cannot be read.
    """
    if reference.startswith(packages.PREFIX):
        return _read_file(packages.find(reference))
    path = Path(reference).expanduser()
    if path.is_file():
        return _read_file(path)
    if not path.is_dir() and (path.suffix in LOADERS or reference.startswith((".", "/", "~"))):
        raise DataError(f"there is no data file {path}; check the path")
    return _read_split(reference, task.train_split if task else "train", task)


def _is_file(reference: str) -> bool:
    return reference.startswith(packages.PREFIX) or Path(reference).expanduser().is_file()


def _read_split(reference: str, name: str, task: Task | None) -> list[Row]:
    """One split, of a local folder that has a file of its name, else of what ``datasets`` finds."""
    subset, revision = (task.subset, task.revision) if task else (None, None)
    folder = Path(reference).expanduser()
    for place in (folder / subset, folder) if subset else (folder,):
        files = [place / f"{name}{ending}" for ending in LOADERS]
        found = [file for file in files if file.is_file()]
        if found:
            return _read_file(found[0])
    import datasets

    try:
        return list(datasets.load_dataset(reference, subset, split=name, revision=revision))
    except Exception as error:  # datasets raises whatever its readers raise
        what = f"split {name!r}" + (f" of subset {subset!r}" if subset else "")
        raise DataError(
            f"cannot load dataset {reference!r} from the Hub ({what}), and there is no file of that name: {error}"
        ) from error


def _read_file(path: Path) -> list[Row]:
    import datasets

    loader = LOADERS.get(path.suffix)
    if loader is None:
        raise DataError(f"{path} ends in {path.suffix!r}; expected one of {', '.join(LOADERS)}")
    options = {"sep": "\t"} if path.suffix == ".tsv" else {}
    try:
        table = datasets.load_dataset(loader, data_files=str(path), split="train", **options)
    except Exception as error:  # datasets raises whatever its readers raise
        raise DataError(f"cannot read {path} as {loader}: {error}") from error
    return list(table)


def split(rows: Sequence[Row], task: Task, seed: int, test: Sequence[Row] | None = None) -> Split:
    """Shuffle by the seed, hold the first rows out for the test and for validation, and train on what is left.

    Args:
        rows: to train on, to validate on, and, without rows of their own, to test on.
        task: says how many.
        seed: of the order.
        test: rows of a test split, of which at most ``test_rows`` are taken.

    Raises:
        DataError: as :func:`shared_seed.examples.examples`, or too few rows.
    """
    usable, dropped = examples(rows, task)
    random.Random(seed).shuffle(usable)
    held_out, rest = usable[: task.test_rows], usable[task.test_rows :]
    if test is not None:
        others, dropped_there = examples(test, task)
        random.Random(seed).shuffle(others)
        held_out, rest, dropped = others[: task.test_rows], usable, dropped + dropped_there
    validation, train = rest[: task.validation_rows], rest[task.validation_rows :]
    if not train:
        raise DataError(
            f"{len(usable)} usable rows leave nothing to train on after {0 if test else task.test_rows} test rows "
            f"and {task.validation_rows} validation rows; lower task.test_rows or task.validation_rows"
        )
    return Split(train[: task.train_rows], validation, held_out, dropped)


def shard(train: list[Any], number: int, of: int) -> list[Any]:
    """The part of peer ``number`` of ``of``, counted from 0: every ``of``-th example.

    Raises:
        DataError: there is no such part, or nothing is in it.
    """
    if not 0 <= number < of:
        raise DataError(f"shard {number + 1} of {of} does not exist; expected 1 to {of}")
    part = train[number::of]
    if not part:
        raise DataError(f"{len(train)} training rows cannot be shared among {of} peers")
    return part
