"""The model card of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from shared_seed import __version__, packages
from shared_seed.recipe import Recipe
from shared_seed.summary import Summary

TAGS = ("shared-seed", "spsa", "zeroth-order")
"""Under which models that were trained so are found."""

_BODY = """
# {title}

[{base}](https://huggingface.co/{base}) fine-tuned by {peers} that shared nothing but {total:,} bytes: no
backprop, no gradients on the wire, one byte for each of {gradients:,} projected gradients. Trained with
[shared-seed](https://pypi.org/project/shared-seed/) {version}.

| on {rows:,} held-out rows | before | after |
|---|---|---|
{scores}

| | |
|---|---|
| gradients | {gradients:,}, in {messages:,} messages from {streams} streams |
| gradient log | {log_bytes:,} bytes, {per_gradient:.1f} a gradient |
| received by all sockets, heartbeats too | {received:,} bytes, {wire_per_gradient:.1f} a gradient |
| training time | {seconds:,.0f} s |
| SHA-256 of the trained parameters | `{digest}` |

![loss curve](loss.png)

## Replay

The log beside this card and the base model give these weights again, bit for bit:

```
shared-seed replay gradients.sslog -o model
```

## Recipe

```yaml
{recipe}```
"""


def write(path: Path, recipe: Recipe, summary: Summary) -> None:
    """Write a run's model card."""
    on_hub = not recipe.model.startswith((packages.PREFIX, "/", ".", "~"))
    name = recipe.title or recipe.model
    metrics = summary.after
    data = ModelCardData(
        base_model=recipe.model if on_hub else None,
        license=recipe.licence or None,
        library_name="peft" if recipe.lora else "transformers",
        tags=list(TAGS),
        model_name=name,
        eval_results=[EvalResult("text-classification", "dataset", recipe.dataset, "accuracy", metrics.accuracy)]
        if metrics
        else None,
    )
    body = _BODY.format(
        title=name,
        base=recipe.model,
        peers=f"{summary.peers} peers" if summary.peers > 1 else "one peer",
        total=summary.received,
        version=__version__,
        rows=metrics.rows if metrics else 0,
        scores=summary.score_rows(),
        gradients=summary.gradients,
        messages=summary.messages,
        streams=summary.streams,
        log_bytes=summary.log_bytes,
        per_gradient=summary.log_bytes / max(1, summary.gradients),
        received=summary.received,
        wire_per_gradient=summary.received / max(1, summary.gradients),
        seconds=summary.seconds,
        digest=summary.digest,
        recipe=yaml.safe_dump(recipe.model_dump(mode="json", exclude={"quick"}), sort_keys=False),
    )
    if not on_hub:
        body = body.replace(f"[{recipe.model}](https://huggingface.co/{recipe.model})", f"`{recipe.model}`")
    ModelCard(f"---\n{data.to_yaml()}\n---\n{body}").save(path)


def amend(path: Path, tags: Iterable[str], change: Callable[[str], str]) -> None:
    """Add tags to a card that somebody else has written, and change its text below the metadata."""
    card = ModelCard.load(path)
    known = list(card.data.tags or [])
    card.data.tags = known + [tag for tag in tags if tag not in known]
    card.text = change(card.text)
    card.save(path)
