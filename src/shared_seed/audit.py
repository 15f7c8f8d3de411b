"""Take other peers' probes again, from the log, to find out who publishes bytes that its batches do not give.

Where the recipe assigns batches, a byte can be computed again and compared. Where peers train on rows of their
own, it can only be correlated with gradients on public rows along the same directions.
"""

from __future__ import annotations

import math
import random
import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from shared_seed import codec, data, recipe, verdict
from shared_seed.batches import AssignedBatches
from shared_seed.curvature import Curvature
from shared_seed.errors import LogError, RecipeError
from shared_seed.examples import examples
from shared_seed.log import Contents
from shared_seed.messages import Message, Stream
from shared_seed.noise import Sample, stream_key
from shared_seed.perturbation import Perturbation
from shared_seed.precision import resolve
from shared_seed.probe import Probe
from shared_seed.rate import Rate
from shared_seed.recipe import Recipe
from shared_seed.replay import at_start
from shared_seed.text_task import TextTask
from shared_seed.text_tasks import build
from shared_seed.verdict import Agreement, Check, Correlation

LEAST, LEAST_PUBLIC = 8, 24
"""Messages of a stream that are audited at least, where there are so many: fewer prove little. On public rows it
takes more: less than 14 can name no stream, and less than 24 none of 50 (:func:`shared_seed.verdict.z_score`).
"""

Tell = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to audit.

    Args:
        share: of each stream's messages that is audited, 0 to 1.
        seed: chooses them; a fresh one by default, since who knows the choice can be honest in these alone.
        tolerance: how far from its byte a gradient may come out, in root mean squares of all gradients.
        base: the base model, if not where the log says.
        public: rows to correlate with, a file or a Hub name; by default, where batches are not assigned, those
            that the recipe holds out for the test.
        rows: public rows for each audited byte.
    """

    share: float = 0.02
    seed: int | None = None
    tolerance: float = verdict.TOLERANCE
    base: str | None = None
    public: str | None = None
    rows: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise RecipeError(f"share is {self.share:g}; expected more than 0 and at most 1, such as 0.02")
        if not self.tolerance > 0:
            raise RecipeError(f"tolerance is {self.tolerance:g}; expected a positive number, such as 0.4")
        if self.rows < 1:
            raise RecipeError(f"rows is {self.rows}; expected at least 1")


@dataclass(frozen=True)
class Audit:
    """What an audit has found; ``scale`` is the root mean square of the gradients that were computed again."""

    seed: int
    scale: float
    assigned: bool
    streams: list[Agreement] | list[Correlation]
    honest: float
    """The correlation of all streams together; NaN where batches are assigned."""

    @property
    def named(self) -> list[Stream]:
        """The streams whose owners should be looked at."""
        return [report.stream for report in self.streams if report.verdict.names]


def audit(contents: Contents, options: Options, tell: Tell = lambda done, total: None) -> Audit:
    """Audit a random share of the messages of a log.

    Args:
        contents: of the log; of a finished run or not.
        options: how.
        tell: called with how many messages are done, and how many there will be.

    Raises:
        LogError: the log comes from a run without a recipe, or holds no messages.
        ModelError, DataError: the base model or the data cannot be loaded.
        ManifestMismatchError: the base model is not the one that the log began from.
    """
    from shared_seed.integrations.transformers.models import load

    manifest, messages = contents.manifest, contents.messages
    if manifest.recipe is None:
        raise LogError(
            "the log comes from a run without a recipe, so it is not known on what its bytes were taken; expected "
            "the log of a run that was started with shared-seed run"
        )
    if not messages:
        raise LogError("the log holds no messages; there is nothing to audit")
    terms = recipe.parse(manifest.recipe, "the recipe in the log")
    model, tokenizer = load(options.base or terms.model, terms.lora, terms.training.seed, terms.weights)
    assigned = terms.training.batches == "assigned" and options.public is None
    batches = _batches(terms, build(terms.task, tokenizer, model), options, assigned)
    seed = secrets.randbits(63) if options.seed is None else options.seed
    chosen = choose(messages, options.share, seed, LEAST if assigned else LEAST_PUBLIC)
    bf16 = resolve(terms, next(model.parameters()).device.type).bf16
    checks = recompute(contents, model, batches, chosen, bf16, terms.training.directions, tell)
    counts = Counter(m.stream for m in messages)
    broken = breaks(messages, terms)
    exponent = manifest.scale_exponent
    scale = verdict.scale_of(checks)
    if assigned:
        found = verdict.judge(checks, counts, broken, options.tolerance, exponent)
        return Audit(seed, scale, True, found, math.nan)
    correlated = verdict.correlate(checks, counts, broken, exponent)
    return Audit(seed, scale, False, correlated, verdict.overall(checks, exponent))


def _batches(terms: Recipe, task: TextTask, options: Options, assigned: bool) -> AssignedBatches:
    """What bytes are compared on: the run's own batches, or as many fresh ones of public rows."""
    if options.public is not None:
        anywhere = terms.task.model_copy(update={"where": {}})
        chosen, size = examples(data.load(options.public, anywhere), anywhere)[0], options.rows
    else:
        split = data.parts(terms.dataset, terms.task, terms.training.seed)
        chosen = split.train if assigned else split.test
        size = terms.training.batch_size if assigned else options.rows
    return AssignedBatches(task, task.encode(chosen), size, terms.training.seed)


