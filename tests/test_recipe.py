"""Recipes say what is wrong, where, and what was meant."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared_seed import recipe
from shared_seed.collection import Request
from shared_seed.errors import RecipeError
from shared_seed.identity import Key
from shared_seed.manifest import Admission
from shared_seed.recipe import Recipe, TrainerName
from shared_seed.run import settings_for
from shared_seed.settings import Settings

KEY = Key(b"\x01" * 32).public.hex()
RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))

GOOD: dict[str, Any] = {
    "model": "some/model",
    "dataset": "rows.csv",
    "task": {"prompt": "{text} It was", "words": {0: "bad", 1: "good"}},
    "training": {"steps": 10, "learning_rate": 1e-3},
    "lora": {"rank": 4},
    "swarm": {"peers": 2},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good recipe with one key set; ``...`` takes it out."""
    content = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    section = content
    for parent in parents:
        section = section.setdefault(parent, {})
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return content


def refusal(content: object) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe.parse(content, "here")
    assert str(caught.value).startswith("here: ")
    return str(caught.value)


def test_a_minimal_recipe_has_defaults() -> None:
    parsed = recipe.parse(GOOD, "here")
    assert parsed.task.words == {"0": "bad", "1": "good"}
    assert parsed.training.trainer is TrainerName.TRANSFORMERS
    assert parsed.swarm.lockstep
    assert parsed.lora is not None
    assert parsed.lora.targets == ("q_proj", "v_proj")


def test_probes_of_an_adapter_look_further_unless_told() -> None:
    assert recipe.parse(GOOD, "here").training.epsilon == 2.0**-6
    assert recipe.parse(changed("training.epsilon", 2.0**-8), "here").training.epsilon == 2.0**-8
    without = recipe.parse(changed("lora", ...), "here")
    assert without.training.epsilon == 2.0**-8
    assert recipe.parse(changed("lora", None), "here").training.epsilon == 2.0**-8
    assert refusal(changed("training", 3)).startswith("here: training:")


def test_admission_is_open_by_default_and_reaches_the_settings(tmp_path: Path) -> None:
    assert settings_for(recipe.parse(GOOD, "here"), tmp_path).admission == Admission()
    listed = changed("swarm.admission", "invite")
    listed["swarm"]["keys"] = [KEY.upper()]
    parsed = recipe.parse(listed, "here")
    assert settings_for(parsed, tmp_path).admission == Admission(mode="invite", keys=(KEY,))
    assert settings_for(parsed, tmp_path, invite=None).admission.mode == "invite"
    assert recipe.parse(parsed.model_dump(mode="json"), "here") == parsed


def test_admission_can_be_overridden_in_part_or_whole() -> None:
    parsed = recipe.parse(changed("swarm.admission", "keys"), "here")
    listed = parsed.admitting(None, [KEY])
    assert (listed.swarm.admission, listed.swarm.keys, listed.swarm.peers) == ("keys", (KEY,), 2)
    assert listed.admitting("invite", ()).swarm.who_is_admitted() == Admission(mode="invite", keys=(KEY,))
    assert listed.admitting("open", ()).swarm.who_is_admitted() == Admission()
    assert listed.admitting(None, ()) == listed
    with pytest.raises(RecipeError, match="keys are listed, but admission is open"):
        recipe.parse(GOOD, "here").admitting(None, [KEY])
    with pytest.raises(RecipeError, match="is not a peer's key"):
        listed.admitting(None, [KEY[:-1]])


