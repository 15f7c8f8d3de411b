"""Weights from base model and log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_seed import history, recipe, sources
from shared_seed.errors import LogError
from shared_seed.log import Contents
from shared_seed.manifest import Manifest
from shared_seed.replica import Replica
from shared_seed.selection import WHOLE, Selection
from shared_seed.terms import manifest_of
from shared_seed.weights import Choice, Weights

BATCH = 512
"""Messages between two reports of progress."""

Tell = Callable[[int, int], None]
"""Is told how many messages are applied so far, and how many there will be."""


def _silent(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Replayed:
    """A model whose weights are those that a log says, its tokenizer, and the weights' SHA-256 in hex.

    ``messages`` are in the weights. ``rounded`` names the bfloat16 parameters, which hold the nearest bfloat16 of
    the exact values; the digest is of these.
    """

    model: Any
    tokenizer: Any
    digest: str
    messages: int = 0
    rounded: tuple[str, ...] = ()


def at_start(model: Any, manifest: Manifest) -> Replica:
    """A base model on the grids of a run, in place, before its first message.

    Raises:
        ManifestMismatchError: the model is not the one that the run began from; names what differs.
    """
    choice = Choice.of(manifest.tensors)
    weights = Weights.of(model, manifest.epsilon, Choice(dense=choice.dense, rates=choice.rates))
    manifest_of(model, weights, manifest).check_equal(manifest)
    return Replica(weights, manifest)


def rebuild(model: Any, contents: Contents, tell: Tell = _silent, selection: Selection = WHOLE) -> Replica:
    """Bring a base model to the end of a log, in place.

    Args:
        model: as it was when the run began.
        contents: of the log.
        tell: is told of progress.
        selection: which of the messages to apply.

    Raises:
        ManifestMismatchError: the model is not the one that the log began from; names what differs.
        RecipeError: the selection names somebody who is not there.
    """
    chosen = selection.of(history.archive_of(contents))
    replica = at_start(model, contents.manifest)
    for start in range(0, len(chosen), BATCH):
        replica.apply(chosen[start : start + BATCH])
        tell(replica.messages, len(chosen))
    return replica


def replay(
    contents: Contents, base: str | None = None, tell: Tell = _silent, selection: Selection = WHOLE
) -> Replayed:
    """Load the base model that a log names, or another copy of it, and apply the log.

    Raises:
        LogError: the log does not name a base model.
        ModelError: the base model cannot be loaded.
        ManifestMismatchError: it is not the one that the log began from.
        RecipeError: the selection names somebody who is not there.
    """
    from shared_seed.integrations.transformers.models import load

    if contents.manifest.recipe is None:
        raise LogError(
            "the log comes from a run without a recipe, so its base model is not known here; in Python, call "
            "shared_seed.replay.rebuild(model, shared_seed.log.read(path)) with the model as it was at the start"
        )
    terms = recipe.parse(contents.manifest.recipe, "the recipe in the log")
    if selection.without:
        selection.of(history.archive_of(contents))  # A wrong name should not wait for the model.
    model, tokenizer = load(base or terms.model, terms.lora, terms.training.seed, terms.weights)
    replica = rebuild(model, contents, tell, selection)
    rounded = tuple(replica.weights.low())
    return Replayed(model, tokenizer, replica.digest().hex(), replica.messages, rounded)


def checked(
    source: str | Path,
    base: str | None = None,
    selection: Selection = WHOLE,
    unfinished: bool = False,
    tell: Tell = _silent,
) -> Replayed:
    """:func:`replay` of a log wherever it is, compared with the digest that it states, where that is of all of it.

    Args:
        source: a file, a run folder, or a Hub repository (:func:`shared_seed.sources.find`).
        base: the base model, if not where the log says.
        selection: which of the messages to apply.
        unfinished: accept a log that does not end with a digest.
        tell: is told of progress.

    Raises:
        LogError: the log cannot be used, is unfinished, or states another digest.
        SharedSeedError: as :func:`replay`.
    """
    contents = sources.read(source)
    if not contents.finished and not unfinished:
        raise LogError(
            f"{source} does not end with the digest that a finished run states: it was cut off, or the run "
            f"did not finish; its {len(contents.messages)} whole messages can be replayed with "
            "--unfinished (in Python, unfinished=True), as far as signatures prove them"
        )
    result = replay(contents, base, tell, selection)
    if contents.finished and contents.digest is not None and selection.is_whole:
        stated = contents.digest[1].hex()
        if stated != result.digest:
            raise LogError(f"the log states digest {stated}; the replayed weights have {result.digest}")
    return result


def from_log(
    source: str | Path,
    base: str | None = None,
    until: int | None = None,
    without: Sequence[str] = (),
    unfinished: bool = False,
) -> Any:
    """The model that a gradient log leads to, with a LoRA adapter on it where the run trained one.

    As in::

        model = shared_seed.from_log("runs/quickstart")
        model = shared_seed.from_log("user/run", until=500, without=["3fa94c10"])

    :func:`shared_seed.replay.checked` does the same and also gives the tokenizer and the weights' digest.

    Args:
        source: a gradient log, a run folder, or a repository on the Hugging Face Hub, ``user/run`` or
            ``user/run@revision``.
        base: the base model, if not where the log says: a Hub name, a folder, or ``package:NAME``.
        until: apply rounds below this one alone.
        without: peers to leave out, exactly, as if they had never published; names as in
            :class:`shared_seed.selection.Selection`.
        unfinished: accept a log that does not end with the digest of a finished run.

    Returns:
        a ``transformers.PreTrainedModel``, or a ``peft.PeftModel``.

    Raises:
        LogError: there is no such log, or it is damaged, unfinished, or states another digest than comes out.
        ModelError: the base model cannot be loaded.
        ManifestMismatchError: the base model is not the one that the run began from; names what differs.
        RecipeError: a name in ``without`` stands for nobody, or for several peers.
    """
    return checked(source, base, Selection(until, tuple(without)), unfinished).model
