"""Every task in the repository: on rows as its data set has them, in a real Trainer, with random weights."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml

import models
from shared_seed import log, metrics, recipe
from shared_seed.audit import Options, audit
from shared_seed.data import parts
from shared_seed.errors import DataError
from shared_seed.examples import examples
from shared_seed.folder import LOG_NAME
from shared_seed.integrations.transformers.models import load
from shared_seed.recipe import Recipe
from shared_seed.replay import replay
from shared_seed.run import Part, settings_for, take_part
from shared_seed.summary import Summary
from shared_seed.text_tasks import build
from shared_seed.verdict import Agreement, Verdict

HERE = Path(__file__).parent
FRAGMENTS = {path.stem: path for path in sorted((HERE.parent / "recipes" / "tasks").glob("*.yaml"))}
PAPERS = {"sst2", "rte", "cb", "boolq", "wsc", "wic", "multirc", "copa", "record", "squad", "drop"}
"""The eleven tasks of Malladi et al. 2023."""

FIGURES = {
    "classification": {"accuracy", "loss"},
    "choice": {"accuracy", "loss"},
    "generation": {"exact match", "F1", "loss"},
    "chat": {"loss"},
}
"""Kind -> what it must be scored by."""

MODELS = {"opt": models.opt, "llama": models.llama}


def tokenizer() -> Any:
    """A real tokenizer that reads any text, with a token for each label word, and one that begins every text."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet)
    inner.train_from_iterator([": Yes No Maybe terrible great negative positive"] * 9, trainer)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token=None
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with models of random weights, by architecture."""
    home = tmp_path_factory.mktemp("models")
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    for name, build_model in MODELS.items():
        torch.manual_seed(0)
        build_model(vocab_size=400, max_position_embeddings=256, **ids).save_pretrained(home / name)
        tokenizer().save_pretrained(home / name)
    return {name: home / name for name in MODELS}


def rows_of(name: str) -> list[dict[str, Any]]:
    lines = (HERE / "task_rows" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def data_folder(name: str, folder: Path) -> Path:
    """A data set with the splits that the task names, as a folder of files."""
    task = yaml.safe_load(FRAGMENTS[name].read_text())["task"]
    place = folder / "data" / task.get("subset", "")
    place.mkdir(parents=True)
    for split in (task["train_split"], task["test_split"]):
        shutil.copy(HERE / "task_rows" / f"{name}.jsonl", place / f"{split}.jsonl")
    return folder / "data"


def composed(name: str, model: Path, folder: Path, task: dict[str, Any] | None = None, **training: Any) -> Recipe:
    """A task's fragment with a model, at the size of a test."""
    content = yaml.safe_load(FRAGMENTS[name].read_text())
    small: dict[str, Any] = {"most_tokens": 200, "validation_rows": 2, "evaluate_every": 2}
    if content["task"].get("kind") == "generation":
        small["most_new_tokens"] = 24
    content |= {"model": str(model), "dataset": str(data_folder(name, folder)), "title": name}
    content["task"] |= small | (task or {})
    content["training"] |= {"steps": 2, "batch_size": 3, "learning_rate": 0.1, "precision": "fp32"} | training
    return recipe.parse(content, name)


def ran(terms: Recipe, folder: Path) -> tuple[Summary, list[str]]:
    """The summary of a run as one peer, and what it told."""
    told: list[str] = []
    summary = take_part(
        terms, settings_for(terms, folder), Part(), True, lambda event: told.append(event.get("text", ""))
    )
    return summary, told


