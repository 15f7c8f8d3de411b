"""One peer's part in a run: the one place where probe, update, messages and swarm meet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from torch import nn

from shared_seed import authors, clock, codec, folder, history, terms
from shared_seed.archive import Archive
from shared_seed.entry import Entry
from shared_seed.errors import RecipeError, UnreachableError
from shared_seed.follower import Follower
from shared_seed.log import Contents
from shared_seed.manifest import Manifest
from shared_seed.messages import Message, Stream, as_float32, directions_of, written_before
from shared_seed.news import News
from shared_seed.noise import Sample
from shared_seed.outcome import Outcome, Step
from shared_seed.pace import Pace
from shared_seed.pending import Pending
from shared_seed.perturbation import Perturbation
from shared_seed.probe import Measurement, Probe
from shared_seed.replica import count_gradients
from shared_seed.settings import Settings
from shared_seed.snapshot import Snapshot
from shared_seed.stride import Stride
from shared_seed.swarm.alone import Alone
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.traffic import Traffic
from shared_seed.swarm.wire import State
from shared_seed.swarm.zmq import Swarm
from shared_seed.terms import Agreed
from shared_seed.training import Training

AnySwarm = Swarm | Alone


class Session:
    """A replica in training. Open one, :meth:`begin`, then :meth:`measure` and :meth:`step`, then
    :meth:`finish`; :meth:`close` whatever happens.
    """

    def __init__(
        self, model: nn.Module, agreed: Agreed, settings: Settings, author: Author, training: Training
    ) -> None:
        replica = agreed.replica
        manifest = replica.manifest
        self.replica = replica
        self.settings = settings
        self.perturbation = Perturbation(replica.weights, manifest.epsilon)
        self.round = 0
        self.probe = Probe(model, self.perturbation)
        self._follower = Follower(replica)
        self._pending = Pending()
        self.row_losses = training.row_losses
        self.stride = Stride(settings, manifest, training.groups)
        self._number = 0
        self._resumed = False
        self._author = author
        self._signature = agreed.signature
        self._pace = Pace(settings)
        # A peer that goes on in its old stream must be heard where its earlier process was: later beats count.
        self.protocol = Protocol(
            author, Terms.of(manifest, agreed.signature), Archive(manifest), first_beat=clock.stamp()
        )
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
        agreed = terms.agree(model, settings, training)
        manifest, resume, logged = agreed.replica.manifest, training.resume, agreed.logged
        author = authors.author(settings, manifest, resume)
        session = cls(training.evaluated or model, agreed, settings, author, training)
        begun = Contents(manifest, signature=agreed.signature)
        try:
            session._follower.log = folder.open_log(settings.folder, begun, logged)
            session._take_up(logged, resume)
            session.swarm = session._connect()
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
    def stream(self) -> Stream:
        """What the next message is published in; settled when the session has begun."""
        return self._author.stream

    @property
    def probes(self) -> int:
        """How many have been measured since the last step."""
        return len(self._pending.codes)

    @property
    def published(self) -> int:
        """How many messages this peer has published, in this process and in earlier ones."""
        peer = self.stream.peer
        return self._swarm().ask(
            lambda p, now: sum(p.archive.count(s) for s in p.archive.streams if s.peer == peer)
        )

    @property
    def faults(self) -> list[str]:
        """What other peers have done wrong, one sentence each."""
        return self.swarm.ask(lambda p, now: list(p.standing.faults)) if self.swarm else []

    @property
    def names(self) -> dict[Stream, str]:
        """What this peer, and those that it has heard of, call themselves, by stream."""
        heard = self._swarm().ask(lambda p, now: {s: peer.name for s, peer in p.roster.peers.items()})
        return heard | {self.stream: self.settings.name}

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
        swarm = self._swarm()
        swarm.enter(State.READY, self.round)
        entry = Entry(self.manifest.start_with, self.round, self._resumed, bool(self.settings.join))
        if not swarm.wait(entry.is_open, self.settings.patience):
            self._keep()
            raise UnreachableError(swarm.ask(lambda p, now: entry.why_closed(p, now, self.settings.patience)))
        self._keep()
        swarm_round = min(swarm.ask(lambda p, now: p.swarm_round(now)), self.manifest.rounds)
        behind = swarm_round > self.round
        self.round = max(self.round, swarm_round)
        self._apply()
        self._claim_stream(behind)
        messages = swarm.ask(lambda p, now: list(p.archive))
        own = written_before(messages, self.stream, self._number)
        self.stride.resume(messages, own)
        swarm.enter(State.TRAINING, self.round)
        if not self.settings.alone:
            self._pace.begin(clock.now())

    def measure(self, loss: Callable[[], Any], context: AbstractContextManager[Any] | None = None) -> Measurement:
        """Probe the loss along the next direction; its byte goes into the next message.

        A loss that is not finite, or that there is none of, abstains: its byte moves nothing. Where the settings
        say ``adapt``, a peer that is slower than most leaves out all but the first probes of a step; the last
        one's measurement is returned again.

        Where the settings ask for several directions, each is a probe with a byte of its own, on the same batch.

        Args:
            loss: evaluates one batch, every time the same; see :meth:`Probe.measure`.
            context: entered around all evaluations.

        Returns:
            The measurement of the last direction.
        """
        if self.settings.adapt and self._pending.newest and self._swarm().ask(self._is_slow):
            return self._pending.newest
        samples = self._directions()
        with self.row_losses.heard():
            found = self.probe.measure_all(loss, samples, context)
        if self.stride.finds:
            self._pending.note_rows(self.row_losses.shared(self.manifest.epsilon, len(samples)))
        for sample, measured in zip(samples, found, strict=True):
            gradient = self.stride.gradient(measured, self.replica.weights, sample)
            self._pending.note(measured, gradient, codec.encode(gradient, self.manifest.scale_exponent))
        return found[-1]

    def step(self, learning_rate: float) -> Step:
        """Publish the measured bytes, wait for the others as the run's mode has it, and update the weights.

        Several probes in one step are averaged, as accumulated batches are: each counts with
        ``learning_rate`` divided by their number. The peers' steps add up. Where the settings promise something,
        the rate of each probe is that of :mod:`shared_seed.rate`, and ``learning_rate``, as a part of what the
        optimizer began with, and never more than that, is its schedule.

        Raises:
            HeadroomError: a weight would leave its grid; the weights are as before the step.
            SwarmError: the network part has failed.
            MessageError: the learning rate is beyond what the manifest allows.
            RecipeError: nothing was measured since the last step.
        """
        swarm, pending = self._swarm(), self._pending
        if not pending.codes:
            raise RecipeError("step() without a probe before it; call measure() first")
        learning_rate = self.stride.learning_rate(learning_rate, self.round, pending)
        rate = as_float32(learning_rate / self.probes)
        message = Message(self.stream, self._number, self.round, rate, bytes(pending.codes))
        # What an earlier process has published under this number stands, whatever we have measured now.
        if swarm.ask(lambda p, now: p.archive.count(message.stream)) <= message.number:
            swarm.publish(message)
        self._number += 1
        late = self._wait(swarm)
        swarm_round = min(swarm.ask(lambda p, now: p.swarm_round(now)), self.manifest.rounds)
        done = self.round
        # A peer one round ahead is waiting for us; one further ahead has given us up.
        self.round = swarm_round if swarm_round > done + 2 else done + 1
        self._keep()
        applied = self._apply()
        peers = 1 + len({m.stream for m in applied if m.round == done} - {self.stream})
        report = Step(
            done,
            pending.loss,
            pending.gradient,
            learning_rate,
            peers,
            count_gradients(applied),
            late,
            pending.abstained,
        )
        self._pending.clear()
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
        self._follower.outgrow()
        self.close()

    def snapshot(self) -> Snapshot:
        """Where this session stands between two steps, for a checkpoint to keep beside the weights."""
        news, contents = self._swarm().ask(lambda p, now: (p.take(), self._contents(p)))
        self._follower.take_in(news)
        self._apply()
        count = sum(self._due is None or message.round < self._due for message in contents.messages)
        contents = replace(contents, digest=(count, self.replica.digest()))
        return Snapshot(contents, self.stream, self._label, self.replica.weights.low(), self.stride.learnt)

    def note(self) -> bytes:
        """What of :meth:`snapshot` this peer alone knows, where another process of its launch keeps the rest."""
        return folder.encode_note(self.stream, self._label, self.stride.learnt)

    def finish(self) -> Outcome:
        """Exchange the last bytes, apply them, compare digests, and close."""
        swarm = self._swarm()
        swarm.enter(State.FINISHED, self.round)
        swarm.wait(Protocol.is_quiet, self.settings.patience)
        while True:
            self._keep()
            self._follower.apply_before(None)
            digest = self.replica.digest()
            swarm.enter(State.FINISHED, self.round, digest)
            swarm.wait(Protocol.is_settled, 4 * self.protocol.timing.timeout)
            ended = swarm.ask(lambda p, now: None if p.untaken else (p.digests(), self._contents(p)))
            if ended:
                break
        others, contents = ended
        contents = replace(contents, digest=(len(contents.signed), digest))
        if self._follower.log is not None:
            self._follower.log.replace(contents)
        outcome = Outcome(
            digest.hex(),
            others,
            self.replica.messages,
            self.replica.gradients,
            len(self.protocol.archive.streams),
            self.traffic,
            contents,
        )
        self.close()
        return outcome

    def close(self) -> None:
        """Leave the swarm and close the log, weights clean; may be called again."""
        self.perturbation.settle()
        self._pending.clear()
        if self.swarm is not None:
            self.swarm.close()
        self._follower.close()

    # Inside

    def _swarm(self) -> AnySwarm:
        if self.swarm is None:
            raise RecipeError("this session is not connected; use Session.open")
        return self.swarm

    @property
    def _label(self) -> bytes:
        introduction = self._author.introduction
        return introduction.label if introduction else b""

    def _connect(self) -> AnySwarm:
        settings, key = self.settings, self._author.key
        if settings.alone or key is None:
            return Alone(self.protocol)
        dial = (*settings.join, *settings.via)
        return Swarm(self.protocol, key, settings.listen, dial, self.manifest.limits.bytes_per_second)

    def _directions(self) -> list[Sample]:
        """The names of the next batch's directions."""
        begun, most = self.probes, self.manifest.limits.samples_per_message
        if begun + self.settings.directions > most:
            raise RecipeError(
                f"more than {begun} probes in one step, and {self.settings.directions} for the next batch; the "
                f"manifest allows {most}; accumulate fewer batches, or take fewer directions"
            )
        shared = self.manifest.aggregation.shared
        key, number = directions_of(self.manifest.run_bytes, self.stream, self._number, self.round, shared)
        return [Sample(key, number, begun + i) for i in range(self.settings.directions)]

    def _take_up(self, logged: Contents | None, resume: Snapshot | None) -> None:
        """Begin from a log's messages, or from a checkpoint, which knows what its weights contain."""
        archive = self.protocol.archive
        contained: set[Message] = set()
        begun = News()
        if resume is not None:
            history.restore(archive, resume.contents)
            begun = self.protocol.take()
            contained = set(resume.contained)
            self._number, self._resumed = resume.number, True
            self.stride.restore(resume.learnt)
            self.replica.hold([message for message in begun.fresh if message in contained])
            self._follower.held = [message for message in begun.fresh if message not in contained]
        if logged is not None:
            history.restore(archive, logged)
        news = self.protocol.take()  # It may take back what the checkpoint's weights contain.
        log = self._follower.log
        if log is not None:
            known = set(logged.messages) if logged else set()
            stated = logged.statements if logged else []
            log.append(
                [each for each in (*begun.statements, *news.statements) if each not in stated],
                [signed for signed in (*begun.heard, *news.heard) if signed.message not in known],
            )
        self._follower.follow(news)
        if resume is None:
            self._follower.apply_before(None)
        rounds = [m.round + 1 for m in (contained if resume else news.fresh)]
        self.round = max(rounds, default=0)

    def _claim_stream(self, behind: bool) -> None:
        """Make sure that nobody has seen our stream before, and note it down before its first message.

        A checkpoint's stream goes on with its own numbers, so that a run that was stopped ends with the same bits
        as one that was not, unless the others have gone on without us, or we have used a later stream since.
        """
        archive, stream = self.protocol.archive, self.stream
        taken = [s.incarnation for s in (*archive.streams, *archive.forks) if s.peer == stream.peer]
        newest = max(taken, default=-1)
        if self._resumed and not behind and newest <= stream.incarnation and stream not in archive.forks:
            if not self.manifest.lockstep:
                self._number = archive.count(stream)
        elif newest >= stream.incarnation:
            self._author = replace(self._author, stream=Stream(stream.peer, newest + 1))
            self._number = 0
            self.protocol.become(self._author)
        folder.note_stream(self.settings.folder, self.stream, self._label)

    def _contents(self, protocol: Protocol) -> Contents:
        return history.contents_of(protocol.archive, self.manifest, self._signature)

    @property
    def _due(self) -> int | None:
        """The round before which messages are due: in lockstep, what others have done for later ones waits."""
        return self.round if self.manifest.lockstep else None

    def _apply(self) -> list[Message]:
        """Apply what is due."""
        applied = self._follower.apply_before(self._due)
        self.stride.went(applied)
        return applied

    def _keep(self) -> None:
        """Take in what is new."""
        self._follower.take_in(self._swarm().ask(lambda p, now: p.take()))

    def _wait(self, swarm: AnySwarm) -> tuple[str, ...]:
        """In lockstep, wait for the others' messages; the names of those that missed the deadline."""
        if self.settings.alone:
            return ()
        self.protocol.pace = self._pace.end(clock.now())
        late: list[str] = []
        if self.manifest.lockstep:
            work, wait = swarm.ask(lambda p, now: self._pace.left(p.roster, now))
            if not swarm.wait(lambda p, now: not p.is_waiting(self.round, now, work), wait):
                late = swarm.ask(lambda p, now: [v.name for v in p.give_up_on(self.round, now)])
        self._pace.begin(clock.now())
        return tuple(late)

    def _is_slow(self, protocol: Protocol, now: float) -> bool:
        return self._pace.is_slow(protocol.roster, now)
