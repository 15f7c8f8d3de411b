"""What of a run is published: these files, made anew or copied, and nothing else of its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from shared_seed import card, log, metrics, packages, sections
from shared_seed.errors import CardError, HubError, LogError, RecipeError
from shared_seed.folder import LOG_NAME, REPORT_NAME
from shared_seed.manifest import Manifest
from shared_seed.run_facts import CURVE_NAME, RunFacts
from shared_seed.sections import Holds
from shared_seed.summary import NAME as SUMMARY_NAME

MANIFEST_NAME = "manifest.json"
RECIPE_NAME = "recipe.yaml"

COPIED = (metrics.NAME, SUMMARY_NAME, CURVE_NAME, REPORT_NAME)
"""What goes as it lies in the folder, if it does."""

NOT_PUBLISHED = ("README.md", ".gitattributes")
"""What saving a model may leave beside it."""


@dataclass(frozen=True)
class Publication:
    """Files by their names in the repository: their bytes, or where they lie."""

    facts: RunFacts
    files: dict[str, bytes | Path]

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {name: len(f) if isinstance(f, bytes) else f.stat().st_size for name, f in self.files.items()}

    def local_paths(self) -> list[str]:
        """What the recipe names that is somewhere on this machine, which readers will see."""
        recipe = self.facts.recipe
        named = (recipe.model, recipe.dataset) if recipe else ()
        return [name for name in named if not name.startswith(packages.PREFIX) and not card.hub_name(name)]

    def for_repository(self, name: str, holds: Holds) -> Publication:
        """The same with a card that says how to use it from there."""
        text = _decoded(self.files[card.NAME])
        text = sections.put_use(text, sections.use(self.facts, name, holds))
        return replace(self, files={**self.files, card.NAME: text.encode()})


def gather(folder: Path, unfinished: bool = False) -> Publication:
    """What of a run's folder is for everybody.

    The card is the folder's, so that it may be edited, or made if there is none. Of a log that was cut off, the
    whole records are taken.

    Raises:
        LogError: no log that can be read, or of a run that has not finished, unless ``unfinished``.
        CardError: the folder's card is not what the Hub takes.
    """
    path = folder / LOG_NAME
    try:
        logged = path.read_bytes()  # Once: a run under way appends to it.
    except OSError as error:
        raise LogError(
            f"cannot read {path}: {error.strerror}; expected a run folder with a gradient log in it"
        ) from error
    contents = log.parse(logged, path)
    if not contents.finished and not unfinished:
        raise LogError(
            f"{path} does not end with the digest that a finished run states: the run was cut off, or goes on; "
            "finish it with the command that began it, or publish it as it is with --unfinished"
        )
    facts = RunFacts.from_log(contents, folder)
    written = folder / card.NAME
    text = _decoded(written) if written.exists() else card.make(facts)
    card.check(text)
    files: dict[str, bytes | Path] = {
        card.NAME: text.encode(),
        LOG_NAME: logged[: contents.size],
        MANIFEST_NAME: readable(contents.manifest).encode(),
    }
    if facts.recipe is not None:
        files[RECIPE_NAME] = sections.recipe_text(facts.recipe).encode()
    for name in COPIED:
        if (folder / name).is_file():
            files[name] = (folder / name).read_bytes()
    return Publication(facts, files)


def readable(manifest: Manifest) -> str:
    """A manifest as JSON with a line for each field and each tensor."""
    lines = []
    for name, value in manifest.model_dump(mode="json").items():
        shown = json.dumps(value)
        if name == "tensors":
            shown = "[\n" + ",\n".join(f"  {json.dumps(tensor)}" for tensor in value) + "\n ]"
        lines.append(f" {json.dumps(name)}: {shown}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def with_model(
    publication: Publication, holds: Holds, folder: Path, base: str | None, tell: Callable[..., None]
) -> Publication:
    """Replay a run, and add the files of the model, or adapter, that it leads to.

    Args:
        publication: of the run.
        holds: the model's weights, or the adapter.
        folder: empty; where the files are saved.
        base: the base model, if not where the recipe says.
        tell: is told of progress, as :func:`shared_seed.replay.replay` does it.

    Raises:
        RecipeError: the run trained no adapter, or nothing else.
        LogError: the replayed weights are not those that the run stated.
        HubError: there is no room for them.
        SharedSeedError: as :func:`shared_seed.replay.replay`.
    """
    from shared_seed import replay as replays  # Late: torch takes seconds.
    from shared_seed.integrations.transformers.models import quiet

    facts = publication.facts
    check_kind(facts, holds)
    quiet()
    result = replays.replay(facts.contents, base, tell)
    if facts.digest not in (None, result.digest):
        raise LogError(
            f"the log states digest {facts.digest}, the replayed weights have {result.digest}; "
            "nothing was sent; fetch the log again from another peer"
        )
    if holds is Holds.ADAPTER:
        assert facts.recipe is not None
        for config in result.model.peft_config.values():
            config.base_model_name_or_path = facts.recipe.model  # Not where it lies on this machine.
    try:
        result.model.save_pretrained(folder)
        if holds is Holds.WEIGHTS:
            result.tokenizer.save_pretrained(folder)
    except OSError as error:
        raise HubError(f"cannot save the model in {folder} before it is sent: {error}; free some space") from error
    saved = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_PUBLISHED)
    added = {path.relative_to(folder).as_posix(): path for path in saved}
    return replace(publication, files={**publication.files, **added})


def check_kind(facts: RunFacts, holds: Holds) -> None:
    """Make sure that a run has what is asked for.

    Raises:
        RecipeError: it has something else.
    """
    adapter = facts.recipe is not None and facts.recipe.lora is not None
    if holds is Holds.ADAPTER and not adapter:
        raise RecipeError("the run trained no adapter; expected a recipe with 'lora'; use --weights")
    if holds is Holds.WEIGHTS and adapter:
        raise RecipeError("the run trained an adapter, and the weights are the base model's; use --adapter")


def _decoded(content: bytes | Path) -> str:
    try:
        return (content if isinstance(content, bytes) else content.read_bytes()).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(
            f"cannot read the card {card.NAME}: {error}; make it again with `shared-seed card`"
        ) from error
