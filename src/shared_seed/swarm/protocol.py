r"""What a peer does with what it hears: no sockets, no clock, no threads.

Frames and the time come in, outputs come out, and whoever owns the sockets carries them out. What counts is
decided by the archive, in which order means nothing, so nothing here can make replicas differ: this module only
sees to it that what is said gets to everybody, and that a calm run goes in lockstep.

States of a peer, as it states them in its heartbeats::

    LOADING -> READY -> TRAINING -> FINISHED -> LEAVING
       \________________________________________^

A relay, which holds the archive but no model, is RELAYING all the time and takes no part in rounds.
"""

from __future__ import annotations

import math

from shared_seed import identity
from shared_seed.archive import Archive
from shared_seed.errors import EquivocationError, MessageError
from shared_seed.messages import Message, Stream
from shared_seed.news import News
from shared_seed.proofs import Order
from shared_seed.signed import Signed
from shared_seed.swarm import wire
from shared_seed.swarm.accord import Accord
from shared_seed.swarm.answers import Asking, Supply
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.budget import Budget
from shared_seed.swarm.exchange import Exchange
from shared_seed.swarm.greetings import Greetings
from shared_seed.swarm.heartbeats import Heartbeats, Standpoint
from shared_seed.swarm.output import Join, Link, Output, Publish, Send, Timing
from shared_seed.swarm.roster import ABLE, Felt, PeerView, Roster
from shared_seed.swarm.standing import Standing
from shared_seed.swarm.wire import State

STEADY = (State.TRAINING, State.RELAYING)
"""What peers are at in whom others, beside their neighbours, need not know what they hold: pulses will do."""

MOST_ASTRAY = 100
"""Pulses a second that lead nowhere, from one neighbour, until its pulses are not looked into: each, of 25 bytes,
takes 128 hashes. A crowd has as many signs of life a second.
"""

Said = wire.SignedHeartbeat | Order | wire.Accusation
"""What goes to everybody beside messages: published, and over links to those who come late."""


