"""Weights from base model and log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared_seed import history, recipe
from shared_seed.errors import LogError
from shared_seed.log import Contents
from shared_seed.manifest import Manifest
from shared_seed.replica import Replica
from shared_seed.terms import manifest_of
from shared_seed.weights import Choice, Weights

BATCH = 512
"""Messages between two reports of progress."""


@dataclass(frozen=True)
class Replayed:
    """A model whose weights are those that a log says, its tokenizer, and the weights' SHA-256 in hex."""

    model: Any
    tokenizer: Any
    digest: str


def at_start(model: Any, manifest: Manifest) -> Replica:
    """A base model on the grids of a run, in place, before its first message.

    Raises:
        ManifestMismatchError: the model is not the one that the run began from; names what differs.
    """
    choice = Choice.of(manifest.tensors)
    weights = Weights.of(model, manifest.epsilon, Choice(dense=choice.dense, rates=choice.rates))
    manifest_of(model, weights, manifest).check_equal(manifest)
    return Replica(weights, manifest)


def rebuild(model: Any, contents: Contents, tell: Callable[[int], None] = lambda done: None) -> Replica:
    """Bring a base model to the end of a log, in place.

    Args:
        model: as it was when the run began.
        contents: of the log.
        tell: called with the number of messages applied so far.

    Raises:
        ManifestMismatchError: the model is not the one that the log began from; names what differs.
    """
    replica = at_start(model, contents.manifest)
    counted = history.archive_of(contents).effective()
    for start in range(0, len(counted), BATCH):
        replica.apply(counted[start : start + BATCH])
        tell(replica.messages)
    return replica


def replay(
    contents: Contents, base: str | None = None, tell: Callable[[int], None] = lambda done: None
) -> Replayed:
    """Load the base model that a log names, or another copy of it, and apply the log.

    Raises:
        LogError: the log does not name a base model.
        ModelError: the base model cannot be loaded.
        ManifestMismatchError: it is not the one that the log began from.
    """
    from shared_seed.integrations.transformers.models import load

    if contents.manifest.recipe is None:
        raise LogError(
            "the log comes from a run without a recipe, so its base model is not known here; in Python, call "
            "shared_seed.replay.rebuild(model, shared_seed.log.read(path)) with the model as it was at the start"
        )
    terms = recipe.parse(contents.manifest.recipe, "the recipe in the log")
    model, tokenizer = load(base or terms.model, terms.lora, terms.training.seed, terms.weights)
    replica = rebuild(model, contents, tell)
    return Replayed(model, tokenizer, replica.digest().hex())
