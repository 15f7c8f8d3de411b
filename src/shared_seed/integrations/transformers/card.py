"""The Trainer's model card, made to say how the model was trained."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import Trainer

from shared_seed import __version__
from shared_seed.card import TAGS, amend
from shared_seed.outcome import Outcome

_OPTIMIZER = re.compile(r"^- optimizer: Use (?:OptimizerNames\.)?(\w+).*?(?=\n- )", re.MULTILINE | re.DOTALL)

_SECTION = """

## Shared-seed SPSA

This model was trained without backprop by [shared-seed](https://pypi.org/project/shared-seed/) {version}: each
projected gradient takes two forward passes and is one byte, and every peer regenerates its direction from a seed.
"""

_FIGURES = """
| | |
|---|---|
| projected gradients | {gradients:,}, in {messages:,} messages |
| streams of messages | {streams:,} |
| bytes sent and received | {sent:,} and {received:,} |
| SHA-256 of the parameters at the end of training | `{digest}` |
"""


def author(trainer: Trainer, outcome: Callable[[], Outcome | None], concerned: Callable[[], bool]) -> None:
    """Let a Trainer's ``create_model_card`` say that the model was trained by shared-seed.

    It stays on the instance when training is over, since cards are written then; where ``concerned`` says no, it
    does nothing.
    """
    own = trainer.create_model_card
    if getattr(own, "_is_shared_seeds", False):
        own = own._own

    def create_model_card(*args: Any, **kwargs: Any) -> Any:
        made = own(*args, **kwargs)
        path = Path(trainer.args.output_dir) / "README.md"
        if concerned() and trainer.is_world_process_zero() and path.exists():
            edit(path, outcome())
        return made

    create_model_card._is_shared_seeds = True  # type: ignore[attr-defined]
    create_model_card._own = own  # type: ignore[attr-defined]
    trainer.create_model_card = create_model_card


def edit(path: Path, outcome: Outcome | None) -> None:
    """Replace the optimizer in a card by what was done, add our tags, and figures where training has ended."""

    def said(found: re.Match[str]) -> str:
        name = found[1].lower()
        return (
            f"- optimizer: shared-seed SPSA; no backprop, no optimizer state; learning rate and schedule of {name}"
        )

    section = _SECTION.format(version=__version__)
    if outcome is not None:
        section += _FIGURES.format(
            gradients=outcome.gradients,
            messages=outcome.messages,
            streams=outcome.streams,
            sent=outcome.traffic.sent,
            received=outcome.traffic.received,
            digest=outcome.digest,
        )
    amend(path, TAGS, lambda text: _OPTIMIZER.sub(said, text).rstrip() + section)


def tag(model: Any) -> None:
    """Add our tags to a model, which Trainer and ``push_to_hub`` put into its card."""
    if hasattr(model, "add_model_tags"):
        model.add_model_tags([tag for tag in TAGS if tag not in (getattr(model, "model_tags", None) or [])])
