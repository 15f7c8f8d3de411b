"""Results as JSON, with the machine that they are from and how busy it was, and as Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import machine


def load() -> float:
    """Processes that wanted a processor in the last minute, on average."""
    return round(os.getloadavg()[0], 1)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def write(out: Path, name: str, figures: dict[str, Any], text: str) -> None:
    """Write ``name.json`` and ``name.md``."""
    out.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine.describe(), **figures}
    (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    loads = figures["load"]
    note = f"Load of the machine, one minute's mean: {loads[0]} at the beginning, {loads[1]} at the end.\n"
    (out / f"{name}.md").write_text(f"{text}\n{note}")
