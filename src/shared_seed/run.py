"""One peer's way through a recipe: model, data, training, test, and what it leaves in its folder."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shared_seed import card, clock, data, identity, log, metrics, plot, report
from shared_seed import precision as precisions
from shared_seed import recipe as recipes
from shared_seed.data import Split
from shared_seed.errors import DataError, LogError, RecipeError
from shared_seed.examples import Dropped, examples, told
from shared_seed.folder import LOG_NAME, REPORT_NAME, logged, noted_stream
from shared_seed.job import Job, carried, fit
from shared_seed.messages import Stream
from shared_seed.meter import Meter
from shared_seed.outcome import Outcome, Step
from shared_seed.progress import Sink
from shared_seed.recipe import Recipe
from shared_seed.run_facts import CURVE_NAME
from shared_seed.score import Score
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.summary import Summary
from shared_seed.swarm.address import parse
from shared_seed.swarm.zmq import check_free
from shared_seed.text_task import Feature, TextTask
from shared_seed.text_tasks import build
from shared_seed.usage import Usage
from shared_seed.validation import Validation


@dataclass(frozen=True)
class Part:
    """Which rows this peer trains on: its own file, or a shard (number from 0, of how many) of the recipe's."""

    own: str | None = None
    number: int = 0
    of: int = 1


def settings_for(recipe: Recipe, folder: Path, **changes: Any) -> Settings:
    """A peer's settings on a recipe's terms."""
    training, swarm = recipe.training, recipe.swarm
    base = Settings(
        epsilon=training.epsilon,
        scale_exponent=training.scale_exponent,
        promise=recipe.promise,
        directions=training.directions,
        schedule=training.schedule,
        lockstep=swarm.lockstep,
        aggregation=swarm.aggregation,
        factor=swarm.factor,
        trim=swarm.trim,
        start_with=swarm.peers,
        most_learning_rate=swarm.most_learning_rate,
        most_samples=swarm.most_samples,
        streams_per_key=swarm.streams_per_key,
        bytes_per_second=swarm.bytes_per_second,
        seed=training.seed,
        deadline=swarm.deadline,
        adapt=swarm.adapt,
        admission=swarm.who_is_admitted(),
        folder=folder,
    )
    return replace(base, **changes)


def take_part(recipe: Recipe, settings: Settings, part: Part, test: bool, sink: Sink) -> Summary:
    """Train as one peer and leave log, metrics, plot, card, result and report in ``settings.folder``.

    A run that has been interrupted goes on; one that has ended keeps its result.

    Args:
        recipe: what to train.
        settings: of this peer; with a folder.
        part: which rows it trains on.
        test: score the held-out rows before and after, and validation rows in between.
        sink: is told what happens.

    Raises:
        SharedSeedError: whatever is wrong, in one message.
    """
    folder = settings.folder
    assert folder is not None
    _check_part(recipe, part)
    earlier = finished(folder, recipe)
    if earlier is not None and settings.alone:
        tell_status(sink, "finished already")
        return complete(folder, earlier)
    if settings.listen is not None:
        check_free(settings.listen)
    # Imported late: transformers takes seconds, and wrong recipes should not wait for it.
    from shared_seed.integrations.transformers.models import load_for, quiet

    quiet()

    tell_status(sink, "loading data")
    split = _split(recipe, part)
    tell_status(sink, "loading model")
    model, tokenizer = load_for(recipe)
    task = build(recipe.task, tokenizer, model)
    precision = precisions.resolve(recipe)
    train, validation, held_out = _encoded(task, split, sink)

    def score(when: str) -> Score | None:
        if not test or not held_out:
            return None

        def tell(done: int) -> None:
            if done % 200 < 32 or done == len(held_out):
                tell_status(sink, f"testing {when}: {done}/{len(held_out)}")

        return task.evaluate(model, held_out, precision.bf16, tell)

    before = score("before")
    if not settings.alone:
        command = f"shared-seed join {meeting_place(settings)}"
        sink({"event": "status", "text": "waiting for peers", "command": command})
    scorer = Validation(task, model, validation if test else [], precision.bf16, recipe.task.evaluate_every)
    recorder = _Recorder(folder, sink, scorer)
    outcome = fit(Job(recipe, settings, model, task, train, recorder.record))
    seconds, usage = recorder.taken()
    recorder.finish()
    if earlier is not None and earlier.digest == outcome.digest and not recorder.steps:
        return complete(folder, earlier)  # It knows what the run took; this process has done nothing.
    summary = _summary(outcome, settings, (before, score("after")), seconds, usage, precision.name)
    summary.save(folder)
    _plot_and_card(folder, recipe)
    return summary


def finished(folder: Path, recipe: Recipe | None = None) -> Summary | None:
    """What the run in a folder came to, if it has ended, with this recipe if one is given.

    Raises:
        LogError: there is a log, but it cannot be read.
    """
    contents = logged(folder)
    if contents is None or not contents.finished or contents.digest is None:
        return None
    if recipe is not None and contents.manifest.recipe != carried(recipe):
        return None
    try:
        summary = Summary.load(folder)
    except (OSError, LogError):
        return None  # A crash came before it.
    return summary if summary.digest == contents.digest[1].hex() else None


def complete(folder: Path, summary: Summary) -> Summary:
    """Draw and write what a crash has kept a finished run from leaving behind; gives the summary."""
    if not all((folder / name).exists() for name in (card.NAME, CURVE_NAME, REPORT_NAME)):
        terms = log.read(folder / LOG_NAME).manifest.recipe
        _plot_and_card(folder, recipes.parse(terms, "the recipe in the log"))
    return summary