LOUD = 2
"""Times the most that a peer's gradients allow that one of its messages may ask for: a peer that came back without
its latest messages knew fewer.
"""


def choose(messages: Sequence[Message], share: float, seed: int, least: int = LEAST) -> list[tuple[Message, int]]:
    """A share of each stream's messages, or so many at least, at random, and at random one sample of each."""
    draw = random.Random(seed)
    streams: dict[Stream, list[Message]] = {}
    for message in messages:
        streams.setdefault(message.stream, []).append(message)
    chosen: list[tuple[Message, int]] = []
    for stream in sorted(streams):
        own = sorted(streams[stream], key=lambda m: m.number)
        count = min(len(own), max(least, math.ceil(share * len(own))))
        chosen += [(message, draw.randrange(len(message.codes))) for message in draw.sample(own, count)]
    return chosen


def breaks(messages: Sequence[Message], terms: Recipe) -> dict[Stream, int]:
    """Messages of each stream that ask for more than the recipe's learning rate, or go back in rounds.

    An honest stream's rounds rise with its numbers; who publishes two for a round counts twice. Where the learning
    rate follows from a peer's projected gradients, it follows from the ones in its messages.
    """
    training = terms.training
    followed: dict[bytes, Rate] = {}
    broken: dict[Stream, int] = {}
    last: dict[Stream, int] = {}
    for message in sorted(messages, key=lambda m: (m.stream, m.number)):
        if terms.promise is None:
            most = training.base_rate * (1 + 1e-6) / len(message.codes)
        else:
            fresh = Rate(terms.promise, training.epsilon, training.scale_exponent)
            rate = followed.setdefault(message.stream.peer, fresh)
            rate.note(message.codes)
            most = LOUD * rate.most
        louder = message.learning_rate > most
        again = message.round <= last.get(message.stream, -1)
        broken[message.stream] = broken.get(message.stream, 0) + (louder or again)
        last[message.stream] = message.round
    return broken


def taken_off(contents: Contents, directions: int) -> dict[tuple[Stream, int], float]:
    """What each message's writer has taken off its projected gradients, as its earlier messages tell.

    Returns:
        By stream and number.
    """
    followed: dict[bytes, Curvature] = {}
    found = {}
    for message in sorted(contents.messages, key=lambda m: (m.stream, m.number)):
        curvature = followed.setdefault(
            message.stream.peer, Curvature(contents.manifest.scale_exponent, directions)
        )
        found[message.stream, message.number] = curvature.excess
        curvature.note(message.codes)
    return found


def recompute(
    contents: Contents,
    model: Any,
    batches: AssignedBatches,
    chosen: Sequence[tuple[Message, int]],
    bf16: bool,
    directions: int = 1,
    tell: Tell = lambda done, total: None,
) -> list[Check]:
    """Take probes again, at the weights that all messages of earlier rounds lead to.

    In lockstep these are the publisher's own weights, but for messages that came to it late; without lockstep they
    are near them.

    Args:
        contents: of the log.
        model: as it was when the run began; ends somewhere within the run.
        batches: what each probe is taken on.
        chosen: messages and the index of a sample in each.
        bf16: whether to evaluate in bf16 autocast.
        directions: that the run takes on each batch.
        tell: called with how many are done, and how many there are.
    """
    manifest = contents.manifest
    replica = at_start(model, manifest)
    probe = Probe(model, Perturbation(replica.weights, manifest.epsilon))
    ordered = sorted(contents.messages, key=lambda m: m.round)
    rounds = [m.round for m in ordered]
    device = next(model.parameters()).device.type
    excess = taken_off(contents, directions)
    checks: list[Check] = []
    applied = 0
    for message, index in sorted(chosen, key=lambda c: c[0].round):
        due = bisect_left(rounds, message.round)
        replica.apply(ordered[applied:due])
        applied = due
        code, gradient = message.codes[index], math.nan
        if not codec.is_abstention(code):
            first = index - index % directions  # of the same batch
            batch = batches.batch(message.stream, message.round, first)
            sample = Sample(stream_key(manifest.run_bytes, message.stream.to_bytes()), message.number, index)
            context = torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()
            batches.task.follow(message.round, manifest.rounds)
            loss = partial(batches.loss, model, batch)
            if directions == 1:
                gradient = probe.measure(loss, sample, context).gradient
            else:
                measured = probe.measure_along(loss, [sample], context)[0]
                gradient = measured.gradient - excess[message.stream, message.number]
        checks.append(Check(message.stream, message.number, message.round, index, code, gradient))
        tell(len(checks), len(chosen))
    return checks
