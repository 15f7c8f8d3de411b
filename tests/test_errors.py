"""The errors: the drawn tree is the real one, and none is there for nothing."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from shared_seed import errors
from shared_seed.errors import SharedSeedError

CLASSES = {
    name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)
}
SOURCE = Path(errors.__file__).parent


def drawn_tree() -> dict[str, str | None]:
    """Each class of the docstring's tree and its parent there."""
    tree: dict[str, str | None] = {}
    ancestors: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([ │├└─]*)([A-Z]\w*Error)\b", line)
        if not found:
            continue
        indent, name = len(found[1]), found[2]
        while ancestors and ancestors[-1][0] >= indent:
            ancestors.pop()
        tree[name] = ancestors[-1][1] if ancestors else None
        ancestors.append((indent, name))
    return tree


def raised_names() -> set[str]:
    """The names of all classes in raise statements of the package."""
    names = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                what = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                names.add(what.attr if isinstance(what, ast.Attribute) else getattr(what, "id", ""))
    return names


def test_the_docstring_draws_every_class_once_and_no_other() -> None:
    assert set(drawn_tree()) == set(CLASSES)
    drawn = re.findall(r"^[ │├└─]*([A-Z]\w*Error)\b", errors.__doc__ or "", re.MULTILINE)
    assert len(drawn) == len(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_the_docstring_draws_the_real_parent(name: str) -> None:
    ours = [base.__name__ for base in CLASSES[name].__bases__ if issubclass(base, SharedSeedError)]
    assert ours == [parent for parent in [drawn_tree()[name]] if parent is not None]


@pytest.mark.parametrize("name", CLASSES)
def test_also_a_valueerror_is_said_of_exactly_those(name: str) -> None:
    line = next(line for line in (errors.__doc__ or "").splitlines() if re.search(rf"\b{name}\b", line))
    assert issubclass(CLASSES[name], ValueError) == ("also a ValueError" in line)


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_raised_somewhere(name: str) -> None:
    assert name in raised_names()


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_explained(name: str) -> None:
    assert len((CLASSES[name].__doc__ or "").split()) >= 5