class Protocol:
    """One peer's view of the swarm."""

    def __init__(
        self,
        author: Author,
        terms: Terms,
        archive: Archive,
        timing: Timing | None = None,
        first_beat: int = 0,
        supply: Supply | None = None,
    ) -> None:
        self.author = author
        self.terms = terms
        self.archive = archive
        self.timing = timing or Timing()
        self.state = State.LOADING
        self.round = 0
        self.pace = 0.0
        """Seconds that our own steps take, waiting left out; 0 while it is not known."""
        self.roster = Roster(self.timing.timeout)
        self.roster.write(author.stream)
        self.standing = Standing(archive, self.roster)
        self._stated = (b"", b"", b"")
        self._heartbeats = Heartbeats(self.timing.heartbeat, first_beat)
        self._astray = Budget(MOST_ASTRAY)
        self._greetings = Greetings(terms, self.standing, self.timing)
        self._exchange = Exchange(archive, self.roster, self.standing, self.timing, supply)
        self._catch_up = self._exchange.catch_up
        self._accord = Accord(archive, self.roster, self._exchange, self._greetings)
        if author.introduction is not None:
            archive.introduce(author.introduction)

    # What the peer itself does

    def enter(self, state: State, round_: int, now: float, digest: bytes = b"") -> list[Output]:
        """State what we are at from now on."""
        self.state, self.round = state, round_
        self._stated = (*self._held(), digest)
        self._heartbeats.renew()
        return [self._beat(now)] if self.author.key else []

    def publish(self, message: Message, now: float) -> list[Output]:
        """Put our own next message into the set and send it; our next round is the one after it.

        Raises:
            MessageError: the manifest does not allow it, so the others would refuse it.
        """
        signed = self.archive.publish(message, self.author.key)
        self.round = message.round + 1
        self._heartbeats.published(now)
        return [Publish(signed.encode())] if self.author.key else []

    def order(self, order: Order) -> list[Output]:
        """Pass an order of the owner, ours or one that was handed to us, to everybody.

        Raises:
            MessageError: the owner has not signed it.
        """
        return [Publish(order.encode())] if self.standing.obey(order, self.author) else []

    def dialled(self, link: Link, key: bytes = b"") -> None:
        """Introduce ourselves on this link at every tick that is due; the other side may have restarted.

        Args:
            link: to a peer that we have chosen ourselves.
            key: that peer's public key.
        """
        self._greetings.dial(link)
        self.standing.vouch(key)

    def become(self, author: Author) -> None:
        """Write another stream of the same peer from now on."""
        self.author = author
        self.roster.write(author.stream)

    @property
    def digest(self) -> bytes:
        """What we stated of our weights, or nothing: it does not hold with what has come since."""
        *held, digest = self._stated
        return digest if tuple(held) == self._held() else b""

    def take(self) -> News:
        """What is new since the last call; see :meth:`Archive.take`."""
        return self.archive.take()

    @property
    def untaken(self) -> int:
        """How many messages :meth:`take` would give."""
        return self.archive.untaken

    # What others do

    def hear(self, data: bytes, now: float, forward: bool, sender: bytes = b"") -> list[Output]:
        """Take in a published frame; pass it on, untouched, if it is new and ``forward`` is set.

        Args:
            data: the frame.
            now: seconds.
            forward: whether others hear it through us.
            sender: the Curve25519 public key of the link's other end, where it is known.

        Raises:
            MessageError: the frame is not valid or not allowed; it has changed nothing.
        """
        self.standing.check_sender(sender)
        frame = wire.decode(data, self.archive.seal)
        if isinstance(frame, Signed):
            new = self._take_in(frame, now)
        elif isinstance(frame, Said):
            new = self._learn(frame, now)
        elif isinstance(frame, wire.Pulse):
            new = self._feel(frame, now, sender)
        else:
            raise MessageError(f"a {type(frame).__name__} frame was published; it belongs to links")
        if isinstance(new, list):
            return new
        return [Publish(data)] if new and forward else []

    def receive(self, link: Link, data: bytes, now: float, sender: bytes = b"") -> list[Output]:
        """Take in a frame from a link; ``sender`` as for :meth:`hear`.

        Raises:
            MessageError: the frame is not valid; it has changed nothing.
        """
        frame = wire.decode(data, self.archive.seal)
        if isinstance(frame, wire.Hello):
            return self._answer_hello(link, frame, now, sender)
        self.standing.check_sender(sender)
        match frame:
            case wire.Welcome():
                return self._enter_by(link, frame, now)
            case wire.Refusal():
                self._greetings.obey(link, frame)
                return []
            case wire.Vacancy():
                return [Send(link, self._greetings.offer(link))]
        if link not in self._exchange:
            raise MessageError(f"a {type(frame).__name__} on a link without a greeting")
        self._greetings.heard(link, now)
        try:
            if isinstance(frame, Said):
                return self._told(link, frame, data, now)
            if isinstance(frame, Asking):
                self._exchange.answers.ask(sender or link, link, frame)
                self._heartbeats.hasten(now)
                return self._exchange.answer(now)
            return self._exchange.take(link, frame, self.round, now)
        except EquivocationError as error:
            return self._accuse(error, Stream.from_bytes(getattr(frame, "stream", b"")))

    def tick(self, now: float) -> list[Output]:
        """Do what time asks for: heartbeats, greetings, and requests for what we lack."""
        self._exchange.answers.begin_pass()
        out: list[Output] = []
        if self.author.key and self._heartbeats.is_due(now):
            out.append(self._sign_of_life(now))
        out += self._greetings.hellos(self.author, now)
        self._accord.look(now)
        out += self._exchange.look(self._greetings, now)
        out += self._exchange.report(self.state, now)
        return [*out, *self._catch_up.requests(now), *self._exchange.answer(now)]

    # Questions

    def has_answers(self, now: float) -> bool:
        """Whether the next :meth:`tick` would answer somebody at once."""
        return self._exchange.answers.is_due(now)

    def live(self, now: float) -> list[PeerView]:
        """The other peers that are there now."""
        return self.roster.live(now)

    def ready(self, now: float) -> int:
        """How many peers, we among them, could begin a round."""
        return self.roster.ready(now) + (self.state in ABLE)

    def is_waiting(self, round_: int, now: float, deadline: float = math.inf) -> bool:
        """Whether :meth:`waits_for` names anybody."""
        return self.roster.is_waiting(round_, now, deadline)

    def waits_for(self, round_: int, now: float, deadline: float = math.inf) -> list[PeerView]:
        """The peers whose message for a round is still to come; see :meth:`Roster.waits_for`."""
        return self.roster.waits_for(round_, now, deadline)

    def give_up_on(self, round_: int, now: float) -> list[PeerView]:
        """Mark as late all that :meth:`waits_for` names, and return them."""
        return self.roster.give_up_on(round_, now)

    def swarm_round(self, now: float) -> int:
        """The round that the swarm is at; see :meth:`Roster.round`."""
        return self.roster.round(now)

    def has_all(self, now: float) -> bool:
        """Whether we have every message that a neighbour that is there, and keeps its word, says it has."""
        return self._exchange.has_all(now)

    def all_equal(self, now: float) -> bool:
        """Whether every live peer holds what we hold; see :meth:`Accord.all_equal`."""
        return self._accord.all_equal(now)

    def is_quiet(self, now: float) -> bool:
        """Whether nobody has anything to say any more that we lack: a finished peer may state its digest."""
        if self.cut_off(now):
            return False  # Somebody should have our last messages before we go.
        return not self._accord.is_expecting(now) and self.has_all(now)

    def is_settled(self, now: float) -> bool:
        """Whether all sets are equal and all digests stated, or there is something to take in first."""
        if self.untaken > 0:
            return True
        return self._accord.all_stated(now) and self.has_all(now) and self.all_equal(now)

    def digests(self) -> dict[str, str]:
        """The digests, in hex, that peers with the same messages as we have state, by name."""
        return self._accord.digests()

    def cut_off(self, now: float) -> bool:
        """Whether we dialled somebody and hear nobody; see :meth:`Accord.cut_off`."""
        return self._accord.cut_off(now)

    # Inside: publications

    def _take_in(self, signed: Signed, now: float) -> bool | list[Output]:
        stream, number = signed.message.stream, signed.message.number
        if self.archive.introduction(stream) is None:
            # We have not heard its writer's heartbeat yet; a neighbour's answer introduces him.
            self._catch_up.hint(stream, number + 1)
            return False
        try:
            new = self.archive.accept(signed)
        except EquivocationError as error:
            return self._accuse(error, stream)
        if new:
            self.roster.hear_of(stream, now)
            self.roster.reached(stream, signed.message.round, self.round)
        elif number > self.archive.count(stream):
            self._catch_up.hint(stream, number + 1)
        return new

    def _feel(self, pulse: wire.Pulse, now: float, sender: bytes) -> bool:
        if self._astray.left(sender, now) <= 0:
            return False
        stream = Stream.from_bytes(pulse.stream)
        count = self.archive.count(stream)
        felt = self.roster.feel(pulse, count, now)
        if felt in (Felt.ASTRAY, Felt.STRANGE):
            self._astray.charge(sender, 1, now)
        if felt is Felt.LACKING and self.roster.peers[stream].state is State.TRAINING:
            self._catch_up.hint(stream, count + 1)
        if felt is Felt.STRANGE:
            self._heartbeats.hasten(now)  # We were cut off from each other: ours will be as strange there.
        return felt in (Felt.NEW, Felt.LACKING)

    def _learn(self, frame: Said, now: float) -> bool:
        """Take in what goes to everybody beside messages; whether it is new."""
        match frame:
            case wire.SignedHeartbeat():
                return self._note(frame, now)
            case Order():
                return self.standing.obey(frame, self.author)
            case wire.Accusation():
                return self.standing.believe(frame)

    def _note(self, signed: wire.SignedHeartbeat, now: float) -> bool:
        beat, stream, introduction = signed.beat, signed.stream, signed.introduction
        if stream == self.author.stream:
            self._heartbeats.outrun(self.author, signed)
            return False
        known = self.archive.introduction(stream) == introduction
        if not known:
            self.standing.check_peer(introduction, stream)
        if not identity.verify(introduction.key, signed.text, signed.signature):
            raise MessageError("a heartbeat that its sender has not signed")
        if not known:
            self.standing.introduce(introduction, beat.state)
        if self.archive.is_out(introduction.key):
            raise MessageError("a heartbeat of a key that is out of the run")
        if stream not in self.roster.peers and self.standing.is_vouched(introduction.key):
            # It may be the other end of a link of ours, restarted and without knowledge of us.
            self._greetings.repeat()
        before = self.roster.peers.get(stream)
        is_back = before is not None and now - before.heard >= before.timeout
        if not self.roster.note(signed, now):
            return False
        if is_back:
            self._heartbeats.hasten(now)
        self.roster.catch_up(self.roster.peers[stream], self.round)
        return True

    def _remind(self, link: Link, beat: wire.Heartbeat) -> list[Output]:
        """Show a neighbour whose heartbeats are behind those of its earlier process the last of these."""
        stream = Stream.from_bytes(beat.stream)
        peer = self.roster.peers.get(stream)
        latest = peer.latest if peer is not None and self._catch_up.neighbours[link].stream == stream else None
        behind = latest is not None and beat.beat < latest.beat.beat
        return [Send(link, wire.encode_beat(latest.beat, latest.signature))] if latest and behind else []

    def _accuse(self, error: EquivocationError, stream: Stream) -> list[Output]:
        """Tell everybody of a fork that we have found."""
        return [Publish(frame) for frame in self.standing.accuse(error, stream)]

    # Inside: links

    def _held(self) -> tuple[bytes, bytes]:
        return self.archive.digest(), self.archive.statements_digest()

    def _heartbeat(self, now: float) -> bytes:
        at = Standpoint(self.state, self.round, self.pace, self.digest)
        return self._heartbeats.beat(self.author, at, self.archive, len(self.live(now)))

    def _sign_of_life(self, now: float) -> Publish:
        pulse = self._heartbeats.pulse(now) if self.state in STEADY else None
        return self._beat(now) if pulse is None else Publish(pulse)

    def _beat(self, now: float) -> Publish:
        frame = self._heartbeat(now)
        self._heartbeats.said(now)
        return Publish(frame)

    def _answer_hello(self, link: Link, hello: wire.Hello, now: float, sender: bytes) -> list[Output]:
        answer, stream = self._greetings.answer(hello, self.author, sender)
        return [Send(link, answer), *(self._meet(link, stream, now) if stream else ())]

    def _enter_by(self, link: Link, welcome: wire.Welcome, now: float) -> list[Output]:
        stream = self._greetings.enter(link, welcome, now)
        return [Join(link), *self._meet(link, stream, now)]

    def _meet(self, link: Link, stream: Stream, now: float) -> list[Output]:
        """Tell a new neighbour of ourselves and of all that we hear."""
        known = self.roster.heartbeats(now) if self._catch_up.meet(link, stream, now) else []
        return [Send(link, frame) for frame in (self._heartbeat(now), *known)]

    def _told(self, link: Link, frame: Said, data: bytes, now: float) -> list[Output]:
        """Take in over a link what is published otherwise, and publish it."""
        new = self._learn(frame, now)
        if not isinstance(frame, wire.SignedHeartbeat):
            return [Publish(data)] if new else []
        if not new:
            return self._remind(link, frame.beat)
        # Those who dialled us are heard by others through us alone.
        return [Publish(data)] if link[0] == "accepted" else []