def test_keys_in_an_open_run_are_refused_since_they_would_keep_nobody_out() -> None:
    assert "keys are listed, but admission is open" in refusal(changed("swarm.keys", [KEY]))


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("modle", "model"),
        ("datasets", "dataset"),
        ("license", "licence"),
        ("trainings", "training"),
        ("task.promt", "prompt"),
        ("task.test_row", "test_rows"),
        ("training.learningrate", "learning_rate"),
        ("training.batchsize", "batch_size"),
        ("training.eps1lon", "epsilon"),
        ("lora.alhpa", "alpha"),
        ("lora.target", "targets"),
        ("swarm.lock_step", "lockstep"),
        ("swarm.dead_line", "deadline"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(path: str, nearest: str) -> None:
    assert f"unknown key '{path}'; did you mean '{nearest}'?" in refusal(changed(path, 1))


@pytest.mark.parametrize(
    ("path", "some"), [("zzzzzz", "dataset"), ("task.qqqqqq", "most_tokens"), ("swarm.vvvvvv", "lockstep")]
)
def test_an_unknown_key_like_no_other_is_refused_with_all_of_its_section(path: str, some: str) -> None:
    said = refusal(changed(path, 1))
    assert f"unknown key '{path}'; valid keys are " in said
    assert some in said.split("valid keys are ")[1]


@pytest.mark.parametrize(
    "path",
    [
        "model",
        "dataset",
        "task",
        "training",
        "task.prompt",
        "task.words",
        "training.steps",
    ],
)
def test_a_missing_key_is_named(path: str) -> None:
    assert f"key '{path}' is missing" in refusal(changed(path, ...))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model", 3),
        ("model", ""),
        ("dataset", ["a"]),
        ("task", "classify"),
        ("task.words", ["bad", "good"]),
        ("task.words", {"0": "only"}),
        ("task.test_rows", 0),
        ("task.most_tokens", 1),
        ("training.steps", "ten"),
        ("training.steps", 1.5),
        ("training.steps", 0),
        ("training.steps", None),
        ("training.batch_size", -1),
        ("training.probes_per_step", 256),
        ("training.learning_rate", 0),
        ("training.learning_rate", "guess"),
        ("training.learning_rate", float("nan")),
        ("training.learning_rate", float("inf")),
        ("training.trainer", "keras"),
        ("training.schedule", "cosine"),
        ("training.precision", "fp16"),
        ("weights", "fp16"),
        ("training.scale_exponent", 65),
        ("training.seed", -1),
        ("lora", 8),
        ("lora.rank", 0),
        ("lora.targets", []),
        ("swarm.peers", 0),
        ("swarm.deadline", 0),
        ("swarm.lockstep", "perhaps"),
        ("swarm.admission", "everybody"),
        ("swarm.keys", ["5e"]),
        ("swarm.keys", ["00" * 32]),
        ("swarm.keys", KEY),
        ("swarm.keys", [KEY] * 4097),
        ("swarm.aggregation", "median"),
        ("swarm.factor", 0),
        ("swarm.trim", 0.5),
    ],
)
def test_a_wrong_value_is_refused_where_it_stands(path: str, value: Any) -> None:
    assert path in refusal(changed(path, value))


def test_the_aggregation_of_a_recipe_reaches_the_settings() -> None:
    content = changed("swarm", {"aggregation": "trimmed", "factor": 2, "trim": 0.125})
    settings = settings_for(recipe.parse(content, "here"), Path("run"))
    assert (settings.aggregation, settings.factor, settings.trim) == ("trimmed", 2.0, 0.125)
    plain = settings_for(recipe.parse(changed("title", ""), "here"), Path("run"))
    assert (plain.aggregation, plain.factor, plain.trim) == ("sum", 3.0, 0.25)


def test_a_temperature_lowers_the_promise_so_that_steps_stay_as_long(tmp_path: Path) -> None:
    content = copy.deepcopy(GOOD)
    content["training"]["learning_rate"] = "auto"
    settings = settings_for(Recipe.model_validate(content), tmp_path)
    assert settings.promise == 0.01
    content["task"]["temperature"] = 4
    settings = settings_for(Recipe.model_validate(content), tmp_path)
    assert settings.promise == 0.0025
    content["training"]["learning_rate"] = 1e-3
    assert settings_for(Recipe.model_validate(content), tmp_path).promise is None


def test_the_limits_of_a_recipe_reach_the_settings() -> None:
    swarm = {"most_learning_rate": 0.01, "most_samples": 8, "streams_per_key": 3, "bytes_per_second": 50_000}
    terms = recipe.parse({**GOOD, "swarm": swarm}, "here")
    found = settings_for(terms, Path("out"))
    assert {name: getattr(found, name) for name in swarm} == swarm
    assert settings_for(recipe.parse(GOOD, "here"), Path("out")).bytes_per_second == 1_000_000


@pytest.mark.parametrize(
    ("name", "value"),
    [("most_samples", 0), ("most_samples", 256), ("streams_per_key", 0), ("bytes_per_second", 999)],
)
def test_limits_that_no_manifest_can_have_are_refused(name: str, value: int) -> None:
    with pytest.raises(RecipeError, match=name):
        recipe.parse({**GOOD, "swarm": {name: value}}, "here")
    with pytest.raises(RecipeError, match=name):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_weights_in_bfloat16_compute_in_bfloat16() -> None:
    content = changed("weights", "bf16")
    assert recipe.parse(content, "here").weights == "bf16"
    content["training"]["precision"] = "fp32"
    assert "weights: bf16 cannot compute in fp32; expected training.precision: auto or bf16" in refusal(content)


def test_4_bit_weights_are_for_adapters() -> None:
    content = changed("weights", "4bit")
    assert recipe.parse(content, "here").weights == "4bit"
    del content["lora"]
    assert "weights: 4bit cannot be trained; expected a 'lora' section" in refusal(content)
    content |= {"lora": {}, "training": GOOD["training"] | {"precision": "fp32"}}
    assert "weights: 4bit cannot compute in fp32" in refusal(content)


