"""One peer's part in a run: the one place where probe, update, messages and swarm meet."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median
from typing import Any

from torch import nn

from shared_seed import clock, codec, folder
from shared_seed.directions import Family
from shared_seed.errors import RecipeError, UnreachableError
from shared_seed.interrupts import deferred
from shared_seed.log import RunLog
from shared_seed.manifest import Limits, Manifest
from shared_seed.messages import MOST_CODES, Message, MessageSet, Stream, as_float32
from shared_seed.noise import Sample, stream_key
from shared_seed.perturbation import Perturbation
from shared_seed.probe import Measurement, Probe, check_epsilon
from shared_seed.replica import Replica, count_gradients
from shared_seed.settings import Settings
from shared_seed.swarm.protocol import Protocol, Terms
from shared_seed.swarm.wire import State
from shared_seed.swarm.zmq import Swarm, Traffic, fetch_manifest
from shared_seed.update import check_device
from shared_seed.weights import Weights, frozen_digest

FIRST_DEADLINE = 30.0
"""Seconds that a step waits for others before it is known how long steps take."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: ``peers`` took part with us among them, ``applied`` gradients moved the weights."""

    round: int
    loss: float
    gradient: float
    learning_rate: float
    peers: int
    applied: int
    late: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: our digest, those that the other peers state, and what was exchanged."""

    digest: str
    others: dict[str, str]
    messages: int
    gradients: int
    streams: int
    traffic: Traffic

    @property
    def identical(self) -> bool:
        """Whether every peer that stated a digest stated ours."""
        return all(digest == self.digest for digest in self.others.values())


class Session:
    """A replica in training. Open one, :meth:`begin`, then :meth:`measure` and :meth:`step`, then
    :meth:`finish`; :meth:`close` whatever happens.
    """

    def __init__(
        self, model: nn.Module, replica: Replica, settings: Settings, run_log: RunLog | None, stream: Stream
    ) -> None:
        manifest = replica.manifest
        self.replica = replica
        self.settings = settings
        self.perturbation = Perturbation(replica.weights, manifest.epsilon)
        self.round = 0
        self._probe = Probe(model, self.perturbation)
        self._log = run_log
        self._codes = bytearray()
        self._losses: list[float] = []
        self._gradients: list[float] = []
        self._held: list[Message] = []
        self._number = 0
        self._stream = stream
        self._durations: list[float] = []
        self._began = clock.now()
        terms = Terms(
            manifest.digest(),
            manifest.pack(),
            manifest.limits.samples_per_message,
            manifest.limits.learning_rate,
        )
        self.protocol = Protocol(stream, settings.name, terms, MessageSet())
        self.swarm: Swarm | None = None

    @classmethod
    def open(
        cls,
        model: nn.Module,
        settings: Settings,
        rounds: int,
        title: str = "",
        recipe: dict[str, Any] | None = None,
        evaluated: nn.Module | None = None,
    ) -> Session:
        """Put a model on its grid, agree with the run, take up the log, connect.

        Args:
            model: at least one parameter trainable, all trainable ones in float32; snapped in place.
            settings: this peer's.
            rounds: steps of the run; a peer that joins takes the run's.
            title: what the manifest calls the base model.
            recipe: carried in the manifest for peers that join.
            evaluated: what the loss evaluates, where that is more than the model: its buffers are kept too.

        Raises:
            ManifestMismatchError: the run, or the log in the folder, is about something else; names the field.
            LogError: the log in the folder cannot be used.
            SwarmError: the address is in use, or nobody answers.
            ModelError, GridError: the model cannot be trained.
        """
        theirs = fetch_manifest(settings.join[0], settings.patience) if settings.join else None
        if theirs is not None:
            check_epsilon(theirs.epsilon)
        logged = folder.logged_terms(settings.folder)
        if theirs is not None and logged is not None:
            logged.check_equal(theirs)
        known = theirs or logged
        weights = Weights.of(
            model,
            known.epsilon if known else settings.epsilon,
            [t.name for t in known.tensors if t.family is Family.DENSE] if known else settings.dense,
        )
        if known is None:
            _check_patterns(settings, weights)
        for device in {t.parameter.device for t in weights}:
            check_device(device)
        if known is None:
            manifest = _new_manifest(model, weights, settings, rounds, title, recipe)
        else:
            manifest = manifest_of(model, weights, known)
            manifest.check_equal(known)
        replica = Replica(weights, manifest)
        stream = folder.next_stream(settings.folder, settings.peer_name(manifest.run))
        run_log, messages = folder.open_log(settings.folder, manifest)
        session = cls(evaluated or model, replica, settings, run_log, stream)
        try:
            session._take_up(messages)
            session.swarm = Swarm(session.protocol, settings.listen, settings.join)
        except BaseException:
            session.close()
            raise
        return session

    @property
    def manifest(self) -> Manifest:
        """The terms of the run."""
        return self.replica.manifest

    def is_over(self) -> bool:
        """Whether the run's last round is done."""
        return self.round >= self.manifest.rounds

    @property
    def traffic(self) -> Traffic:
        """Bytes so far."""
        return self.swarm.traffic if self.swarm else Traffic()

    def begin(self) -> None:
        """Wait for enough peers, catch up with what the run has done, and enter its current round.

        Raises:
            UnreachableError: too few peers came within the patience, or the run fell silent.
        """
        swarm, wanted = self._swarm(), self.manifest.start_with
        swarm.enter(State.READY, self.round)

        def may_begin(protocol: Protocol, now: float) -> bool:
            if self.settings.join and not protocol.live(now):
                return False
            under_way = len(protocol.messages) > 0 or protocol.swarm_round(now) > 0
            return protocol.has_all(now) and (under_way or protocol.ready(now) >= wanted)

        if not swarm.wait(may_begin, self.settings.patience):
            ready = swarm.ask(lambda p, now: p.ready(now))
            raise UnreachableError(
                f"{ready} of {wanted} peers were ready within {self.settings.patience:g} s; start the others, or "
                "ask for fewer with start_with"
            )
        self._keep(self._take())
        self._apply_before(None)
        swarm_round = swarm.ask(lambda p, now: p.swarm_round(now))
        self.round = max(self.round, swarm_round)
        self._claim_stream()
        swarm.enter(State.TRAINING, self.round)
        self._began = clock.now()

    def measure(self, loss: Callable[[], Any], context: AbstractContextManager[Any] | None = None) -> Measurement:
        """Probe the loss along the next direction; its byte goes into the next message.

        Args:
            loss: evaluates one batch, twice the same; see :meth:`Probe.measure`.
            context: entered around the pair of evaluations.
        """
        index = len(self._codes)
        if index >= self.manifest.limits.samples_per_message:
            raise RecipeError(
                f"more than {index} probes in one step; the manifest allows "
                f"{self.manifest.limits.samples_per_message}; accumulate fewer batches"
            )
        key = stream_key(self.manifest.run_bytes, self._stream.to_bytes())
        measured = self._probe.measure(loss, Sample(key, self._number, index), context)
        self._codes.append(codec.encode(measured.gradient, self.manifest.scale_exponent))
        self._losses.append(measured.loss)
        self._gradients.append(measured.gradient)
        return measured

    def step(self, learning_rate: float) -> Step:
        """Publish the measured bytes, wait for the others as the run's mode has it, and update the weights.

        Several probes in one step are averaged, as accumulated batches are: each counts with
        ``learning_rate`` divided by their number. The peers' steps add up.

        Raises:
            HeadroomError: a weight would leave its grid; the weights are as before the step.
            SwarmError: the network part has failed.
            MessageError: the learning rate is beyond what the manifest allows.
            RecipeError: nothing was measured since the last step.
        """
        swarm = self._swarm()
        if not self._codes:
            raise RecipeError("step() without a probe before it; call measure() first")
        rate = as_float32(learning_rate / len(self._codes))
        message = Message(self._stream, self._number, self.round, rate, bytes(self._codes))
        swarm.publish(message)
        self._number += 1
        late = self._wait(swarm)
        swarm_round = swarm.ask(lambda p, now: p.swarm_round(now))
        done = self.round
        # A peer one round ahead is waiting for us; one further ahead has given us up.
        self.round = swarm_round if swarm_round > done + 2 else done + 1
        self._keep(self._take())
        applied = self._apply_before(self.round if self.manifest.lockstep else None)
        peers = 1 + len({m.stream for m in applied if m.round == done} - {self._stream})
        report = Step(
            done,
            sum(self._losses) / len(self._losses),
            sum(self._gradients) / len(self._gradients),
            learning_rate,
            peers,
            count_gradients(applied),
            late,
        )
        self._forget_probes()
        return report

    def finish(self) -> Outcome:
        """Exchange the last bytes, apply them, compare digests, and close."""
        swarm = self._swarm()
        swarm.enter(State.FINISHED, self.round)

        def quiet(protocol: Protocol, now: float) -> bool:
            busy = (State.READY, State.TRAINING, State.LOADING)
            if protocol.cut_off(now):
                return False  # Somebody should have our last messages before we go.
            return protocol.has_all(now) and not any(p.state in busy for p in protocol.live(now))

        def agreed(protocol: Protocol, now: float) -> bool:
            stated = all(p.digest for p in protocol.live(now))
            alike = protocol.has_all(now) and protocol.others_have_all(now)
            return protocol.untaken > 0 or (alike and stated)

        swarm.wait(quiet, self.settings.patience)
        while True:
            self._keep(self._take())
            self._apply_before(None)
            digest = self.replica.digest()
            swarm.enter(State.FINISHED, self.round, digest)
            swarm.wait(agreed, 4 * self.protocol.timing.timeout)
            if self.protocol.untaken == 0:
                break
        others = swarm.ask(lambda p, now: p.digests())
        if self._log is not None:
            self._log.append_digest(self.replica.messages, digest)
        outcome = Outcome(
            digest.hex(),
            others,
            self.replica.messages,
            self.replica.gradients,
            len(self.protocol.messages.streams),
            self.traffic,
        )
        self.close()
        return outcome

    def close(self) -> None:
        """Leave the swarm and close the log, weights clean; may be called again."""
        self.perturbation.settle()
        self._forget_probes()
        if self.swarm is not None:
            self.swarm.close()
        if self._log is not None:
            self._log.close()

    # Inside

    def _swarm(self) -> Swarm:
        if self.swarm is None:
            raise RecipeError("this session is not connected; use Session.open")
        return self.swarm

    def _take_up(self, messages: list[Message]) -> None:
        """Begin from a log's messages."""
        self.protocol.messages.add_all(messages)
        self.replica.apply(messages)
        self.round = max((m.round + 1 for m in messages), default=0)

    def _claim_stream(self) -> None:
        """Make sure that nobody has seen our stream before, and note it down before its first message."""
        taken = [s.incarnation for s in self.protocol.messages.streams if s.peer == self._stream.peer]
        if taken and max(taken) >= self._stream.incarnation:
            self._stream = Stream(self._stream.peer, max(taken) + 1)
            self.protocol.stream = self._stream
        folder.note_stream(self.settings.folder, self._stream)

    def _take(self) -> list[Message]:
        return self._swarm().ask(lambda p, now: p.take())

    def _keep(self, fresh: list[Message]) -> None:
        if self._log is not None and fresh:
            self._log.append(fresh)
        self._held += fresh

    def _apply_before(self, round_: int | None) -> list[Message]:
        """Apply what is held for rounds before ``round_``, or all of it; returns what was applied."""
        due = [m for m in self._held if round_ is None or m.round < round_]
        with deferred():
            self.replica.apply(due)
            self._held = [m for m in self._held if round_ is not None and m.round >= round_]
        return due

    def _wait(self, swarm: Swarm) -> tuple[str, ...]:
        """In lockstep, wait for the others' messages; the names of those that missed the deadline."""
        worked = clock.now() - self._began
        late: list[str] = []
        if self.manifest.lockstep and not swarm.wait(
            lambda p, now: not p.waits_for(self.round, now), self._deadline()
        ):
            late = swarm.ask(lambda p, now: [v.name for v in p.give_up_on(self.round, now)])
        elif len(self._durations) < 1000:
            self._durations.append(max(worked, clock.now() - self._began))
        self._began = clock.now()
        return tuple(late)

    def _deadline(self) -> float:
        if self.settings.deadline is not None:
            return self.settings.deadline
        if len(self._durations) < 3:
            return min(FIRST_DEADLINE, self.settings.patience)
        return max(2.0, 3 * median(self._durations[-20:]))

    def _forget_probes(self) -> None:
        self._codes.clear()
        self._losses.clear()
        self._gradients.clear()


