"""The commands about recipes: what is listed, what is written, what a dry run says, and what overrides do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml

import tiny
from shared_seed import collection, log, recipe
from shared_seed.collection import Request
from shared_seed.errors import RecipeError
from shared_seed.folder import LOG_NAME
from shared_seed.summary import Summary

Call = Callable[..., tuple[int, str, str]]

ESCAPE, TURNED = "\x1b\x07", "\u202e"
"""Characters that terminals obey, and one that turns letters round."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny recipe, its model and its data."""
    folder = tmp_path_factory.mktemp("home")
    tiny.recipe(folder)
    return folder


@pytest.fixture
def with_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path) -> Path:
    """A copy of the collection that has a task ``toy`` besides."""
    copy = tmp_path / "collection"
    shutil.copytree(collection.folder(), copy)
    (copy / "tasks").mkdir(exist_ok=True)
    whole = yaml.safe_load((home / "tiny.yaml").read_text())
    task = {key: whole[key] for key in ("dataset", "task")} | {"training": {"steps": 40}}
    (copy / "tasks" / "toy.yaml").write_text(yaml.safe_dump(task))
    monkeypatch.setattr(collection, "folder", lambda: copy)
    return copy


# run


def test_overrides_reach_every_local_peer_also_with_quick(home: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "shared_seed", "run", str(home / "tiny.yaml"), "training.steps=2"]
    words += ["training.batch_size=4", "--local", "2", "--quick", "-o", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all 2 replicas hold identical bits" in done.stdout
    for folder in (tmp_path / "run", tmp_path / "run" / "peers" / "2"):
        carried = log.read(folder / LOG_NAME).manifest.recipe
        assert carried is not None
        assert (carried["training"]["steps"], carried["training"]["batch_size"]) == (2, 4)


def test_a_name_runs_without_a_file(with_task: Path, home: Path, call: Call, tmp_path: Path) -> None:
    changes = [f"model={home / 'model'}", "training.steps=2", "weights=fp32"]
    code, _, err = call("run", "opt-13b/toy", *changes, "-o", tmp_path / "r")
    assert code == 0, err
    carried = log.read(tmp_path / "r" / LOG_NAME).manifest.recipe
    assert carried is not None
    assert (carried["title"], carried["training"]["learning_rate"]) == ("opt-13b/toy", "auto")
    assert "facts" not in carried
    assert Summary.load(tmp_path / "r").gradients == 2 * 4


def test_a_run_by_name_has_a_folder_of_that_name(with_task: Path, home: Path, call: Call) -> None:
    code, _, err = call("run", "opt-125m/toy/lora", f"model={home / 'model'}", "training.steps=1")
    assert code == 0, err
    assert Path("runs/opt-125m-toy-lora", LOG_NAME).exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.step=3", "unknown key 'training.step'; did you mean 'steps'?"),
        ("training.steps=many", "training.steps: Input should be a valid integer"),
        ("steps", "override 'steps' is not KEY=VALUE"),
        ("weights=4bit", "weights: 4bit cannot"),
    ],
)
def test_a_wrong_override_ends_in_one_message(home: Path, call: Call, override: str, said: str) -> None:
    code, _, err = call("run", home / "tiny.yaml", override)
    assert code == 1
    assert said in " ".join(err.split())
    assert not Path("runs").exists()


# run --dry-run


def test_a_dry_run_prints_a_recipe_that_loads_and_measures_a_step(home: Path, call: Call, tmp_path: Path) -> None:
    code, out, err = call("run", home / "tiny.yaml", "training.steps=1000", "--local", 3, "--dry-run")
    assert code == 0, err
    (tmp_path / "printed.yaml").write_text(out)
    printed = recipe.load(tmp_path / "printed.yaml")
    whole = Request(str(home / "tiny.yaml"), ("training.steps=1000",)).find().recipe
    assert printed == whole.model_copy(update={"quick": {}})
    said = dict(line[2:].split(None, 1) for line in out.splitlines() if line.startswith("# "))
    assert "parameters are trained (from the configuration of" in said["model"]
    assert said["memory"].split(":")[1].startswith(" weights ")
    assert said["compute"] == "fp32, as the recipe says"
    assert said["wire"].startswith("94 bytes a step and peer to each subscriber; 188 received by each of 3 peers")
    assert "s each, the median of 3 measured here with one peer at the full 64 tokens" in said["time"]
    assert not Path("runs").exists()


def test_a_dry_run_of_one_peer_says_that_it_receives_nothing(home: Path, call: Call) -> None:
    code, out, err = call("run", home / "tiny.yaml", r'title="a\e\a\u202etitle"', "--dry-run")
    assert code == 0, err
    assert re.search(r"\d+ bytes a step and peer to each subscriber; one peer receives nothing; the log", out), out
    assert not {*ESCAPE, TURNED} & set(out)
    assert yaml.safe_load(out)["title"] == f"a{ESCAPE}{TURNED}title"


