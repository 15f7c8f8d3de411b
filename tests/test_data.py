"""Rows become the same examples everywhere; what is unusable is counted or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_seed import data
from shared_seed.errors import DataError
from shared_seed.examples import Example, examples
from shared_seed.task import ClassificationTask

TASK = ClassificationTask(prompt="{text} It was", words={"0": "bad", "1": "good"}, test_rows=2)
ROWS: list[dict[str, Any]] = [{"text": f"film {i}", "label": i % 2} for i in range(9)]


def written(folder: Path, kind: str, rows: list[dict[str, Any]]) -> str:
    path = folder / f"rows{kind}"
    if kind in (".csv", ".tsv"):
        separator = "," if kind == ".csv" else "\t"
        lines = [separator.join(rows[0])]
        lines += [separator.join("" if v is None else f'"{v}"' for v in row.values()) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    elif kind == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == ".json":
        path.write_text(json.dumps(rows))
    else:
        import datasets

        datasets.Dataset.from_list(rows).to_parquet(path)
    return str(path)


@pytest.mark.parametrize("kind", list(data.LOADERS))
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    loaded = data.load(written(tmp_path, kind, ROWS))
    assert loaded == ROWS
    found, dropped = examples(loaded, TASK)
    assert found == [Example(f"film {i} It was", i % 2) for i in range(9)]
    assert dropped == {}


def test_a_file_inside_a_package_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, ".csv", ROWS)
    info = tmp_path / "tiny_rows-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-rows\nVersion: 1.0\n")
    (info / "RECORD").write_text("rows.csv,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert data.load("package:tiny-rows/rows.csv") == ROWS


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.csv", None, "there is no data file"),
        ("./missing", None, "there is no data file"),
        ("rows.txt", "text", "ends in '.txt'; expected one of .csv, .tsv"),
        ("rows.json", "{not json", "cannot read .*rows.json as json"),
        ("rows.parquet", "not parquet", "cannot read .*rows.parquet as parquet"),
        ("no-such-name-on-any-hub", None, "cannot load dataset 'no-such-name-on-any-hub' from the Hub"),
    ],
)
def test_data_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | None, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        data.load(name)


def task(**changes: Any) -> ClassificationTask:
    return ClassificationTask(
        **({"prompt": "{text} It was", "words": {"0": "bad", "1": "good"}, "test_rows": 2} | changes)
    )


@pytest.mark.parametrize(
    ("rows", "changes", "said"),
    [
        (ROWS, {"label": "stars"}, "no column 'stars'; it has text, label"),
        (ROWS, {"where": {"source": "x"}}, "no column 'source'; it has text, label"),
        (ROWS, {"prompt": "{review}"}, "the data has no column 'review'; it has text, label"),
        (ROWS, {"words": {"no": "bad", "yes": "good"}}, "none of 9 rows is usable: labels no, yes .* holds 0, 1"),
        (ROWS, {"where": {"text": "nothing"}}, "holds nothing that passes the filter"),
        ([], {}, "it has no rows"),
    ],
)
def test_data_that_does_not_fit_the_task_is_refused(rows: list[Any], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        examples(rows, task(**changes))


def test_rows_without_text_or_label_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [
        {"text": "fine", "label": "1"},
        {"text": "", "label": "1"},
        {"text": "   ", "label": "0"},
        {"text": None, "label": "0"},
        {"text": "no label", "label": None},
        {"text": "unknown label", "label": "7"},
        {"text": "  spaces  ", "label": "0"},
    ]
    found, dropped = examples(rows, TASK)
    assert found == [Example("fine It was", 1), Example("spaces It was", 0)]
    assert dropped == {"without text": 3, "without a label of the task's": 2}
    read, dropped = examples(data.load(written(tmp_path, ".jsonl", rows)), TASK)
    assert (read, dropped.total()) == (found, 5)


def test_an_empty_cell_that_the_prompt_does_not_show_drops_nothing() -> None:
    rows = [{"text": "fine", "label": 1, "note": None}, {"text": "poor", "label": 0, "note": ""}]
    assert examples(rows, TASK) == ([Example("fine It was", 1), Example("poor It was", 0)], {})


def test_numbers_as_labels_survive_an_empty_cell_in_their_column(tmp_path: Path) -> None:
    # Readers of CSV turn a column of integers with a hole into floating point.
    rows = [*ROWS[:4], {"text": "no label", "label": None}]
    found, dropped = examples(data.load(written(tmp_path, ".csv", rows)), TASK)
    assert found == [Example(f"film {i} It was", i % 2) for i in range(4)]
    assert dropped == {"without a label of the task's": 1}


def test_a_filter_keeps_only_rows_that_match_and_counts_none_as_dropped() -> None:
    rows = [{**row, "source": "a" if i < 3 else "b"} for i, row in enumerate(ROWS)]
    found, dropped = examples(rows, task(where={"source": "b"}))
    assert [e.prompt for e in found] == [f"film {i} It was" for i in range(3, 9)]
    assert dropped == {}


def test_braces_in_a_text_are_only_text() -> None:
    rows = [{"text": "{label} {0} {text.__class__}", "label": 1}]
    assert examples(rows, TASK)[0] == [Example("{label} {0} {text.__class__} It was", 1)]


@given(count=st.integers(3, 60), held_out=st.integers(1, 59), seed=st.integers(0, 5))
def test_a_split_is_disjoint_complete_and_the_same_every_time(count: int, held_out: int, seed: int) -> None:
    rows = [{"text": f"film {i}", "label": i % 2} for i in range(count)]
    wanted = task(test_rows=held_out)
    if held_out >= count:
        with pytest.raises(DataError, match=r"lower task\.test_rows"):
            data.split(rows, wanted, seed)
        return
    parts = data.split(rows, wanted, seed)
    assert len(parts.test) == held_out
    assert sorted(e.prompt for e in parts.train + parts.test) == sorted(f"film {i} It was" for i in range(count))
    assert data.split(rows, wanted, seed) == parts
    assert parts.dropped == {}


def test_different_seeds_split_differently() -> None:
    rows = [{"text": f"film {i}", "label": i % 2} for i in range(50)]
    assert len({tuple(e.prompt for e in data.split(rows, TASK, seed).test) for seed in range(5)}) > 1


@given(count=st.integers(1, 40), of=st.integers(1, 50))
def test_shards_are_disjoint_complete_and_of_like_size(count: int, of: int) -> None:
    train = [Example(str(i), 0) for i in range(count)]
    if of > count:
        with pytest.raises(DataError, match=f"{count} training rows cannot be shared among {of} peers"):
            data.shard(train, of - 1, of)
        return
    shards = [data.shard(train, number, of) for number in range(of)]
    assert sorted(e.prompt for shard in shards for e in shard) == sorted(e.prompt for e in train)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(("number", "of"), [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_that_does_not_exist_is_refused(number: int, of: int) -> None:
    with pytest.raises(DataError, match="does not exist"):
        data.shard([Example("a", 0)] * 4, number, of)
