"""The option ``shared-seed run … --dry-run``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shared_seed.errors import SharedSeedError
from shared_seed.facts import Facts
from shared_seed.recipe import Recipe
from shared_seed.sections import recipe_text
from shared_seed.terminal import Terminal

Dry = Annotated[
    bool, typer.Option("--dry-run", help="Only show the whole recipe and what it would take on this machine.")
]

UNKNOWN = "unknown until the model is on this machine: a step is measured with it"


def show(out: Terminal, recipe: Recipe, facts: Facts | None, peers: int) -> None:
    """Print a recipe as YAML and, as comments below it, parameters, memory, precision, bytes a step and
    time.
    """
    out.print(recipe_text(recipe), soft_wrap=True)
    for line in lines(recipe, facts, peers):
        out.print(f"# {line}", soft_wrap=True)


def lines(recipe: Recipe, facts: Facts | None, peers: int) -> list[str]:
    """What a recipe would take, a line a thing."""
    # Late: torch and transformers take seconds, which other commands should not wait for.
    from shared_seed.estimate import Memory, Parameters, Wire
    from shared_seed.precision import resolve

    wire = Wire.of(recipe.training.probes_per_step * recipe.training.directions, peers)
    received = f"{wire.received:,} received by each of {peers} peers" if peers > 1 else "one peer receives nothing"
    said = [
        f"compute   {resolve(recipe)}",
        f"wire      {wire.message} bytes a step and peer to each subscriber; {received}; the log grows by "
        f"{wire.log:,} at most",
    ]
    model, source, here = _skeleton(recipe, facts)
    if model is None:
        return [f"model     unknown: {source}", "memory    unknown without it", *said, f"time      {UNKNOWN}"]
    counted, memory = Parameters.of(model), Memory.of(model, recipe)
    parts = {k: getattr(memory, k) for k in ("weights", "casts", "activations", "libraries")}
    return [
        f"model     {counted.trained:,} of {counted.total:,} parameters are trained (from {source})",
        *([f"download  {size(facts.download)}{', gated' if facts.gated else ''}"] if facts else []),
        f"memory    {size(memory.total)}: " + ", ".join(f"{k} {size(v)}" for k, v in parts.items()),
        *said,
        f"time      {_time(recipe, memory.total) if here else UNKNOWN}",
    ]


def _skeleton(recipe: Recipe, facts: Facts | None) -> tuple[Any, str, bool]:
    """The model without values or None, where its shape is from or why it is unknown, and whether it is here."""
    from shared_seed.integrations.transformers.models import config, hold, skeleton

    try:
        shape, source, here = config(recipe.model), f"the configuration of {recipe.model}", True
    except SharedSeedError as error:
        if facts is None:
            return None, str(error), False
        shape, source, here = facts.config, "the recipe's own facts; the model is not here", False
    return hold(skeleton(shape, recipe.lora), recipe), source, here


def _time(recipe: Recipe, needed: int) -> str:
    from shared_seed.calibration import TIMED, seconds_a_step

    try:
        seconds = seconds_a_step(recipe, needed)
    except SharedSeedError as error:
        return f"unknown: {error}"
    return (
        f"{span(seconds * recipe.training.steps)} for {recipe.training.steps:,} steps, without tests: "
        f"{seconds:.2f} s each, the median of {TIMED} measured here with one peer at the full "
        f"{recipe.task.most_tokens} tokens"
    )


def size(count: int) -> str:
    """Bytes for people."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 1000 * factor else f"{count / factor:,.0f} {unit}"
    return f"{count} bytes"


def span(seconds: float) -> str:
    """A duration for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
