"""A first look at a data file: its columns, and what they seem to be for."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from shared_seed import packages
from shared_seed.errors import DataError

MOST_ROWS = 10_000
"""Rows that are looked at."""

MOST_LABELS = 20
"""Different values that a column of labels has at most."""

LABELS = ("label", "labels", "class", "target", "sentiment", "category", "answer")
"""Names that columns of labels often have, likeliest first."""

WORDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("0", "1"): ("terrible", "great"),
    ("neg", "pos"): ("terrible", "great"),
}
"""Label words for labels that mostly mean bad and good."""


@dataclass(frozen=True)
class Look:
    """The first rows of a file, as texts by column, and how many they are."""

    columns: dict[str, list[str]]
    rows: int

    @classmethod
    def at(cls, reference: str) -> Look:
        """Look at a CSV, TSV, JSON, JSONL or Parquet file.

        Raises:
            DataError: it cannot be read as what its name says, or has no rows.
        """
        prefixed = reference.startswith(packages.PREFIX)
        path = packages.find(reference) if prefixed else Path(reference).expanduser()
        reader = _READERS.get(path.suffix)
        if reader is None:
            raise DataError(f"{path} ends in {path.suffix!r}; expected one of {', '.join(_READERS)}")
        try:
            rows = list(islice(reader(path), MOST_ROWS))
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a row is not an object with a value for each column")
            columns = {str(name): [_text(row[name]) for row in rows] for name in (rows[0] if rows else ())}
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise DataError(f"cannot read {path} as {path.suffix[1:]}: {error}") from error
        if not columns:
            raise DataError(f"{path} has no rows; expected some")
        return cls(columns, len(rows))

    def label(self) -> str | None:
        """The column that is likeliest the label: few different values, a telling name; None if there is none."""
        most = min(MOST_LABELS, max(2, self.rows // 2))
        fit = [column for column, values in self.columns.items() if 2 <= len(set(values)) <= most]
        known = [name for name in LABELS if name in fit]
        return next(iter(known or fit[::-1]), None)

    def values(self, column: str) -> list[str]:
        """A column's different values in order, empty ones aside; the commonest :data:`MOST_LABELS`."""
        seen = Counter(value for value in self.columns[column] if value)
        return sorted(value for value, _ in seen.most_common(MOST_LABELS))

    def words(self, column: str) -> dict[str, str]:
        """A word for each label: usual ones for bad and good, else the label itself."""
        labels = self.values(column)
        usual = WORDS.get(tuple(label.lower()[:3] for label in labels), tuple(labels))
        return dict(zip(labels, usual, strict=True))

    def prompt(self, label: str) -> str:
        """A prompt that shows the longest texts, three columns of them at most."""
        fit = [c for c in self.columns if c != label and c.isidentifier() and not _numbers(self.columns[c])]
        if not fit:
            raise DataError(
                f"no column beside {label!r} holds text under a name of letters and digits; expected one; "
                "rename a column"
            )
        lengths = {c: sum(map(len, self.columns[c])) for c in fit}
        # What is much shorter than the longest is a name or a date, seldom what a label is about.
        shown = [c for c in fit if 4 * lengths[c] >= max(lengths.values())][:3]
        if len(shown) == 1 and tuple(self.words(label).values()) in WORDS.values():
            return f"{{{shown[0]}}} It was"
        return "".join(f"{c}: {{{c}}}\n" for c in shown) + f"{label}:"


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).strip()


def _numbers(values: list[str]) -> bool:
    return all(value.lstrip("-").replace(".", "", 1).isdigit() for value in values if value)


def _separated(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", restkey="")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _whole(path: Path) -> Iterator[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    yield from json.loads(text) if text.lstrip().startswith("[") else map(json.loads, text.splitlines())


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(1000):
            yield from batch.to_pylist()


_READERS = {".csv": _separated, ".tsv": _separated, ".jsonl": _lines, ".json": _whole, ".parquet": _parquet}
"""By file ending."""
