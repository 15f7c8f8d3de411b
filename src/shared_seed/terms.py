"""The terms that a session trains on: a run that begins here, that it joins, or that it goes on with."""

from __future__ import annotations

import fnmatch
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import nn

from shared_seed import folder, identity
from shared_seed.authors import guest
from shared_seed.errors import ManifestMismatchError, RecipeError, UnreachableError
from shared_seed.exact import check_device
from shared_seed.grid import EPSILON, EPSILON_OF_ADAPTERS, check_epsilon
from shared_seed.log import Contents
from shared_seed.manifest import Aggregation, Limits, Manifest
from shared_seed.messages import MOST_CODES
from shared_seed.replica import Replica
from shared_seed.settings import Settings
from shared_seed.snapshot import Snapshot
from shared_seed.swarm.zmq import fetch_manifest
from shared_seed.training import Training
from shared_seed.weights import Choice, Weights, frozen_digest

ANY_RATE = float(np.finfo(np.float32).max)
"""The limit of learning rates where nobody has to be protected from a peer's."""


BRIEFLY = 5.0
"""Seconds to wait for an answer about terms that the log has already; links compare them in any case."""


@dataclass(frozen=True)
class Agreed:
    """The replica of a run, the signature that its owner has put under its terms, and what the log in the folder
    holds, if there is one.
    """

    replica: Replica
    signature: bytes
    logged: Contents | None


def agree(model: nn.Module, settings: Settings, training: Training) -> Agreed:
    """Put a model on the grids of its run.

    Raises:
        ManifestMismatchError: the run, the log or the checkpoint is about something else; names the field.
        LogError: the log in the folder cannot be used.
        SwarmError: nobody answers.
        ModelError, GridError: the model cannot be trained.
    """
    logged = folder.logged(settings.folder)
    known, signature = _known(settings, training, logged)
    rates = training.groups.rates if training.groups else None
    resume = training.resume
    low = resume.low if resume else training.low
    if known is None:
        epsilon = _usual_epsilon(model) if settings.epsilon is None else settings.epsilon
        weights = Weights.of(model, epsilon, Choice(dense=settings.dense, rates=rates, low=low))
        _check_patterns(settings.dense, weights)
        manifest = _begun(model, weights, settings, training, epsilon)
    else:
        theirs = Choice.of(known.tensors)
        exponents = theirs.exponents if resume else {}
        choice = Choice(dense=theirs.dense, rates=rates, exponents=exponents, low=low)
        weights = Weights.of(model, known.epsilon, choice)
        manifest = _resumed(weights, resume, known) if resume else manifest_of(model, weights, known)
        manifest.check_equal(known)
    for device in {t.storage.device for t in weights}:
        check_device(device)
    return Agreed(Replica(weights, manifest), _signature(manifest, signature), logged)


def manifest_of(model: nn.Module, weights: Weights, terms: Manifest) -> Manifest:
    """A run's terms with the tensors that are here, to be compared with the run's own."""
    return terms.model_copy(update={"tensors": weights.specs(), "frozen_digest": frozen_digest(model, weights)})


def _known(settings: Settings, training: Training, logged: Contents | None) -> tuple[Manifest | None, bytes]:
    """The terms that are there already: the swarm's, the log's, the checkpoint's; all that there are agree. Also
    their owner's signature.
    """
    resume = training.resume
    known, signature = (logged.manifest, logged.signature) if logged else (None, b"")
    if settings.join:
        theirs, signature = _fetched(settings, known, signature)
        check_epsilon(theirs.epsilon)
        if known is not None:
            known.check_equal(theirs)
        known = theirs
    if resume is None:
        return known, signature
    # How long a run is to be may change when it is taken up again; the noise does not depend on it.
    rounds = known.rounds if known else training.rounds
    continued = resume.contents.manifest.model_copy(update={"rounds": rounds})
    if not continued.owner and not settings.alone:
        raise ManifestMismatchError(
            "the checkpoint is of a run that one process trained for itself, so that nobody has signed its "
            "gradients, and others cannot follow it; delete its shared-seed state to begin anew from these weights"
        )
    if known is not None:
        continued.check_equal(known)
    return continued, signature or resume.contents.signature


