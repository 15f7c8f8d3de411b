"""One peer's part in a run: the one place where probe, update, messages and swarm meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from statistics import median
from typing import Any

from torch import nn

from shared_seed import clock, codec, decay, folder, terms
from shared_seed.errors import LogError, RecipeError, UnreachableError
from shared_seed.interrupts import deferred
from shared_seed.log import Contents, RunLog
from shared_seed.manifest import Manifest
from shared_seed.messages import Message, MessageSet, Stream, as_float32
from shared_seed.noise import Sample, stream_key
from shared_seed.outcome import Outcome, Step
from shared_seed.perturbation import Perturbation
from shared_seed.probe import Measurement, Probe
from shared_seed.replica import Replica, count_gradients
from shared_seed.settings import Settings
from shared_seed.snapshot import Snapshot
from shared_seed.swarm.alone import Alone
from shared_seed.swarm.protocol import Protocol, Terms
from shared_seed.swarm.traffic import Traffic
from shared_seed.swarm.wire import State
from shared_seed.swarm.zmq import Swarm
from shared_seed.training import Training

AnySwarm = Swarm | Alone

FIRST_DEADLINE = 30.0
"""Seconds that a step waits for others before it is known how long steps take."""


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
        self.probe = Probe(model, self.perturbation)
        self._log = run_log
        self._codes = bytearray()
        self._losses: list[float] = []
        self._gradients: list[float] = []
        self._held: list[Message] = []
        self._applied: list[Message] = []
        self._decays: Mapping[str, float] = {}
        self.loudness = decay.Loudness()
        self._number = 0
        self._resumed = False
        self._stream = stream
        self._durations: list[float] = []
        self._began = 0.0
        agreed = Terms(
            manifest.digest(),
            manifest.pack(),
            manifest.limits.samples_per_message,
            manifest.limits.learning_rate,
        )
        # A peer that goes on in its old stream must be heard where its earlier process was: later beats count.
        self.protocol = Protocol(stream, settings.name, agreed, MessageSet(), first_beat=clock.stamp())
        self.swarm: AnySwarm | None = None

    @classmethod
    def open(cls, model: nn.Module, settings: Settings, training: Training) -> Session:
        """Put a model on its grid, agree with the run, take up log or checkpoint, connect.

        Args:
            model: at least one parameter trainable, all trainable ones in float32 or bfloat16; snapped in place.
            settings: this peer's.
            training: what its Trainer is about to do.

        Raises:
            ManifestMismatchError: the run, or the log in the folder, is about something else; names the field.
            LogError: the log in the folder cannot be used.
            SwarmError: the address is in use, or nobody answers.
            ModelError, GridError: the model cannot be trained.
        """
        replica, logged = terms.agree(model, settings, training)
        manifest, resume = replica.manifest, training.resume
        if resume is None:
            stream = folder.next_stream(settings.folder, settings.peer_name(manifest.run))
        else:
            stream = resume.stream
        run_log = folder.open_log(settings.folder, manifest, logged)
        session = cls(training.evaluated or model, replica, settings, run_log, stream)
        try:
            if training.groups is not None:
                session._decays = training.groups.decays
            session._take_up(logged.messages if logged else [], resume)
            alone = settings.alone
            session.swarm = (
                Alone(session.protocol) if alone else Swarm(session.protocol, settings.listen, settings.join)
            )
        except BaseException:
            session.close()
            raise
        return session

    @property
    def manifest(self) -> Manifest:
        """The terms of the run."""
        return self.replica.manifest

    def is_over(self) -> bool:
        """Whether the run's last round is done; alone and without a folder, that is the Trainer's to say."""
        return not self.settings.private and self.round >= self.manifest.rounds

    @property
    def probes(self) -> int:
        """How many have been measured since the last step."""
        return len(self._codes)

    @property
    def traffic(self) -> Traffic:
        """Bytes so far."""
        return self.swarm.traffic if self.swarm else Traffic()

    def begin(self) -> None:
        """Wait for enough peers, catch up with what the run has done, and enter its current round.

        A session that resumes from a checkpoint waits for as many peers as the run began with, unless there are
        some that have gone on meanwhile.

        Raises:
            UnreachableError: too few peers came within the patience, or the run fell silent.
        """
        swarm, wanted = self._swarm(), self.manifest.start_with
        swarm.enter(State.READY, self.round)

        def may_begin(protocol: Protocol, now: float) -> bool:
            if self.settings.join and not protocol.live(now):
                return False
            if self._resumed:
                # All may be resuming, at the same round: whoever went ahead alone would end with other bits.
                training = any(p.state is State.TRAINING for p in protocol.live(now))
                under_way = training or protocol.swarm_round(now) > self.round
            else:
                under_way = len(protocol.messages) > 0 or protocol.swarm_round(now) > 0
            return (under_way or protocol.ready(now) >= wanted) and protocol.has_all(now)

        if not swarm.wait(may_begin, self.settings.patience):
            ready = swarm.ask(lambda p, now: p.ready(now))
            raise UnreachableError(
                f"{ready} of {wanted} peers were ready within {self.settings.patience:g} s; start the others, or "
                "ask for fewer with start_with"
            )
        self._keep(self._take())
        swarm_round = swarm.ask(lambda p, now: p.swarm_round(now))
        behind = swarm_round > self.round
        self.round = max(self.round, swarm_round)
        # In lockstep, what others have done for later rounds waits for these.
        self._apply_before(self.round if self.manifest.lockstep else None)
        self._claim_stream(behind)
        swarm.enter(State.TRAINING, self.round)
        if not self.settings.alone:
            self._began = clock.now()

    def measure(self, loss: Callable[[], Any], context: AbstractContextManager[Any] | None = None) -> Measurement:
        """Probe the loss along the next direction; its byte goes into the next message.

        A loss that is not finite, or that there is none of, abstains: its byte moves nothing.

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
        sample = Sample(key, self._number, index)
        measured = self.probe.measure(loss, sample, context)
        gradient = measured.gradient
        if self._decays:
            shrinking = decay.projected(self.replica.weights, self._decays, sample)
            self.loudness.note(measured.gradient, shrinking)
            gradient += shrinking
        self._codes.append(codec.encode(gradient, self.manifest.scale_exponent))
        if math.isfinite(gradient):
            self._losses.append(measured.loss)
            self._gradients.append(gradient)
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
        # What an earlier process has published under this number stands, whatever we have measured now.
        if not swarm.ask(lambda p, now: p.messages.has(self._stream, self._number)):
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
            _mean(self._losses),
            _mean(self._gradients),
            learning_rate,
            peers,
            count_gradients(applied),
            late,
            len(self._codes) - len(self._gradients),
        )
        self._forget_probes()
        return report

    def outgrow(self) -> None:
        """After a HeadroomError of a private session: make the step on a wider grid, and end the session.

        A new one goes on from there: it is another run, since nobody can follow this one across grids.

        Raises:
            HeadroomError: the step does not fit the wider grid either.
        """
        if not self.settings.private:
            raise RecipeError("only a session that nobody follows can leave its grid; start a new run instead")
        self.perturbation.settle()
        self.replica.outgrow(self._held)
        self._held.clear()
        self.close()

    def snapshot(self) -> Snapshot:
        """Where this session stands between two steps, for a checkpoint to keep beside the weights."""
        digest = (len(self._applied), self.replica.digest())
        contents = Contents(self.manifest, list(self._applied), digest)
        return Snapshot(contents, self._stream, self.replica.weights.low())

    def finish(self) -> Outcome:
        """Exchange the last bytes, apply them, compare digests, and close."""
        swarm = self._swarm()
        swarm.enter(State.FINISHED, self.round)
        swarm.wait(Protocol.is_quiet, self.settings.patience)
        while True:
            self._keep(self._take())
            self._apply_before(None)
            digest = self.replica.digest()
            swarm.enter(State.FINISHED, self.round, digest)
            swarm.wait(Protocol.is_settled, 4 * self.protocol.timing.timeout)
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

    def _swarm(self) -> AnySwarm:
        if self.swarm is None:
            raise RecipeError("this session is not connected; use Session.open")
        return self.swarm

    def _take_up(self, logged: list[Message], resume: Snapshot | None) -> None:
        """Begin from a log's messages, or from a checkpoint, which knows what its weights contain."""
        contained = resume.contents.messages if resume else logged
        self.protocol.messages.add_all(contained)
        self._held = self.protocol.messages.add_all(logged)
        known = self.protocol.messages
        if len(known) > sum(known.version().values()):
            # What follows a gap would be taken once more when the gap is filled.
            raise LogError(
                "the gradient log lacks messages before some that it holds; expected every stream without a gap; "
                "begin in another run folder, and fetch the run from its peers"
            )
        if resume is None:
            self.replica.apply(contained)
        else:
            self.replica.hold(contained)
            self._number, self._resumed = resume.number, True
            if self._log is not None:
                there = set(logged)
                self._log.append(m for m in contained if m not in there)
        self._applied = list(contained)
        self.round = max((m.round + 1 for m in contained), default=0)

    def _claim_stream(self, behind: bool) -> None:
        """Make sure that nobody has seen our stream before, and note it down before its first message.

        A checkpoint's stream goes on with its own numbers, so that a run that was stopped ends with the same bits
        as one that was not, unless the others have gone on without us, or we have used a later stream since.
        """
        messages = self.protocol.messages
        taken = [s.incarnation for s in messages.streams if s.peer == self._stream.peer]
        newest = max(taken, default=-1)
        if self._resumed and not behind and newest <= self._stream.incarnation:
            if not self.manifest.lockstep:
                self._number = messages.version().get(self._stream, 0)
        elif newest >= self._stream.incarnation:
            self._stream = Stream(self._stream.peer, newest + 1)
            self._number = 0
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
            self._applied += due
        return due

    def _wait(self, swarm: AnySwarm) -> tuple[str, ...]:
        """In lockstep, wait for the others' messages; the names of those that missed the deadline."""
        if self.settings.alone:
            return ()
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


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
