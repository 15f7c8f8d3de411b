"""What a look at a data file finds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from shared_seed.errors import DataError
from shared_seed.peek import MOST_ROWS, Look

ROWS = [
    {"id": n, "headline": "short one", "body": "a rather long text of many words " * 3, "label": n % 2}
    for n in range(40)
]


def save(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        lines = [json.dumps(row) for row in rows]
        path.write_text(f"[{','.join(lines)}]" if path.name == "array.json" else "\n".join(lines))
    return str(path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "array.json", "a.parquet"])
def test_every_kind_of_file_looks_the_same(tmp_path: Path, name: str) -> None:
    look = Look.at(save(tmp_path / name, ROWS))
    assert look.rows == 40
    assert list(look.columns) == ["id", "headline", "body", "label"]
    assert look.label() == "label"
    assert look.words("label") == {"0": "terrible", "1": "great"}
    assert look.prompt("label") == "{body} It was"


def test_a_label_is_found_by_its_few_values(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "kind": "abc"[n % 3]} for n in range(30)]
    look = Look.at(save(tmp_path / "a.csv", rows))
    assert look.label() == "kind"
    assert look.words("kind") == {"a": "a", "b": "b", "c": "c"}
    assert look.prompt("kind") == "text: {text}\nkind:"


def test_a_pair_of_texts_is_shown_as_such(tmp_path: Path) -> None:
    rows = [{"premise": f"it is so {n}", "hypothesis": f"so it is {n}", "label": n % 2} for n in range(30)]
    look = Look.at(save(tmp_path / "a.csv", rows))
    assert look.prompt("label") == "premise: {premise}\nhypothesis: {hypothesis}\nlabel:"


def test_columns_that_cannot_be_fields_are_left_out(tmp_path: Path) -> None:
    look = Look.at(save(tmp_path / "a.csv", [{"my text": "x y", "label": n % 2} for n in range(9)]))
    with pytest.raises(DataError, match="no column beside 'label' holds text"):
        look.prompt("label")


def test_no_column_is_a_label_where_all_values_differ(tmp_path: Path) -> None:
    assert Look.at(save(tmp_path / "a.csv", [{"text": f"text {n}"} for n in range(30)])).label() is None


def test_only_the_first_rows_are_looked_at(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": n % 2} for n in range(MOST_ROWS + 10)]
    assert Look.at(save(tmp_path / "a.csv", rows)).rows == MOST_ROWS


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt", b"x", "ends in '.txt'; expected one of .csv"),
        ("a.csv", b"", "has no rows"),
        ("a.csv", b"text,label\n", "has no rows"),
        ("a.csv", b"text,label\n\xff\xfe,1\n", "cannot read"),
        ("a.jsonl", b"{", "cannot read"),
        ("a.jsonl", b"[1]\n", "cannot read"),
        ("a.jsonl", b'{"text": "x"}\n{"other": "y"}\n', "cannot read"),
        ("a.parquet", b"PAR1", "cannot read"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=said):
        Look.at(str(tmp_path / name))


def test_a_file_that_is_missing_is_refused() -> None:
    with pytest.raises(DataError, match=r"cannot read nowhere\.csv"):
        Look.at("nowhere.csv")
