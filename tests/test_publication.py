"""What of a run is published, and what stays."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import tiny
from shared_seed import card, log, publication
from shared_seed import recipe as recipes
from shared_seed.errors import CardError, HubError, LogError, RecipeError
from shared_seed.folder import LOG_NAME, PEER_NAME
from shared_seed.manifest import Manifest
from shared_seed.run_facts import RunFacts
from shared_seed.sections import Holds

PUBLIC = {
    "README.md",
    LOG_NAME,
    "manifest.json",
    "recipe.yaml",
    "metrics.jsonl",
    "result.json",
    "loss.png",
    "report.html",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.run(tiny.recipe(tmp_path_factory.mktemp("publication"), steps=4))


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def plant_private_files(folder: Path) -> set[str]:
    """Lay what nobody else should see beside what everybody may; returns its words."""
    (folder / "peers" / "2").mkdir(parents=True)
    (folder / "rank-1").mkdir()
    words = set()
    for i, name in enumerate(
        [
            "key",
            "peer.json.new",
            "notes.txt",
            "rows.csv",
            ".env",
            "low_bits.npz",
            "peers/2/gradients.sslog",
            "rank-1/x",
        ]
    ):
        words.add(f"private {i}")
        (folder / name).write_text(f"private {i}")
    return words


def test_what_is_listed_is_published_and_nothing_else(folder: Path) -> None:
    private = plant_private_files(folder)
    peer = (folder / PEER_NAME).read_text()
    found = publication.gather(folder)
    assert set(found.files) == PUBLIC
    everything = b"".join(content for content in found.files.values() if isinstance(content, bytes))
    assert not [word for word in private if word.encode() in everything]
    assert peer.encode() not in everything
    assert found.files[LOG_NAME] == (folder / LOG_NAME).read_bytes()
    assert found.sizes() == {
        name: len(content) for name, content in found.files.items() if isinstance(content, bytes)
    }


def test_manifest_and_recipe_are_read_again_as_they_were(folder: Path) -> None:
    found = publication.gather(folder)
    text = found.files["manifest.json"]
    assert isinstance(text, bytes)
    manifest = log.read(folder / LOG_NAME).manifest
    assert Manifest.model_validate(json.loads(text)) == manifest
    assert len(text.splitlines()) > len(manifest.tensors) + len(Manifest.model_fields) - 2
    recipe = folder / "again.yaml"
    recipe.write_bytes(found.files["recipe.yaml"])  # type: ignore[arg-type]
    assert recipes.load(recipe) == RunFacts.of(folder).recipe


def test_a_folder_with_the_log_alone_is_published_with_a_card_made_for_it(folder: Path) -> None:
    for name in PUBLIC - {LOG_NAME, "manifest.json", "recipe.yaml"}:
        (folder / name).unlink()
    found = publication.gather(folder)
    assert set(found.files) == {"README.md", LOG_NAME, "manifest.json", "recipe.yaml"}
    assert not (folder / "README.md").exists()


def test_an_unfinished_run_is_refused_unless_it_is_wanted_and_torn_bytes_stay(folder: Path) -> None:
    contents = log.read(folder / LOG_NAME)
    whole = log.encode(dataclasses.replace(contents, digest=None))
    (folder / LOG_NAME).write_bytes(whole + b"\x25\x00\x02")
    with pytest.raises(LogError, match="--unfinished"):
        publication.gather(folder)
    found = publication.gather(folder, unfinished=True)
    published = found.files[LOG_NAME]
    assert isinstance(published, bytes)
    assert whole.startswith(published)
    assert not log.parse(published, "published").torn
    assert len(log.parse(published, "published").messages) > 0


def test_a_card_that_was_edited_goes_as_it_is_but_for_the_repositorys_name(folder: Path) -> None:
    path = folder / card.NAME
    path.write_text(path.read_text().replace("# tiny", "# My own title").replace("license: x", ""))
    found = publication.gather(folder).for_repository("me/tiny", Holds.WEIGHTS)
    text = found.files[card.NAME]
    assert isinstance(text, bytes)
    assert b"# My own title" in text
    assert b"from_pretrained('me/tiny')" in text
    assert "me/tiny" not in path.read_text()
    path.write_text("---\nbase_model: [\n---\n")
    with pytest.raises(CardError, match="metadata"):
        publication.gather(folder)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CardError, match="cannot read the card"):
        publication.gather(folder)


def test_what_lies_on_this_machine_is_pointed_out(folder: Path) -> None:
    named = publication.gather(folder).local_paths()
    facts = RunFacts.of(folder)
    assert facts.recipe is not None
    assert named == [facts.recipe.model, facts.recipe.dataset]


def test_weights_and_adapters_are_asked_for_by_their_names(folder: Path) -> None:
    facts = RunFacts.of(folder)
    with pytest.raises(RecipeError, match="use --weights"):
        publication.check_kind(facts, Holds.ADAPTER)
    assert facts.recipe is not None
    lora = facts.recipe.model_copy(update={"lora": recipes.Lora()})
    with pytest.raises(RecipeError, match="use --adapter"):
        publication.check_kind(dataclasses.replace(facts, recipe=lora), Holds.WEIGHTS)


def test_weights_that_are_not_what_the_log_states_are_not_published(folder: Path, tmp_path: Path) -> None:
    contents = log.read(folder / LOG_NAME)
    wrong = dataclasses.replace(contents, digest=(len(contents.messages), b"\x01" * 32))
    (folder / LOG_NAME).write_bytes(log.encode(wrong))
    found = publication.gather(folder)
    with pytest.raises(LogError, match="nothing was sent"):
        publication.with_model(found, Holds.WEIGHTS, tmp_path / "model", None, lambda *_: None)


def test_a_model_that_finds_no_room_is_one_message(folder: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file where a folder is wanted")
    with pytest.raises(HubError, match="cannot save the model"):
        publication.with_model(publication.gather(folder), Holds.WEIGHTS, taken / "model", None, lambda *_: None)


def test_a_folder_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="expected a run folder"):
        publication.gather(tmp_path)