def _check_patterns(settings: Settings, weights: Weights) -> None:
    """Refuse a pattern of the settings that stands for nothing."""
    for pattern in settings.dense:
        if not any(fnmatch.fnmatchcase(t.name, pattern) for t in weights):
            names = ", ".join(t.name for t in list(weights)[:5])
            raise RecipeError(
                f"dense={pattern!r} matches no trainable parameter; they are called {names} and so on"
            )


def manifest_of(model: nn.Module, weights: Weights, terms: Manifest) -> Manifest:
    """A run's terms with the tensors that are here, to be compared with the run's own."""
    return terms.model_copy(update={"tensors": weights.specs(), "frozen_digest": frozen_digest(model)})


def _new_manifest(
    model: nn.Module, weights: Weights, settings: Settings, rounds: int, title: str, recipe: dict[str, Any] | None
) -> Manifest:
    """The terms of a run that begins here."""
    tensors, frozen = weights.specs(), frozen_digest(model)
    return Manifest(
        run=settings.run_name(frozen, [t.digest for t in tensors]),
        model=title or type(model).__name__,
        frozen_digest=frozen,
        tensors=tensors,
        epsilon=settings.epsilon,
        scale_exponent=settings.scale_exponent,
        rounds=rounds,
        start_with=settings.start_with,
        lockstep=settings.lockstep,
        limits=Limits(learning_rate=settings.most_learning_rate, samples_per_message=MOST_CODES),
        recipe=recipe,
    )