def _fetched(settings: Settings, known: Manifest | None, signature: bytes) -> tuple[Manifest, bytes]:
    """The terms of the run at the addresses to join, from the first that answers; what is known where none does.

    Raises:
        UnreachableError: nobody answers, and nothing is known.
    """
    key, introduction = guest(settings)
    failure: UnreachableError | None = None
    for address in settings.join:
        patience = settings.patience / len(settings.join) if known is None else BRIEFLY
        try:
            return fetch_manifest(address, key, introduction, patience)
        except UnreachableError as error:
            failure = failure or error
    if known is None:
        assert failure is not None
        raise failure
    return known, signature


def _signature(manifest: Manifest, known: bytes) -> bytes:
    """The owner's signature, which the owner can give at any time.

    Raises:
        ManifestMismatchError: the terms have changed, and this is not the owner.
    """
    if manifest.owner:
        key = identity.load()
        if key.public == manifest.owner_bytes:
            return manifest.sign(key)
        manifest.check_signature(known)
    return known


def _resumed(weights: Weights, resume: Snapshot, terms: Manifest) -> Manifest:
    """The terms as a checkpoint's weights have them, which are no longer those that the run began from."""
    assert resume.contents.digest is not None
    if weights.digest() != resume.contents.digest[1]:
        raise ManifestMismatchError(
            "the weights are not those that the checkpoint's gradient log leads to; expected its own weights, in "
            "the dtype that they had; load the checkpoint unchanged, or delete its shared-seed state to begin a "
            "new run from these weights"
        )
    first = {t.name: t.digest for t in terms.tensors}
    specs = tuple(t.model_copy(update={"digest": first.get(t.name, t.digest)}) for t in weights.specs())
    return terms.model_copy(update={"tensors": specs})


def _check_patterns(dense: Iterable[str], weights: Weights) -> None:
    """Refuse a pattern of the settings that stands for nothing."""
    for pattern in dense:
        if not any(fnmatch.fnmatchcase(t.name, pattern) for t in weights):
            names = ", ".join(t.name for t in list(weights)[:5])
            raise RecipeError(
                f"dense={pattern!r} matches no trainable parameter; they are called {names} and so on"
            )


def _usual_epsilon(model: nn.Module) -> float:
    """By whether it is PEFT's adapter that is trained, and not all that an adapter was put into."""
    numbers = [(p.requires_grad, p.numel()) for p in model.parameters()]
    trained, every = sum(n for wanted, n in numbers if wanted), sum(n for _, n in numbers)
    adapted = any(hasattr(module, "peft_config") for module in model.modules())
    return EPSILON_OF_ADAPTERS if adapted and 2 * trained < every else EPSILON


def _begun(model: nn.Module, weights: Weights, settings: Settings, training: Training, epsilon: float) -> Manifest:
    """The terms of a run that begins here."""
    tensors, frozen = weights.specs(), frozen_digest(model, weights)
    private = settings.private
    return Manifest(
        owner="" if private else identity.show(identity.load().public),
        nonce="" if private else secrets.token_hex(16),
        admission=settings.admission,
        run=settings.run_name(frozen, [t.digest for t in tensors]),
        model=training.title or type(model).__name__,
        frozen_digest=frozen,
        tensors=tensors,
        epsilon=epsilon,
        scale_exponent=settings.scale_exponent,
        rounds=training.rounds,
        start_with=settings.start_with,
        lockstep=settings.lockstep,
        limits=Limits(
            learning_rate=ANY_RATE if private else settings.most_learning_rate,
            samples_per_message=MOST_CODES if private else settings.most_samples,
            streams_per_key=settings.streams_per_key,
            bytes_per_second=settings.bytes_per_second,
        ),
        recipe=training.recipe,
        aggregation=Aggregation(kind=settings.aggregation, factor=settings.factor, trim=settings.trim),
    )