@pytest.mark.parametrize(
    ("base", "changes", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": {"b": 1}}, {"a": [1]}, {"a": [1]}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a": 1, "b": 2}, {"a": None, "c": None}, {"b": 2}),
        ({"a": {0: "x", "1": "y"}}, {"a": {"0": "z"}}, {"a": {"0": "z", "1": "y"}}),
        ({}, {"quick": {"lora": None}}, {"quick": {"lora": None}}),
    ],
)
def test_mappings_merge_and_null_takes_out(base: Any, changes: Any, merged: Any) -> None:
    before = copy.deepcopy(base)
    assert recipe.merged(base, changes) == merged
    assert base == before


@pytest.mark.parametrize("epsilon", [0.001, 0.3, 0, -0.5, 2, 2.0**-21, float("nan"), float("inf")])
def test_only_a_power_of_two_is_a_step(epsilon: float) -> None:
    assert "training.epsilon" in refusal(changed("training.epsilon", epsilon))


@pytest.mark.parametrize("epsilon", [1.0, 2.0**-8, 2.0**-20])
def test_powers_of_two_are_steps(epsilon: float) -> None:
    assert recipe.parse(changed("training.epsilon", epsilon), "here").training.epsilon == epsilon


@pytest.mark.parametrize(
    "prompt",
    [
        "{text.__class__}",
        "{text[0]}",
        "{text!r}",
        "{text:>1000000000}",
        "{text:{width}}",
        "{}",
        "{0}",
        "{text",
        "text}",
        "{a b}",
    ],
)
def test_a_prompt_has_plain_fields_only(prompt: str) -> None:
    assert "task.prompt" in refusal(changed("task.prompt", prompt))


def test_a_prompt_may_have_several_fields_and_braces() -> None:
    parsed = recipe.parse(changed("task.prompt", "{{x}} {premise} {hypothesis}"), "here")
    assert parsed.task.prompt.format(premise="a", hypothesis="b") == "{x} a b"


def test_a_prompt_must_not_tell_the_label() -> None:
    assert "shows the label column 'label'" in refusal(changed("task.prompt", "{text} is {label}"))


@pytest.mark.parametrize("content", [None, "text", 3, [], ["model"]])
def test_what_is_not_a_mapping_is_no_recipe(content: object) -> None:
    assert "expected keys such as 'model'" in refusal(content)


def test_several_mistakes_are_told_at_once() -> None:
    content = changed("modle", "x")
    del content["dataset"]
    content["training"]["steps"] = "ten"
    said = refusal(content)
    assert "did you mean 'model'" in said
    assert "'dataset' is missing" in said
    assert "training.steps" in said


def test_a_recipe_survives_being_carried_as_json() -> None:
    parsed = recipe.parse(GOOD, "here")
    assert recipe.parse(parsed.model_dump(mode="json"), "there") == parsed


# quick


def test_quick_overrides_what_it_names_and_nothing_else() -> None:
    content = changed("quick", {"training": {"steps": 3}, "swarm": {"peers": 1}, "title": "short"})
    whole = recipe.parse(content, "here")
    quick = whole.quickened()
    assert (quick.training.steps, quick.swarm.peers, quick.title, quick.quick) == (3, 1, "short", {})
    restored = quick.model_copy(
        update={"training": whole.training, "swarm": whole.swarm, "title": "", "quick": whole.quick}
    )
    assert restored == whole


@pytest.mark.parametrize(
    ("quick", "said"),
    [
        ({"trainin": {"steps": 3}}, "unknown key 'trainin'; did you mean 'training'"),
        ({"training": {"step": 3}}, "unknown key 'training.step'; did you mean 'steps'"),
        ({"training": {"steps": "few"}}, "training.steps"),
        ({"training": 3}, "training"),
    ],
)
def test_a_wrong_quick_section_is_refused(quick: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match="the quick section") as caught:
        recipe.parse(changed("quick", quick), "here").quickened()
    assert said in str(caught.value)


def test_a_recipe_without_quick_cannot_be_quickened() -> None:
    with pytest.raises(RecipeError, match="no 'quick' section"):
        recipe.parse(GOOD, "here").quickened()


# Files


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 1


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_in_the_repository_loads(path: Path) -> None:
    loaded = Request(str(path)).find().recipe
    assert isinstance(loaded, Recipe)
    assert loaded.title
    if loaded.quick:
        assert loaded.quickened().training.steps <= loaded.training.steps


def test_a_file_is_read_as_utf8_yaml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "title": "Füße 足"}, allow_unicode=True), encoding="utf-8")
    assert recipe.load(path).title == "Füße 足"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"model: [unclosed", "is not YAML"),
        (b"model: \xff\xfe", "is not UTF-8 text"),
        (b"model: !!python/object/apply:os.system [id]", "is not YAML"),
        (b"", "expected keys such as 'model'"),
        (b"[" * 5000, "is not YAML"),
        (b"a: 1\n---\nb: 2", "is not YAML"),
        (b"1: 2\n", "model"),
    ],
    ids=["syntax", "encoding", "object", "empty", "deep", "two documents", "number as key"],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(data)
    with pytest.raises(RecipeError, match=said) as caught:
        recipe.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        recipe.load(tmp_path / name)