def test_the_papers_tasks_are_all_here() -> None:
    assert set(FRAGMENTS) >= PAPERS | {"rotten-tomatoes", "chat"}
    for name in PAPERS:
        task = yaml.safe_load(FRAGMENTS[name].read_text())["task"]
        assert (task["train_rows"], task["test_rows"]) == (1000, 1000)
        assert task["validation_rows"] == (100 if name in {"cb", "wsc", "copa"} else 500)


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("name", FRAGMENTS)
def test_every_task_trains_is_scored_and_replays(
    name: str, architecture: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    terms = composed(name, saved[architecture], tmp_path)
    summary, _ = ran(terms, tmp_path / "run")
    assert summary.before is not None
    assert summary.after is not None
    assert summary.before.rows == summary.after.rows >= 5
    assert summary.gradients == 2 * 4
    assert {figure for figure, *_ in summary.scores()} >= FIGURES[terms.task.kind]
    for score in (summary.before, summary.after):
        assert all(math.isfinite(value) for value, _ in score.figures().values())
    assert summary.before.loss != summary.after.loss
    lines = metrics.read(tmp_path / "run")
    assert [("validation" in line) for line in lines] == [False, True]
    assert lines[1]["validation"]["rows"] == 2
    assert replay(log.read(tmp_path / "run" / LOG_NAME)).digest == summary.digest


@pytest.mark.parametrize("name", ["cb", "copa", "squad", "chat"])
def test_every_kind_of_task_trains_in_lightning_and_replays(
    name: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    terms = composed(name, saved["llama"], tmp_path, trainer="lightning")
    summary, _ = ran(terms, tmp_path / "run")
    assert summary.gradients == 2 * 4
    assert replay(log.read(tmp_path / "run" / LOG_NAME)).digest == summary.digest


@pytest.mark.parametrize("name", ["copa", "squad", "chat"])
def test_every_kind_of_task_can_be_audited(name: str, saved: dict[str, Path], tmp_path: Path) -> None:
    terms = composed(name, saved["opt"], tmp_path, batches="assigned", steps=4)
    ran(terms, tmp_path / "run")
    (report,) = audit(log.read(tmp_path / "run" / LOG_NAME), Options(share=1)).streams
    assert isinstance(report, Agreement)
    assert (report.verdict, report.audited, report.worst) == (Verdict.AGREES, 4, 0)


def read_back(name: str, saved: dict[str, Path], tmp_path: Path, **task: Any) -> list[tuple[str, str]]:
    """What the model reads in training and what of it is trained on, for each row, as text."""
    terms = composed(name, saved["opt"], tmp_path, {"most_tokens": 2000, **task})
    model, reader = load(terms.model)
    features = build(terms.task, reader, model).encode(examples(rows_of(name), terms.task)[0])
    return [
        (reader.decode(f["input_ids"]), reader.decode([t for t in f.get("targets", []) if t >= 0]))
        for f in features
    ]


@pytest.mark.parametrize(
    ("name", "row", "whole", "trained"),
    [
        ("sst2", 1, "<s>dull from start to end It was", ""),
        ("cb", 2, 'May we conclude that "the train is late"? Yes, No or Maybe?\nAnswer:', ""),
        ("wsc", 0, 'In this text, does "it" mean The cup? Yes or No?\nAnswer:', ""),
        (
            "copa",
            0,
            "<s>The lamp went out. The reason: The bulb had burnt through.",
            " The bulb had burnt through.",
        ),
        ("copa", 1, "<s>She forgot her umbrella. The result: She got wet.", " She got wet."),
        (
            "record",
            1,
            "<s>Carla Reyes won the race ahead of Dana Holt.\n-\nDana Holt had led for an hour\n- Carla Reyes",
            " Carla Reyes took the gold medal.",
        ),
        ("squad", 1, "Question: When was it built?\nAnswer: 1874\n", " 1874\n"),
        ("drop", 3, "Question: Which teams played?\nAnswer: Herons\n", " Herons\n"),
        (
            "chat",
            0,
            "<s>User: Hi there\nAssistant: Hello! How can I help you today?</s>\nUser: How long is the ferry?\n"
            "Assistant: It takes an hour.</s>\n",
            " Hello! How can I help you today?</s>\n It takes an hour.</s>\n",
        ),
    ],
)
def test_rows_are_read_as_the_task_says(
    name: str, row: int, whole: str, trained: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    read, targets = read_back(name, saved, tmp_path)[row]
    assert whole in read
    assert targets == trained


@pytest.mark.parametrize("name", FRAGMENTS)
def test_what_is_too_long_loses_neither_answer_nor_end_of_the_prompt(
    name: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    rows = read_back(name, saved, tmp_path)
    _, reader = load(str(saved["opt"]))
    most = max(len(reader(read, add_special_tokens=False).input_ids) for read, _ in rows) - 5
    terms = composed(name, saved["opt"], tmp_path / "short", {"most_tokens": most})
    model, reader = load(terms.model)
    task, dropped = build(terms.task, reader, model), Counter[str]()
    features = task.encode(examples(rows_of(name), terms.task)[0], dropped)
    assert all(len(f["input_ids"]) <= most for f in features)
    assert len(features) + dropped.total() == len(rows)
    if name == "chat":
        return
    assert dropped.total() == 0
    for feature, (read, trained) in zip(features, rows, strict=True):
        short = reader.decode(feature["input_ids"])
        assert short[-20:] == read[-20:]
        assert short.endswith(trained)
        if terms.task.cut is not None:
            assert short[:8] == read[:8]


def test_rows_that_are_left_out_are_told_by_reason(saved: dict[str, Path], tmp_path: Path) -> None:
    _, told = ran(composed("sst2", saved["opt"], tmp_path), tmp_path / "run")
    assert "left out 2 rows: 2 without text" in told
    _, told = ran(composed("record", saved["opt"], tmp_path / "r"), tmp_path / "record")
    assert "left out 2 rows: 2 without a right candidate" in told
    long = composed("chat", saved["opt"], tmp_path / "c", {"most_tokens": 60})
    _, told = ran(long, tmp_path / "chat")
    assert any("too long" in line and "2 without an assistant's message" in line for line in told)


def test_data_of_which_no_row_fits_is_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    terms = composed("boolq", saved["opt"], tmp_path, {"most_tokens": 4})
    with pytest.raises(DataError, match=r"no row is left to train on; left out \d+ rows: \d+ too long; raise"):
        ran(terms, tmp_path / "run")


def test_a_peers_own_file_has_the_tasks_columns(saved: dict[str, Path], tmp_path: Path) -> None:
    terms = composed("squad", saved["llama"], tmp_path)
    own = tmp_path / "own.parquet"
    datasets.Dataset.from_list(rows_of("squad")[:4]).to_parquet(own)
    settings = settings_for(terms, tmp_path / "run")
    summary = take_part(terms, settings, Part(own=str(own)), False, lambda event: None)
    assert summary.gradients == 2 * 4


def test_a_single_file_is_split_and_a_folder_has_splits(saved: dict[str, Path], tmp_path: Path) -> None:
    terms = composed("rte", saved["opt"], tmp_path, {"validation_rows": 1, "test_rows": 2})
    whole = parts(terms.dataset, terms.task, 0)
    assert [len(rows) for rows in (whole.train, whole.validation, whole.test)] == [5, 1, 2]
    alone = parts(str(HERE / "task_rows" / "rte.jsonl"), terms.task, 0)
    assert [len(rows) for rows in (alone.train, alone.validation, alone.test)] == [3, 1, 2]
    assert len({e.prompt for rows in (alone.train, alone.validation, alone.test) for e in rows}) == 6
    assert parts(terms.dataset, terms.task, 0) == whole
    fewer = terms.task.model_copy(update={"train_rows": 2})
    assert parts(terms.dataset, fewer, 0).train == whole.train[:2]