def test_a_dry_run_without_the_model_goes_by_the_facts(with_task: Path, call: Call) -> None:
    code, out, err = call("run", "llama-3.1-8b/toy/lora-4bit", "--dry-run")
    assert code == 0, err
    said = dict(line[2:].split(None, 1) for line in out.splitlines() if line.startswith("# "))
    assert said["model"].startswith(
        "3,407,872 of 8,033,669,120 parameters are trained (from the recipe's own facts"
    )
    assert said["download"] == "16.1 GB, gated"
    assert "weights 6.04 GB" in said["memory"]
    assert said["compute"] == "bf16, which weights in 4bit need"
    assert said["time"].startswith("unknown until the model is on this machine")


def test_a_dry_run_without_model_and_facts_says_so(home: Path, call: Call) -> None:
    code, out, err = call("run", home / "tiny.yaml", "model=some/model", "--dry-run")
    assert code == 0, err
    assert "# model     unknown: model 'some/model' is not on this machine" in out
    assert "# memory    unknown without it" in out


# recipes


def test_the_list_has_models_tasks_methods_and_ready_recipes(with_task: Path, call: Call) -> None:
    code, out, err = call("recipes")
    assert code == 0, err
    for kind in (*collection.KINDS, ""):
        assert all(name in out for name in collection.names(kind))
    row = next(line.split() for line in out.splitlines() if line.startswith("llama-3.1-8b"))
    assert row[1:] == ["8.0B", "16.1", "32.1", "16.1", "6.0", "llama3.1,", "gated"]
    assert re.search(r"^full +all parameters but embeddings +", out, re.M)
    assert f"any model goes with any task and method, {13 * 14 * 3} in all" in out


def test_the_list_can_be_narrowed_and_read_by_machines(with_task: Path, call: Call) -> None:
    found = json.loads(call("recipes", "350m", "--json")[1])
    assert [row["name"] for row in found.pop("models")] == ["opt-350m"]
    assert set(map(len, found.values())) == {0}
    found = json.loads(call("recipes", "llama-3*/toy/lora*", "--json")[1])
    names = [row["name"] for row in found["names"]]
    assert len(names) == 6
    assert {row["dataset"] for row in found["names"]} == {Request(names[0]).find().recipe.dataset}
    assert {row["gated"] for row in found["names"]} == {True}
    for options in ([], ["--json"]):
        code, out, err = call("recipes", "zzz", *options)
        assert (code, out) == (1, "")
        assert "no recipe or part of one is called 'zzz'" in err


def test_the_list_agrees_with_the_estimate_of_weights(with_task: Path, call: Call) -> None:
    from shared_seed.estimate import Memory
    from shared_seed.integrations.transformers.models import skeleton

    for row in json.loads(call("recipes", "*/toy/*", "--json")[1])["names"]:
        found = Request(row["name"], ("training.precision=bf16",)).find()
        assert found.facts is not None
        memory = Memory.of(skeleton(found.facts.config, found.recipe.lora), found.recipe)
        casts = memory.casts if found.recipe.lora is None else 0
        assert row["memory"] == pytest.approx(memory.weights + casts, rel=0.03), row["name"]


# init


def test_what_is_written_without_questions_runs_dry(call: Call, tmp_path: Path) -> None:
    rows = tiny.save_rows(tmp_path / "mine.csv", 50)
    code, out, err = call("init", "new/mine.yaml", "--data", rows, "--yes")
    assert code == 0, err
    assert "shared-seed run new/mine.yaml --dry-run" in out
    written = Request("new/mine.yaml").find().recipe
    assert (written.model, written.dataset) == ("HuggingFaceTB/SmolLM2-135M", str(rows))
    assert written.title == "smollm2-135m on mine"
    task = written.model_dump(mode="json")["task"]
    assert (task["prompt"], task["label"], task["test_rows"]) == ("{text} It was", "label", 10)
    assert task["words"] == {"0": "terrible", "1": "great"}
    code, out, err = call("run", "new/mine.yaml", "--dry-run")
    assert code == 0, err
    code, out, err = call("init", "new/mine.yaml", "--data", rows, "--yes")
    assert code == 1
    assert "is there already" in err


