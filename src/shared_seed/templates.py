"""Templates with the data's columns as named fields, and what they give for a row."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

CANDIDATE = "candidate"
"""The field that stands for one of the texts to choose among."""


def fields(template: str) -> list[str]:
    """The columns that a template names.

    Raises:
        ValueError: one of them is no plain column name, nor a path such as ``answers.text`` into a nested one.
    """
    names: list[str] = []
    for _, name, spec, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if not is_path(name) or spec or conversion:
            raise ValueError(f"field {{{name}}} is not a plain column name such as {{text}} or {{answers.text}}")
        names.append(name)
    return names


def is_path(name: str) -> bool:
    """Whether a name is that of a column, or a path with points into a nested one."""
    return all(part.isidentifier() and not part.startswith("__") for part in name.split("."))


def cell(row: Row, path: str) -> Any:
    """What a row holds at a path: in a list of records, the list of their values.

    Raises:
        KeyError: the path leads nowhere; holds the part that is missing.
    """
    value: Any = row
    for part in path.split("."):
        if isinstance(value, list):
            value = [each[part] for each in value]
        elif value is not None:
            value = value[part]
    return value


def text(value: Any) -> str:
    """A cell as a prompt shows it: nothing for an empty one, whole numbers without a point."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


@dataclass(frozen=True)
class Filled:
    """A template with a row in it; ``cut`` says where the text is that may be shortened, if any may."""

    text: str
    cut: tuple[int, int] | None = None

    def shortened(self, characters: int) -> str:
        """The text with this many characters of what may be cut, up to a space where there is one."""
        assert self.cut is not None
        start, end = self.cut
        last = min(start + characters, end)
        kept = self.text[start:last]
        within_word = last < end and not self.text[last].isspace()
        if within_word and len(kept.split()) > 1:
            kept = kept.rsplit(None, 1)[0]
        return self.text[:start] + kept.rstrip() + self.text[end:]


def fill(template: str, look_up: Callable[[str], str], cut: str | None = None) -> Filled:
    """A template's text; braces in the row's own texts are only text.

    Args:
        template: with named fields.
        look_up: gives the text for a field.
        cut: the field that may be shortened; its first place in the template counts.
    """
    parts: list[str] = []
    place: tuple[int, int] | None = None
    length = 0
    for literal, name, _, _ in string.Formatter().parse(template):
        pieces = [literal] if name is None else [literal, look_up(name)]
        parts += pieces
        if name is not None and name == cut and place is None:
            place = (length + len(literal), length + sum(map(len, pieces)))
        length += sum(map(len, pieces))
    return Filled("".join(parts), place)


def replaced(value: str, wanted: Mapping[str, str], look_up: Callable[[str], str]) -> str:
    """A text with some of its parts replaced, in one pass, the longest first; what comes in are templates too."""
    if not wanted:
        return value
    pattern = "|".join(re.escape(old) for old in sorted(wanted, key=len, reverse=True))
    return re.sub(pattern, lambda found: fill(wanted[found[0]], look_up).text, value)
