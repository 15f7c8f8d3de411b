"""The command ``shared-seed recipes``."""

from __future__ import annotations

import fnmatch
import json
import math
from itertools import product
from typing import Annotated, Any

import typer
from rich.table import Table

from shared_seed import collection, reference
from shared_seed.collection import Request
from shared_seed.errors import RecipeError
from shared_seed.facts import FACTS, Facts
from shared_seed.terminal import Terminal

out = Terminal()

TITLES = {
    "models": "models (download, and weights in memory by method, in GB)",
    "tasks": "tasks",
    "methods": "methods",
    "recipes": "ready recipes",
    "names": "recipes (download, and weights in memory, in GB)",
}


def recipes(
    pattern: Annotated[
        str, typer.Argument(help="Only names with this in them; with a slash, recipes such as llama*/boolq.")
    ] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="For machines: bytes, not GB.")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="Instead, the keys of a recipe, as Markdown.")] = False,
) -> None:
    """List the recipes that there are, and what they need.

    Any model goes with any task and method: `shared-seed run MODEL/TASK/METHOD`.

    Examples:
    `shared-seed recipes`

    `shared-seed recipes 'llama-3*/*/lora'`
    """
    if keys:
        out.print(reference.markdown(), end="", soft_wrap=True)
        return
    found = {"names": _names(pattern)} if "/" in pattern else _parts(pattern)
    if not any(found.values()):
        raise RecipeError(f"no recipe or part of one is called {pattern!r}; `shared-seed recipes` lists all")
    if as_json:
        out.print(json.dumps(found, indent=2), soft_wrap=True)
        return
    for kind, rows in found.items():
        if rows:
            out.print(_table(TITLES[kind], rows))
    if pattern == "*":
        count = math.prod(len(collection.names(kind)) for kind in collection.KINDS)
        out.print(f"any model goes with any task and method, {count} in all: shared-seed run MODEL/TASK/METHOD")


def _parts(pattern: str) -> dict[str, list[dict[str, Any]]]:
    """Models, tasks, methods and ready recipes with a pattern in their names."""
    describe = {"models": _model, "tasks": _task, "methods": _method, "": _ready}
    found = {
        kind or "recipes": [tell(name) for name in collection.names(kind) if fnmatch.fnmatch(name, f"*{pattern}*")]
        for kind, tell in describe.items()
    }
    found["models"].sort(key=lambda row: (row["hub"].split("/")[0], row["parameters"]))
    return found


def _model(name: str) -> dict[str, Any]:
    content = collection.part("models", name)
    facts = Facts.of(content[FACTS], name)
    weights = content.get("weights", "fp32")
    return {
        "name": name,
        "hub": content["model"],
        "parameters": facts.parameters,
        "download": facts.download,
        "full": facts.weights(weights, False),
        "lora": facts.weights(weights, True),
        "lora-4bit": facts.weights("4bit", True),
        "licence": content["licence"],
        "gated": facts.gated,
    }


def _task(name: str) -> dict[str, Any]:
    content = collection.part("tasks", name)
    task = content.get("task", {})
    return {
        "name": name,
        "kind": task.get("kind", "classification"),
        "dataset": content.get("dataset", ""),
        "subset": task.get("subset") or "",
    }


def _method(name: str) -> dict[str, Any]:
    content = collection.part("methods", name)
    lora = content.get("lora")
    every = content.get("training", {}).get("embeddings", False)
    trained = f"all parameters{'' if every else ' but embeddings'}"
    if lora:
        trained = f"an adapter of rank {lora['rank']} on {', '.join(lora['targets'])}"
    base = "4 bits, by bitsandbytes" if content.get("weights") == "4bit" else "as the model's part says"
    return {"name": name, "trains": trained, "weights": base}


def _ready(name: str) -> dict[str, Any]:
    recipe = Request(name).find().recipe
    return {"name": name, "title": recipe.title, "model": recipe.model, "dataset": recipe.dataset}


def _names(pattern: str) -> list[dict[str, Any]]:
    """The recipes that a pattern of MODEL/TASK or MODEL/TASK/METHOD names."""
    model, task, *method = pattern.split("/")
    wanted = zip(collection.KINDS, (model, task, *(method or "*")), strict=False)
    rows = []
    for words in product(*(fnmatch.filter(collection.names(kind), part) for kind, part in wanted)):
        name = "/".join(words)
        found = Request(name).find()
        facts, recipe = found.facts, found.recipe
        assert facts is not None
        rows.append(
            {
                "name": name,
                "parameters": facts.parameters,
                "download": facts.download,
                "memory": facts.weights(recipe.weights, recipe.lora is not None),
                "licence": recipe.licence,
                "gated": facts.gated,
                "dataset": recipe.dataset,
            }
        )
    return rows


BYTES = ("download", "full", "lora", "lora-4bit", "memory")
"""Columns that are in bytes."""

HIDDEN = ("gated", "title", "hub")
"""Columns for machines alone."""


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column, value in _shown(rows[0]).items():
        number = isinstance(value, int)
        narrow = number or column in ("name", "licence")
        table.add_column(column, justify="right" if number else "left", no_wrap=narrow, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(column, value) for column, value in _shown(row).items()))
    return table


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """What people get to see of a row, to fit 80 columns."""
    shown = {column: value for column, value in row.items() if column not in HIDDEN}
    if row.get("gated"):
        shown["licence"] += ", gated"
    return shown


def _cell(column: str, value: Any) -> str:
    if column in BYTES:
        return f"{value / 1e9:.1f}" if value >= 1e9 else f"{value / 1e9:.2f}"
    if column == "parameters":
        return f"{value / 1e9:.1f}B" if value >= 1e9 else f"{value / 1e6:.0f}M"
    return str(value)