def test_what_is_written_for_a_local_model_trains(home: Path, call: Call, tmp_path: Path) -> None:
    options = ["--model", home / "model", "--data", home / "rows.csv", "--words", "0=bad, 1=good", "--steps", 2]
    code, _, err = call("init", "a.yaml", *options, "--prompt", "{text}\\nso:", "--yes")
    assert code == 0, err
    code, _, err = call("run", "a.yaml", "-o", tmp_path / "r")
    assert code == 0, err
    carried = log.read(tmp_path / "r" / LOG_NAME).manifest.recipe
    assert carried is not None
    assert carried["task"]["prompt"] == "{text}\nso:"
    assert carried["task"]["words"] == {"0": "bad", "1": "good"}


def test_a_listed_task_is_extended(with_task: Path, call: Call) -> None:
    options = ["--model", "opt-1.3b", "--data", "toy", "--method", "lora", "--peers", 4, "--yes"]
    assert call("init", "b.yaml", *options)[0] == 0
    content = yaml.safe_load(Path("b.yaml").read_text())
    assert content["extends"] == ["models/opt-1.3b", "tasks/toy", "methods/lora"]
    assert "task" not in content
    assert Request("b.yaml").find().recipe.swarm.peers == 4
    code, _, err = call("init", "c.yaml", *options, "--prompt", "{text}")
    assert code == 1
    assert "task 'toy' has a prompt already" in err


def test_questions_are_asked_with_what_was_found_as_default(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{'nice one' if n % 2 else 'bad one'} {n},{'up' if n % 2 else 'down'}" for n in range(20)]
    (tmp_path / "mine.csv").write_text("\n".join([f"said,mood{ESCAPE}", *rows]))
    asked = {}

    def prompt(question: str, default: object = None, **_: object) -> object:
        question, _, shown = question.partition(" [")
        asked[question] = default
        assert shown == f"{default}]".replace(ESCAPE, "")
        return "mine.csv" if question.startswith("task") else 7 if question == "steps" else default

    monkeypatch.setattr(typer, "prompt", prompt)
    code, _, err = call("init")
    assert code == 0, err
    assert asked["column with the label"] == f"mood{ESCAPE}"
    assert asked["prompt"] == f"said: {{said}}\\nmood{ESCAPE}:"
    assert asked["a word for each label"] == "down=down, up=up"
    assert Request("recipe.yaml").find().recipe.training.steps == 7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "sst3"], "there is no task 'sst3' among the recipes; did you mean 'sst2'?"),
        (["--data", "rows.csv", "--model", "smolm2-135m"], "did you mean 'smollm2-135m'?"),
        (["--data", "nowhere.csv"], "cannot read nowhere.csv"),
        (["--data", "rows.csv", "--label", "lable"], "the data has no column 'lable'; it has text, label"),
        (["--data", "rows.csv", "--words", "0:bad"], "'0:bad' is not LABEL=WORD"),
        (["--data", "rows.csv", "--words", "0=bad"], "task"),
        (["--data", "rows.csv", "--method", "lorra"], "extends 'methods/lorra'"),
        (["--data", "rows.csv", "--prompt", "{text} {label}"], "shows the label column"),
    ],
)
def test_a_wrong_answer_leaves_no_file(call: Call, options: list[str], said: str) -> None:
    tiny.save_rows(Path("rows.csv"), 20)
    code, _, err = call("init", "d.yaml", *options, "--yes")
    assert code == 1
    assert said in " ".join(err.split())
    assert not Path("d.yaml").exists()


def test_where_nothing_can_be_written_one_message_says_so(call: Call) -> None:
    Path("taken").touch()
    code, _, err = call("init", "taken/mine.yaml", "--data", "sst2", "--yes")
    assert code == 1
    assert "cannot write the recipe taken/mine.yaml" in " ".join(err.split())


def test_help_has_examples(call: Call) -> None:
    for command in ("recipes", "init"):
        code, out, _ = call(command, "--help")
        assert code == 0
        assert f"shared-seed {command} " in " ".join(out.split())


def test_the_text_of_a_recipe_bears_any_words(tmp_path: Path) -> None:
    from shared_seed.cli_init import Answers, text

    odd = 'a "b": {c} # ü\n\\ 足'
    answers = Answers("x/y", odd, None, odd.replace("{c}", "{t}"), odd, {odd: odd, "b": odd}, "full", 1, 1, 5)
    (tmp_path / "r.yaml").write_text(text(answers), encoding="utf-8")
    found = Request(str(tmp_path / "r.yaml")).find().recipe
    task = found.model_dump(mode="json")["task"]
    assert (found.dataset, task["label"], task["words"]) == (odd, odd, {odd: odd, "b": odd})


def test_a_collection_without_tasks_still_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    from shared_seed.cli_init import init

    monkeypatch.setattr(collection, "names", lambda kind="": [])
    with pytest.raises(RecipeError, match="give --data"):
        init(Path("never.yaml"), yes=True)
