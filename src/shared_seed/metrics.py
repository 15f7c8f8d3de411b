"""The file of a run folder that says what each round was: a line of JSON for every step of this peer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shared_seed import codec
from shared_seed.files import replacing
from shared_seed.messages import Message

NAME = "metrics.jsonl"
"""In a run folder."""

Line = dict[str, Any]


def read(folder: Path) -> list[Line]:
    """The rounds that a folder's metrics tell of; what a crash has left of a line is left out."""
    path = folder / NAME
    found = []
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("round"), int):
            found.append(line)
    return found


def append(folder: Path, line: Line) -> None:
    """Write the line of a step."""
    with (folder / NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def mend(folder: Path, own: Iterable[Message], scale_exponent: int, until: int | None = None) -> None:
    """Make the file have one line for each round before ``until`` that this peer has published something for.

    A crash comes between a step and its line, and can take lines with it that were not yet on the disk. What is
    missing is told from the log, which has no losses: ``loss`` is then ``null``.

    Args:
        folder: of the run.
        own: this peer's messages, those of its earlier processes too.
        scale_exponent: of the run.
        until: the round that comes next; lines from there on are of steps that will be made again. All are kept by
            default.
    """
    published = {m.round: m for m in own if until is None or m.round < until}
    before = read(folder)
    lines: dict[int, Line] = {}
    if published or until is None:
        for line in before:
            if until is None or line["round"] < until:
                lines.setdefault(line["round"], line)
    for round_, message in published.items():
        lines.setdefault(round_, _told(message, scale_exponent))
    ordered = [lines[round_] for round_ in sorted(lines)]
    path = folder / NAME
    text = "".join(json.dumps(line) + "\n" for line in ordered)
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") == text:
        return
    if ordered or path.exists():
        with replacing(path) as new:
            new.write_text(text, encoding="utf-8")


def _told(message: Message, scale_exponent: int) -> Line:
    """What a log says of a step."""
    gradients = [codec.decode(code, scale_exponent) for code in message.codes]
    finite = [gradient for gradient in gradients if math.isfinite(gradient)]
    return {
        "round": message.round,
        "loss": None,
        "gradient": sum(finite) / len(finite) if finite else math.nan,
        "learning_rate": message.learning_rate * len(message.codes),
    }