def meeting_place(settings: Settings) -> str:
    """The address, with its key, that others join at: ours where we listen, else the first that we dial."""
    where = parse(settings.listen or (*settings.via, *settings.join)[0])
    host = platform.node() if settings.listen and where.host in ("*", "0.0.0.0", "[::]") else where.host
    return str(replace(where, host=host, key=where.key or identity.load().public))


def tell_status(sink: Sink, text: str) -> None:
    """Tell what the peer is at."""
    sink({"event": "status", "text": text})


def _check_part(recipe: Recipe, part: Part) -> None:
    """Refuse rows of a peer's own where the run assigns them."""
    if recipe.training.batches == "assigned" and (part.own is not None or part.of > 1):
        raise RecipeError(
            "this run assigns every probe its rows of the recipe's whole data, so that peers can audit each other "
            "(batches: assigned); expected neither --data nor --shard; leave them out"
        )


def _split(recipe: Recipe, part: Part) -> Split:
    """The rows that this peer trains on, and those that are held out; of a file of its own nothing is."""
    if part.own is not None:
        anywhere = recipe.task.model_copy(update={"where": {}})
        own, dropped = examples(data.load(part.own, anywhere), anywhere)
        return Split(own, [], [], dropped)
    split = data.parts(recipe.dataset, recipe.task, recipe.training.seed)
    return replace(split, train=data.shard(split.train, part.number, part.of))


def _encoded(task: TextTask, split: Split, sink: Sink) -> tuple[list[Feature], list[Feature], list[Feature]]:
    """Train, validation and test rows in tokens; tells which rows of any were left out, and why."""
    dropped: Dropped = Counter(split.dropped)
    train, validation, test = (task.encode(part, dropped) for part in (split.train, split.validation, split.test))
    if dropped.total():
        tell_status(sink, told(dropped))
    if not train:
        raise DataError(f"no row is left to train on; {told(dropped)}; raise task.most_tokens or look at the rows")
    return train, validation, test


class _Recorder:
    """Writes each step to the metrics file and tells it."""

    def __init__(self, folder: Path, sink: Sink, validation: Validation) -> None:
        self.steps = 0
        self._folder = folder
        self._sink = sink
        self._validation = validation
        self._began = clock.now()
        self._meter = Meter()
        self._told: set[str] = set()
        self._named: dict[Stream, str] = {}

    def record(self, session: Session, step: Step) -> None:
        if not self.steps:
            self._mend(step.round)
        self.steps += 1
        traffic = session.traffic
        line: dict[str, Any] = {
            "round": step.round,
            "loss": step.loss,
            "gradient": step.gradient,
            "learning_rate": step.learning_rate,
            "peers": step.peers,
            "applied": step.applied,
            "late": list(step.late),
            "sent": traffic.sent,
            "received": traffic.received,
            "seconds": round(clock.now() - self._began, 3),
        }
        if self._validation.due(step.round):
            score = self._validation.score()
            line["validation"] = asdict(score)
            tell_status(self._sink, f"validated after round {step.round + 1}: {score}")
        new = {stream: name for stream, name in session.names.items() if self._named.get(stream) != name}
        self._named |= new
        noted: dict[str, Any] = {"clock": clock.stamp(), "stream": session.stream.to_bytes().hex()}
        noted |= {"names": {stream.to_bytes().hex(): name for stream, name in new.items()}} if new else {}
        metrics.append(self._folder, line | noted)
        self._meter.read()
        for fault in session.faults:
            if fault not in self._told:
                self._told.add(fault)
                self._sink({"event": "fault", "text": fault})
        self._sink({"event": "step", "rounds": session.manifest.rounds, **line})

    def taken(self) -> tuple[float, Usage]:
        """Seconds since the beginning, and what they took."""
        return clock.now() - self._began, self._meter.read()

    def finish(self) -> None:
        """Put in what an earlier process has published and had no time to write down."""
        self._mend(None)

    def _mend(self, until: int | None) -> None:
        contents, noted = log.read(self._folder / LOG_NAME), noted_stream(self._folder)
        own = [m for m in contents.messages if noted and m.stream.peer == noted[0].peer]
        metrics.mend(self._folder, own, contents.manifest.scale_exponent, until)


def _summary(
    outcome: Outcome,
    settings: Settings,
    scores: tuple[Score | None, Score | None],
    seconds: float,
    usage: Usage,
    precision: str,
) -> Summary:
    assert settings.folder is not None
    return Summary(
        before=scores[0],
        after=scores[1],
        digest=outcome.digest,
        replicas={settings.name: outcome.digest, **outcome.others},
        peers=1 + len(outcome.others),
        messages=outcome.messages,
        gradients=outcome.gradients,
        streams=outcome.streams,
        sent=outcome.traffic.sent,
        received=outcome.traffic.received,
        gradient_received=outcome.traffic.gradient_received,
        log_bytes=(settings.folder / LOG_NAME).stat().st_size,
        seconds=seconds,
        usage=usage,
        precision=precision,
    )


def _plot_and_card(folder: Path, recipe: Recipe) -> None:
    lines = [line for line in metrics.read(folder) if line["loss"] is not None]
    if lines:
        title = recipe.title or recipe.model
        plot.loss_curve(folder / CURVE_NAME, [m["round"] for m in lines], [m["loss"] for m in lines], title)
    card.write(folder)
    report.attempt(folder)
