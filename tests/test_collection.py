"""Recipes made of parts: names, files that extend others, overrides, and where all of it is found."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared_seed import collection
from shared_seed.collection import Request, parse_overrides
from shared_seed.errors import RecipeError

ROOT = Path(__file__).parent.parent
TASK = {"dataset": "rows.csv", "task": {"prompt": "{text} It was", "words": {0: "bad", 1: "good"}}}
MODEL = {"model": "some/model", "training": {"steps": 10, "learning_rate": 1e-3}}


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder with a model's part, a task's and a recipe of both."""
    write(tmp_path / "model.yaml", MODEL)
    write(tmp_path / "inside" / "task.yaml", TASK)
    write(tmp_path / "both.yaml", {"extends": ["model", "inside/task.yaml"]})
    return tmp_path


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def refusal(reference: object, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        Request(str(reference), overrides).find()
    return str(caught.value)


# Names


@pytest.fixture
def with_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the collection with a task ``toy``."""
    shutil.copytree(collection.folder(), tmp_path / "recipes")
    write(tmp_path / "recipes" / "tasks" / "toy.yaml", {**TASK, "training": {"steps": 40}})
    monkeypatch.setattr(collection, "folder", lambda: tmp_path / "recipes")
    return tmp_path / "recipes"


def test_all_models_with_all_tasks_and_methods_are_recipes(with_task: Path) -> None:
    kinds = [collection.names(kind) for kind in collection.KINDS]
    models, tasks, methods = kinds
    assert (len(models), len(tasks)) == (13, 13 + 1)
    assert methods == ["full", "lora", "lora-4bit"]
    assert "toy" in tasks
    found = {"/".join(words): Request("/".join(words)).find() for words in product(*kinds)}
    assert len(found) == 13 * 3 * len(tasks)
    for name, each in found.items():
        model, _, method = name.split("/")
        assert each.recipe.title
        assert each.recipe.model.lower().split("/")[1].startswith(model)
        assert each.facts is not None
        assert (each.recipe.lora is not None) == (method != "full")
        assert (each.recipe.weights == "4bit") == (method == "lora-4bit")
        assert each.recipe.licence
        assert 0 < Request(name, quick=True).find().recipe.training.steps < each.recipe.training.steps


@pytest.mark.parametrize("task", collection.names("tasks"))
def test_steps_are_those_of_the_task_and_enough_to_be_validated_on_the_way(task: str) -> None:
    steps = collection.part("tasks", task)["training"]["steps"]
    for method in collection.names("methods"):
        found = Request(f"opt-125m/{task}/{method}").find().recipe
        assert found.training.steps == steps
        assert found.task.validation_rows > 0
        assert found.task.evaluate_every is not None
        assert found.task.evaluate_every < steps


def test_a_name_without_a_method_trains_all_parameters(with_task: Path) -> None:
    short, long = (Request(name).find() for name in ("opt-125m/toy", "opt-125m/toy/full"))
    assert (short.name, long.name) == ("opt-125m-toy", "opt-125m-toy-full")
    assert short.recipe.title == "opt-125m/toy"
    assert short.recipe.model_copy(update={"title": ""}) == long.recipe.model_copy(update={"title": ""})


def test_a_method_wins_over_the_model(with_task: Path) -> None:
    full, lora = (Request(f"opt-13b/toy/{method}").find().recipe for method in ("full", "lora"))
    assert (full.weights, full.training.epsilon) == ("bf16", 2.0**-8)
    assert (lora.weights, lora.training.epsilon) == ("bf16", 2.0**-6)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("opt-125/toy", "there is no model 'opt-125' among the recipes; did you mean 'opt-125m'?"),
        ("opt-125m/toi", "there is no task 'toi' among the recipes; did you mean 'toy'?"),
        ("opt-125m/toy/loara", "there is no method 'loara' among the recipes; did you mean 'lora'?"),
        ("opt-125m/toy/zzz", "there is no method 'zzz' among the recipes; there are full, lora, lora-4bit"),
        ("quickstar", "there is no recipe 'quickstar'; expected a YAML file, or MODEL/TASK"),
        ("quickstar", "did you mean 'quickstart'?"),
        ("a/b/c/d", "`shared-seed recipes` lists them"),
        ("../models/toy", "there is no model '..' among the recipes"),
        ("", "there is no recipe"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(with_task: Path, reference: str, said: str) -> None:
    assert said in refusal(reference)


def test_a_ready_recipe_goes_by_its_name() -> None:
    assert Request("quickstart").find() == Request(str(ROOT / "recipes" / "quickstart.yaml")).find()


# Extending


def test_a_file_extends_others_from_its_own_folder_and_the_collection(parts: Path) -> None:
    both = Request(str(parts / "both.yaml")).find()
    assert (both.recipe.model, both.recipe.dataset, both.facts) == ("some/model", "rows.csv", None)
    extends = ["inside/task", "models/opt-125m", "methods/lora"]
    path = write(parts / "own.yaml", {"extends": extends, "training": {"steps": 40}})
    own = Request(str(path)).find()
    assert own.recipe.model == "facebook/opt-125m"
    assert own.recipe.licence == "other"
    assert own.recipe.lora is not None
    assert own.facts is not None
    assert own.name == "own"


def test_later_parts_win_and_the_file_itself_wins_over_all(parts: Path) -> None:
    write(parts / "slow.yaml", {"training": {"learning_rate": 0.5, "steps": 5}, "lora": {"rank": 2}})
    content = {"extends": ["both", "slow"], "training": {"steps": 7}, "task": {"words": {"1": "fine"}}}
    found = Request(str(write(parts / "own.yaml", content))).find().recipe
    assert (found.training.learning_rate, found.training.steps) == (0.5, 7)
    assert found.task.words == {"0": "bad", "1": "fine"}
    assert found.lora is not None
    again = write(parts / "again.yaml", {"extends": "own", "lora": None})
    whole = {"lora": None, "training": found.training.model_copy(update={"epsilon": 2.0**-8})}
    assert Request(str(again)).find().recipe == found.model_copy(update=whole)


def test_one_part_may_be_reached_by_two_ways(parts: Path) -> None:
    write(parts / "left.yaml", {"extends": "both", "title": "left"})
    write(parts / "right.yaml", {"extends": "both", "licence": "mit"})
    found = Request(str(write(parts / "top.yaml", {"extends": ["left", "right"]}))).find().recipe
    assert (found.title, found.licence) == ("left", "mit")


def test_a_circle_of_extends_is_refused(parts: Path) -> None:
    write(parts / "a.yaml", {"extends": "b"})
    write(parts / "b.yaml", {"extends": ["model", "a"]})
    assert "extend each other in a circle: a.yaml -> b.yaml -> a.yaml" in refusal(parts / "a.yaml")
    write(parts / "self.yaml", {"extends": "self"})
    assert "self.yaml -> self.yaml" in refusal(parts / "self.yaml")


@pytest.mark.parametrize(
    ("extends", "said"),
    [
        ("nowhere", "extends 'nowhere', and there is neither"),
        (["model", "models/opt-7b"], "extends 'models/opt-7b', and there is neither"),
        (3, "'extends' names 3; expected paths such as models/opt-125m"),
        ([["model"]], "'extends' names ['model']"),
        ({"model": "x"}, "'extends' names"),
    ],
)
def test_a_wrong_extends_is_refused(parts: Path, extends: object, said: str) -> None:
    assert said in refusal(write(parts / "own.yaml", {"extends": extends}))


def test_a_part_that_is_no_mapping_or_no_yaml_is_named(parts: Path) -> None:
    write(parts / "model.yaml", ["a"])
    assert f"{parts / 'model.yaml'}: expected keys such as 'model'" in refusal(parts / "both.yaml")
    (parts / "model.yaml").write_text("a: [")
    assert f"the recipe {parts / 'model.yaml'} is not YAML" in refusal(parts / "both.yaml")


def test_a_part_alone_is_not_a_recipe() -> None:
    said = refusal(ROOT / "recipes" / "models" / "opt-125m.yaml")
    assert "key 'dataset' is missing" in said
    assert "key 'task' is missing" in said


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"gated": True}, "facts.parameters"),
        ({"layers": 3}, "valid keys are gated, stored, parameters, config"),
        ("many", "facts"),
    ],
)
def test_wrong_facts_are_refused(parts: Path, facts: object, said: str) -> None:
    assert said in refusal(write(parts / "own.yaml", {"extends": "both", "facts": facts}))


# Overrides


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["training.steps=5"], {"training": {"steps": 5}}),
        (["training.steps=5", "training.seed=1"], {"training": {"steps": 5, "seed": 1}}),
        (["title=a=b"], {"title": "a=b"}),
        (["lora={rank: 4, targets: [q_proj]}"], {"lora": {"rank": 4, "targets": ["q_proj"]}}),
        (["lora=null"], {"lora": None}),
        (["task.words.0=awful"], {"task": {"words": {"0": "awful"}}}),
        (["swarm.lockstep=no"], {"swarm": {"lockstep": False}}),
        (["lora.rank=4", "lora=null"], {"lora": None}),
        (["task.prompt='{text}: '"], {"task": {"prompt": "{text}: "}}),
    ],
)
def test_overrides_are_yaml_values(words: list[str], changes: dict[str, Any]) -> None:
    assert parse_overrides(words) == changes


@pytest.mark.parametrize("word", ["steps", "=5", ".a=1", "a..b=1", "a b=1", "-x=1", ""])
def test_what_is_no_override_is_refused(word: str) -> None:
    with pytest.raises(RecipeError, match=r"is not KEY=VALUE; expected such as training.steps=500"):
        parse_overrides([word])


@pytest.mark.parametrize(
    "word", ["title=[", "title={a: b: c}", "title=!!python/name:os.system", "title=2026-99-99"]
)
def test_a_value_that_is_no_yaml_is_refused(word: str) -> None:
    with pytest.raises(RecipeError, match=r"the value of override .* is not YAML"):
        parse_overrides([word])


def test_overrides_win_and_are_checked_like_the_file(parts: Path) -> None:
    path = str(parts / "both.yaml")
    found = Request(path, ("training.steps=500", "training.learning_rate=1e-4", "lora.rank=2")).find().recipe
    assert (found.training.steps, found.training.learning_rate) == (500, 1e-4)
    assert found.lora is not None
    assert "unknown key 'training.step'; did you mean 'steps'?" in refusal(path, "training.step=3")
    assert "unknown key 'trainin'; did you mean 'training'?" in refusal(path, "trainin.steps=3")
    assert "training.steps: Input should be greater than 0, got -3" in refusal(path, "training.steps=-3")
    assert "key 'model' is missing" in refusal(path, "model=null")
    assert "unknown key 'extends'" in refusal(path, "extends=models/opt-125m")


def test_an_override_can_give_what_the_file_lacks(parts: Path) -> None:
    found = Request(str(parts / "inside" / "task.yaml"), ("model=x/y", "training={steps: 1, learning_rate: 0.1}"))
    assert found.find().recipe.model == "x/y"


def test_overrides_win_over_quick_and_quick_over_the_rest(parts: Path) -> None:
    path = str(write(parts / "own.yaml", {"extends": "both", "quick": {"training": {"steps": 3, "seed": 4}}}))
    found = Request(path, ("training.steps=5", "quick.training.batch_size=2"), quick=True).find().recipe
    training = found.training
    assert (training.steps, training.seed, training.batch_size) == (5, 4, 2)
    assert found.quick == {}
    assert Request(path, ("training.steps=5",)).find().recipe.training.seed == 0


def test_what_is_asked_for_can_be_asked_for_again() -> None:
    request = Request("a/b", ("training.steps=5", "title=x y"), quick=True)
    assert request.options() == ["a/b", "training.steps=5", "title=x y", "--quick"]


# Where it is found


def test_the_collection_of_the_sources_is_found() -> None:
    assert collection.folder() == ROOT / "recipes"


def test_a_wheel_carries_the_collection_and_finds_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("src", "recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    carried = {p.relative_to(ROOT / "recipes") for p in (ROOT / "recipes").rglob("*.yaml")}
    inside = tmp_path / "site" / "shared_seed" / "recipes"
    assert {p.relative_to(inside) for p in inside.rglob("*.yaml")} == carried
    code = "from shared_seed import collection; print(collection.folder(), *collection.names('models'))"
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, sys.argv[1]); {code}",
        str(tmp_path / "site"),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.split() == [str(inside), *collection.names("models")]
