"""The Trainer's model card, made to say how the model was trained."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import Trainer

from shared_seed import __version__, log
from shared_seed.card import NAME, TAGS, amend
from shared_seed.folder import LOG_NAME
from shared_seed.log import Contents
from shared_seed.markdown import table
from shared_seed.outcome import Outcome
from shared_seed.publication import MANIFEST_NAME, readable
from shared_seed.sections import REPOSITORY, usage_rows
from shared_seed.usage import Usage

_OPTIMIZER = re.compile(r"^- optimizer: Use (?:OptimizerNames\.)?(\w+).*?(?=\n- )", re.MULTILINE | re.DOTALL)

_SECTION = """

## Shared-seed SPSA

This model was trained without backprop by [shared-seed](https://pypi.org/project/shared-seed/) {version}: each
projected gradient takes two forward passes and is one byte, and every peer regenerates its direction from a seed.
"""

_REPLAY = """
`{log}` beside this card holds every byte of the run, and `{manifest}` its terms. With the model as it was when
the run began, they give the trained parameters again, bit for bit:

```python
from pathlib import Path

from huggingface_hub import hf_hub_download

from shared_seed import log, replay

contents = log.read(Path(hf_hub_download({repository!r}, {log!r})))
print(replay.rebuild(model, contents).digest().hex())
```

The digest proves that these parameters follow from this log, not that the log's gradients are honest.
"""


@dataclass(frozen=True)
class Ended:
    """How a training ended, and what it took as far as that was measured."""

    outcome: Outcome
    usage: Usage = field(default_factory=Usage)

    def rows(self) -> list[tuple[str, str]]:
        """Names and figures, for a table."""
        outcome = self.outcome
        return [
            ("projected gradients", f"{outcome.gradients:,}, in {outcome.messages:,} messages"),
            ("streams of messages", f"{outcome.streams:,}"),
            ("peers", f"{1 + len(outcome.others):,}"),
            ("bytes sent and received", f"{outcome.traffic.sent:,} and {outcome.traffic.received:,}"),
            *usage_rows(self.usage),
            ("SHA-256 of the parameters at the end of training", f"`{outcome.digest}`"),
        ]


def author(trainer: Trainer, ended: Callable[[], Ended | None], concerned: Callable[[], bool]) -> None:
    """Let a Trainer's ``create_model_card`` say that the model was trained by shared-seed, and lay the run's log
    and manifest beside the card, which ``push_to_hub`` uploads with it.

    It stays on the instance when training is over, since cards are written then; where ``concerned`` says no, it
    does nothing.
    """
    own = trainer.create_model_card
    if getattr(own, "_is_shared_seeds", False):
        own = own._own

    def create_model_card(*args: Any, **kwargs: Any) -> Any:
        made = own(*args, **kwargs)
        path = Path(trainer.args.output_dir) / NAME
        if concerned() and trainer.is_world_process_zero() and path.exists():
            edit(path, ended(), trainer.hub_model_id or trainer.args.hub_model_id)
        return made

    create_model_card._is_shared_seeds = True  # type: ignore[attr-defined]
    create_model_card._own = own  # type: ignore[attr-defined]
    trainer.create_model_card = create_model_card


def edit(path: Path, ended: Ended | None, repository: str | None = None) -> None:
    """Replace the optimizer in a card by what was done, and add our tags; where training has ended, add figures,
    and write log and manifest beside the card.
    """

    def said(found: re.Match[str]) -> str:
        name = found[1].lower()
        return (
            f"- optimizer: shared-seed SPSA; no backprop, no optimizer state; learning rate and schedule of {name}"
        )

    section = _SECTION.format(version=__version__)
    if ended is not None:
        section += f"\n{table(('', ''), ended.rows())}\n"
        if ended.outcome.contents is not None:
            _lay(path.parent, ended.outcome.contents)
            names = {"log": LOG_NAME, "manifest": MANIFEST_NAME}
            section += _REPLAY.format(repository=repository or REPOSITORY, **names)
    amend(path, TAGS, lambda text: _OPTIMIZER.sub(said, text).rstrip() + section)


def _lay(folder: Path, contents: Contents) -> None:
    """Write a run's log and manifest; where the run itself keeps its log there, the same bytes."""
    for name, content in ((LOG_NAME, log.encode(contents)), (MANIFEST_NAME, readable(contents.manifest).encode())):
        temporary = folder / f"{name}.new"
        temporary.write_bytes(content)
        temporary.replace(folder / name)


def tag(model: Any) -> None:
    """Add our tags to a model, which Trainer and ``push_to_hub`` put into its card."""
    if hasattr(model, "add_model_tags"):
        model.add_model_tags([tag for tag in TAGS if tag not in (getattr(model, "model_tags", None) or [])])
