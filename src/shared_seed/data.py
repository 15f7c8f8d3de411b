"""Rows: from a package, a local file or the Hub; split and sharded the same way everywhere."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_seed import packages
from shared_seed.errors import DataError
from shared_seed.recipe import Task

Row = dict[str, Any]

LOADERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""File endings and the ``datasets`` loaders that read them."""


@dataclass(frozen=True)
class Example:
    """A prompt and the index of its label in the task's words."""

    prompt: str
    label: int


@dataclass(frozen=True)
class Split:
    """Examples to train and to test on; ``dropped`` rows had no usable text or label."""

    train: list[Example]
    test: list[Example]
    dropped: int


def preload() -> None:
    """Import what reading data needs, ahead of time."""
    import datasets  # noqa: F401


def load(reference: str) -> list[Row]:
    """All rows of a dataset.

    Args:
        reference: ``package:NAME/FILE``, a local file or folder, or a Hub name.

    Raises:
        DataError: there is no such data, or it cannot be read.
    """
    if reference.startswith(packages.PREFIX):
        return _read_file(packages.find(reference))
    path = Path(reference).expanduser()
    if path.is_file():
        return _read_file(path)
    if path.suffix in LOADERS or reference.startswith((".", "/", "~")):
        raise DataError(f"there is no data file {path}; check the path")
    return _read_hub(reference)


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


def _read_hub(name: str) -> list[Row]:
    import datasets

    try:
        return list(datasets.load_dataset(name, split="train"))
    except Exception as error:  # as above
        raise DataError(
            f"cannot load dataset {name!r} from the Hub, and there is no file of that name: {error}"
        ) from error


def examples(rows: list[Row], task: Task) -> tuple[list[Example], int]:
    """Prompts with labels, and how many rows had none.

    Raises:
        DataError: a column is missing, or no row is usable.
    """
    columns = list(rows[0]) if rows else []
    fields = [name for _, name, _, _ in string.Formatter().parse(task.prompt) if name]
    for column in (task.label, *task.where, *fields):
        if column not in columns:
            raise DataError(f"the data has no column {column!r}; it has {', '.join(columns) or 'no rows'}")
    labels = list(task.words)
    kept = [row for row in rows if all(str(row[c]) == value for c, value in task.where.items())]
    out: list[Example] = []
    for row in kept:
        label = _label(row[task.label])
        shown = {name: _text(row[name]) for name in fields}
        if label in labels and all(shown.values()):
            out.append(Example(task.prompt.format(**shown), labels.index(label)))
    if not out:
        seen = sorted({_label(row[task.label]) for row in kept})[:5]
        raise DataError(
            f"none of {len(rows)} rows is usable: labels {', '.join(labels)} were expected in column "
            f"{task.label!r}, which holds {', '.join(seen) or 'nothing that passes the filter'}"
        )
    return out, len(kept) - len(out)


def _text(value: Any) -> str:
    """A cell as a prompt shows it; nothing for an empty one."""
    return "" if value is None else str(value).strip()


def _label(value: Any) -> str:
    """A label cell as recipes spell it: whole numbers without a point, as columns with gaps have one."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return _text(value)


def split(rows: list[Row], task: Task, seed: int) -> Split:
    """Shuffle by the seed and hold the first ``test_rows`` out.

    Raises:
        DataError: as :func:`examples`, or too few rows.
    """
    usable, dropped = examples(rows, task)
    random.Random(seed).shuffle(usable)
    if len(usable) <= task.test_rows:
        raise DataError(
            f"{len(usable)} usable rows leave nothing to train on after {task.test_rows} test rows; lower "
            "task.test_rows"
        )
    return Split(usable[task.test_rows :], usable[: task.test_rows], dropped)


def shard(train: list[Example], number: int, of: int) -> list[Example]:
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
