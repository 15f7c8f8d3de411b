"""Where recipes are found, and how they are made of parts.

The collection is the folder ``recipes`` of the sources, or its copy in an installed package::

    NAME.yaml            recipes that are ready
    models/NAME.yaml     a base model: its name, licence, size, and what suits it
    tasks/NAME.yaml      a dataset, and how it is shown to the model
    methods/NAME.yaml    what of the model is trained, and how far a step goes

``MODEL/TASK`` and ``MODEL/TASK/METHOD`` name a recipe that no file holds. A file may ``extends`` others, by paths
from its own folder or from the collection, without ``.yaml`` if one likes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_seed import recipe
from shared_seed.errors import RecipeError
from shared_seed.facts import FACTS, Facts
from shared_seed.recipe import Recipe, merged

EXTENDS = "extends"
"""The key that names what a file builds on."""

KINDS = ("models", "tasks", "methods")
"""The collection's folders of parts, in the order in which a recipe's name gives them."""

METHOD = "full"
"""The method of a name without one."""

_ENDINGS = (".yaml", ".yml")
_OVERRIDE = re.compile(r"(?P<key>\w+(?:\.[^.=\s]+)*)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """A recipe, what is known of its base model beside it, and what to call a run of it."""

    recipe: Recipe
    facts: Facts | None
    name: str


@dataclass(frozen=True)
class Request:
    """A recipe as it is asked for on a command line: a file or a name, overrides, perhaps its quick version."""

    reference: str
    overrides: tuple[str, ...] = ()
    quick: bool = False

    def options(self) -> list[str]:
        """The words that ask ``shared-seed run`` for the same, after its name."""
        return [self.reference, *self.overrides, *(["--quick"] if self.quick else [])]

    def find(self) -> Found:
        """The recipe. Overrides win over its ``quick`` section, which wins over the rest.

        Raises:
            RecipeError: there is no such recipe, or it is none with these overrides.
        """
        changes = parse_overrides(self.overrides)
        content, source = _content(self.reference)
        content = merged(content, changes)
        facts = content.pop(FACTS, None)
        found = recipe.parse(content, source)
        if self.quick:
            short = {key: value for key, value in changes.items() if key not in ("quick", FACTS)}
            found = found.quickened().changed(short, source)
        name = re.sub(r"\W+", "-", Path(self.reference).stem if _is_file(self.reference) else self.reference)
        return Found(found, None if facts is None else Facts.of(facts, source), name.strip("-"))


def folder() -> Path:
    """Where the collection is: beside the sources, or in the installed package.

    Raises:
        RecipeError: it is in neither place.
    """
    package = Path(__file__).parent
    for place in (package / "recipes", package.parents[1] / "recipes"):
        if (place / KINDS[0]).is_dir():
            return place
    raise RecipeError(f"the recipes that come with shared-seed are not in {package / 'recipes'}; install it again")


def names(kind: str = "") -> list[str]:
    """What the collection has of one of :data:`KINDS`, or of ready recipes, in order of name."""
    return sorted(path.stem for path in (folder() / kind).glob("*.yaml"))


def part(kind: str, name: str) -> dict[str, Any]:
    """What one of the collection's parts says, with all that it extends.

    Raises:
        RecipeError: there is no such part; the nearest is named.
    """
    if name not in names(kind):
        near = difflib.get_close_matches(name, names(kind), 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names(kind))}"
        raise RecipeError(f"there is no {kind[:-1]} {name!r} among the recipes; {hint}")
    return _read(folder() / kind / f"{name}.yaml", ())


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """The changes that ``key.sub=value`` say, values as YAML has them; later ones win.

    Raises:
        RecipeError: one has another form, or its value is not YAML.
    """
    changes: dict[str, Any] = {}
    for word in words:
        match = _OVERRIDE.fullmatch(word)
        if match is None:
            raise RecipeError(f"override {word!r} is not KEY=VALUE; expected such as training.steps=500")
        value = recipe.parse_yaml(match["value"], f"the value of override {word!r}")
        for key in reversed(match["key"].split(".")):
            value = {key: value}
        changes = merged(changes, value, erase=False)
    return changes


def _content(reference: str) -> tuple[dict[str, Any], str]:
    """What a file or a name comes to, and what to call it in errors."""
    if _is_file(reference):
        return _read(Path(reference), ()), reference
    words = reference.split("/")
    if len(words) == 1 and reference in names():
        return _read(folder() / f"{reference}.yaml", ()), reference
    if len(words) in (2, 3):
        content: dict[str, Any] = {}
        for kind, name in zip(KINDS, [*words, METHOD], strict=False):
            content = merged(content, part(kind, name))
        return {"title": reference, **content}, reference
    near = difflib.get_close_matches(reference, names(), 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else "`shared-seed recipes` lists them"
    raise RecipeError(
        f"there is no recipe {reference!r}; expected a YAML file, or MODEL/TASK or MODEL/TASK/METHOD; {hint}"
    )


def _is_file(reference: str) -> bool:
    path = Path(reference)
    return reference.endswith(_ENDINGS) or (path.exists() and not path.is_dir())


def _read(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """A file's content over that of what it extends; ``below`` are the files that led to it."""
    here = path.resolve()
    if here in below:
        circle = " -> ".join(p.name for p in [*below[below.index(here) :], here])
        raise RecipeError(f"recipes extend each other in a circle: {circle}; take one 'extends' out")
    content = recipe.read(path)
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected keys such as 'model' and 'dataset', got {type(content).__name__}")
    base: dict[str, Any] = {}
    for reference in _extended(content.pop(EXTENDS, []), path):
        base = merged(base, _read(_found(reference, path), (*below, here)))
    return merged(base, content)


def _extended(value: object, path: Path) -> Iterator[str]:
    for reference in value if isinstance(value, list) else [value]:
        if not isinstance(reference, str):
            raise RecipeError(f"{path}: 'extends' names {reference!r}; expected paths such as models/opt-125m")
        yield reference


def _found(reference: str, path: Path) -> Path:
    """The file that ``extends`` in ``path`` means."""
    name = reference if reference.endswith(_ENDINGS) else f"{reference}.yaml"
    places = [path.parent / name, folder() / name]
    for place in places:
        if place.is_file():
            return place
    raise RecipeError(f"{path} extends {reference!r}, and there is neither {places[0]} nor {places[1]}")
