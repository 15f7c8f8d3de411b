"""Words of strangers in Markdown: whatever they hold, they are shown, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MARKS = re.compile(r"([\\`*_\[\]~#!$(){}])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

LONGEST = 300
"""Characters of somebody else's line, beyond which it is cut off."""


def plain(value: object, longest: int = LONGEST) -> str:
    """One line of printable characters, cut off where it is too long."""
    words = " ".join(str(value).split())
    shown = "".join(c for c in words if c.isprintable())
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def text(value: object) -> str:
    """One line that means only its letters: no markup, no HTML, no links."""
    marked = _MARKS.sub(r"\\\1", plain(value))
    marked = "".join(_ENTITIES.get(c, c) for c in marked)
    # GitHub's Markdown makes links of bare addresses.
    return marked.replace("://", r":\/\/").replace("www.", r"www\.")


def code(value: object) -> str:
    """One line in a typewriter's letters."""
    shown = plain(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if "`" in shown or shown != shown.strip() or not shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def block(content: str, language: str = "") -> str:
    """Lines in a typewriter's letters, whatever fences they hold themselves."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    return f"{fence}{language}\n{content.rstrip()}\n{fence}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are Markdown."""
    lines = [list(head), *map(list, rows)]
    shown = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
    return "\n".join([shown[0], "|" + "---|" * len(lines[0]), *shown[1:]])
