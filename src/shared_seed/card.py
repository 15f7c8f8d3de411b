"""The model card of a run."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from shared_seed import packages, sections
from shared_seed.errors import CardError
from shared_seed.files import replacing
from shared_seed.markdown import plain
from shared_seed.recipe import Recipe
from shared_seed.run_facts import RunFacts

NAME = "README.md"
"""In a run folder, and in a repository on the Hub."""

TAGS = ("shared-seed", "spsa", "zeroth-order")
"""Under which models that were trained so are found."""

TASKS = {
    "classification": "text-classification",
    "choice": "multiple-choice",
    "generation": "question-answering",
    "chat": "text-generation",
}
"""Kind of task in a recipe -> what the Hub calls it."""

METRICS = {"accuracy": "accuracy", "auc": "roc_auc", "exact_match": "exact_match", "f1": "f1", "loss": "loss"}
"""Figure of a score -> what the Hub calls it."""

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")


def write(folder: Path, target: Path | None = None) -> RunFacts:
    """Make the model card of a run from its folder.

    Args:
        folder: of the run.
        target: where the card goes; the folder's ``README.md`` by default.

    Raises:
        LogError: the folder holds no log that can be read.
        CardError: the card does not hold together, or cannot be written.
    """
    facts = RunFacts.of(folder)
    path = target or folder / NAME
    content = make(facts)
    try:
        with replacing(path) as new:
            new.write_text(content, encoding="utf-8")
    except OSError as error:
        raise CardError(f"cannot write the card {path}: {error.strerror}; choose another place with -o") from error
    return facts


def make(facts: RunFacts) -> str:
    """The card of a run: metadata and text.

    Raises:
        CardError: it does not hold together.
    """
    base = hub_name(facts.recipe.model) if facts.recipe else None
    body = sections.body(facts, f"https://huggingface.co/{base}" if base else None)
    content = f"---\n{metadata(facts).to_yaml()}\n---\n\n{body}"
    check(content)
    return content


def missing(facts: RunFacts) -> list[str]:
    """What a card would say and the folder does not tell, a sentence each."""
    found = facts.missing()
    if facts.recipe is not None and licence(facts.recipe) is None:
        found.append("no licence: neither the recipe nor a card of the base model on this machine states one")
    return found


def metadata(facts: RunFacts) -> ModelCardData:
    """What the Hub reads of a card."""
    recipe = facts.recipe
    base = hub_name(recipe.model) if recipe else None
    data = hub_name(recipe.dataset) if recipe else None
    results = _results(facts)
    extra: dict[str, Any] = {}
    if base:
        extra["base_model_relation"] = "adapter" if recipe and recipe.lora else "finetune"
    return ModelCardData(
        base_model=base,
        datasets=[data] if data else None,
        license=licence(recipe) if recipe else None,
        library_name=("peft" if recipe.lora else "transformers") if recipe else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        pipeline_tag="text-generation" if recipe else None,
        tags=list(TAGS),
        model_name=plain(sections.title(facts)),
        eval_results=results or None,
        **extra,
    )


def _results(facts: RunFacts) -> list[EvalResult]:
    """The scores after training, as the Hub lists them."""
    recipe, summary = facts.recipe, facts.summary
    if recipe is None or summary is None or summary.after is None:
        return []
    score = asdict(summary.after)
    found = {metric: score.get(name) for name, metric in METRICS.items()}
    name = hub_name(recipe.dataset) or plain(Path(recipe.dataset).name)
    return [
        EvalResult(
            task_type=TASKS[sections.kind(recipe)],
            dataset_type=name,
            dataset_name=name,
            metric_type=metric,
            metric_value=float(f"{value:.6g}"),  # Without the digits that float32 adds to a share.
            dataset_split="held out from training",
            dataset_args={"rows": summary.after.rows},
        )
        for metric, value in found.items()
        if value is not None and math.isfinite(value)
    ]


def hub_name(reference: str) -> str | None:
    """A reference of a recipe as the Hub names it, where it can be on the Hub."""
    local = reference.startswith((packages.PREFIX, "/", ".", "~")) or os.path.exists(reference)
    if local or Path(reference).suffix in (".csv", ".tsv", ".json", ".jsonl", ".parquet"):
        return None
    try:
        validate_repo_id(reference)
    except HFValidationError:
        return None
    return reference


def licence(recipe: Recipe) -> str | None:
    """The base model's licence as the Hub spells it: from the recipe, or from a card that is on this machine."""
    stated: object = recipe.licence
    if not stated:
        # Not by pathlib, which raises for names that no file can have: they are somebody else's.
        path = os.path.join(os.path.expanduser(recipe.model), NAME)
        name = hub_name(recipe.model)
        cached = try_to_load_from_cache(name, NAME) if name else None
        found = path if os.path.isfile(path) else cached
        try:
            stated = (
                ModelCard.load(found, ignore_metadata_errors=True).data.license if isinstance(found, str) else ""
            )
        except (OSError, ValueError, AttributeError, yaml.YAMLError):
            return None
    return stated if isinstance(stated, str) and _LICENCE.fullmatch(stated) else None


def check(content: str) -> None:
    """What can be checked of a card without asking the Hub: that it parses, and says the same when written again.

    Raises:
        CardError: says what is wrong with its metadata.
    """
    try:
        data = ModelCard(content).data
        again = ModelCardData(**yaml.safe_load(data.to_yaml()) or {})
        if again.eval_results != data.get("eval_results"):
            raise ValueError("its results are not what they were once they are written and read again")
        for name in _listed(data.get("base_model")) + _listed(data.get("datasets")):
            validate_repo_id(name)
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise CardError(
            f"the card's metadata, between the lines of ---, is not what the Hub takes: {plain(error)}; "
            "correct it, or make the card again with `shared-seed card`"
        ) from error


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def amend(path: Path, tags: Iterable[str], change: Callable[[str], str]) -> None:
    """Add to a card that somebody else has written tags, and how the model came from its base, and change the text
    below the metadata.
    """
    card = ModelCard.load(path)
    known = list(card.data.tags or [])
    card.data.tags = known + [tag for tag in tags if tag not in known]
    if card.data.get("base_model") and not card.data.get("base_model_relation"):
        adapter = card.data.get("library_name") == "peft"
        card.data["base_model_relation"] = "adapter" if adapter else "finetune"
    card.text = change(card.text)
    card.save(path)
