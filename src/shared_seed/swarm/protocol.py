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
from collections import deque
from collections.abc import Iterable

from shared_seed import identity
from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.errors import EquivocationError, MessageError, RefusedError
from shared_seed.messages import Message, Stream
from shared_seed.news import News
from shared_seed.proofs import Order
from shared_seed.signed import Signed
from shared_seed.swarm import wire
from shared_seed.swarm.answers import Answers, Asking, Supply
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.catchup import CatchUp, Neighbour
from shared_seed.swarm.heartbeats import Heartbeats, Standpoint
from shared_seed.swarm.output import Join, Link, Output, Publish, Send, Timing
from shared_seed.swarm.roster import ABLE, PeerView, Roster
from shared_seed.swarm.standing import Standing
from shared_seed.swarm.wire import State

REFRESH = 4
"""A greeting that was answered is repeated after this many times ``Timing.greet``."""

REPORTS = 2
"""Times that neighbours are told what we hold, unless it changes before."""

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
        self.standing = Standing(archive, self.roster)
        self._stated = (b"", b"", b"")
        self._catch_up = CatchUp(archive, self.timing)
        self._answers = Answers(supply or Supply())
        self._dialled: dict[Link, float] = {}
        self._heartbeats = Heartbeats(self.timing.heartbeat, first_beat)
        self._next_report = 0.0
        self._reports: deque[wire.Holding] = deque(maxlen=REPORTS)
        self._parted = False
        self._united = -math.inf
        """When we last heard somebody again after nobody."""
        if author.introduction is not None:
            archive.introduce(author.introduction)

    # What the peer itself does

    def enter(self, state: State, round_: int, now: float, digest: bytes = b"") -> list[Output]:
        """State what we are at from now on."""
        self.state, self.round = state, round_
        self._stated = (*self._held(), digest)
        return [Publish(self._heartbeat(now))] if self.author.key else []

    def publish(self, message: Message, now: float) -> list[Output]:
        """Put our own next message into the set and send it; our next round is the one after it.

        Raises:
            MessageError: the manifest does not allow it, so the others would refuse it.
        """
        signed = self.archive.publish(message, self.author.key)
        self.round = message.round + 1
        self._heartbeats.postpone(now, len(self.live(now)))
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
        self._dialled[link] = 0.0
        self.standing.vouch(key)

    def become(self, author: Author) -> None:
        """Write another stream of the same peer from now on."""
        self.author = author

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
                if link not in self._dialled:
                    raise MessageError("a refusal on a link that we did not dial")
                self.standing.refusal = frame.reason
                return []
            case wire.Vacancy():
                return self._offer(link)
        if link not in self._catch_up.neighbours:
            raise MessageError(f"a {type(frame).__name__} on a link without a greeting")
        try:
            if isinstance(frame, Said):
                return self._told(link, frame, data, now)
            return self._from_neighbour(link, frame, now, sender)
        except EquivocationError as error:
            return self._accuse(error, Stream.from_bytes(getattr(frame, "stream", b"")))

    def tick(self, now: float) -> list[Output]:
        """Do what time asks for: heartbeats, greetings, and requests for what we lack."""
        self._answers.begin_pass()
        out: list[Output] = []
        if self.author.key and self._heartbeats.is_due(now):
            out.append(Publish(self._heartbeat(now)))
        for link, due in self._dialled.items():
            if now >= due:
                self._dialled[link] = now + self.timing.greet
                out.append(Send(link, self._hello()))
        if self.cut_off(now) != self._parted:
            self._parted = not self._parted
            self._united = self._united if self._parted else now
        for link, neighbour in list(self._catch_up.neighbours.items()):
            peer = self.roster.peers.get(neighbour.stream)
            if not self._is_there(neighbour, now):
                if link not in self._dialled:
                    self._catch_up.part(link)
            elif peer is not None:
                out += self._catch_up.look(link, peer, now)
        if now >= self._next_report:
            self._next_report = now + self.timing.heartbeat
            out += self._report()
        return [*out, *self._catch_up.requests(now), *self._answer(now)]

    # Questions

    def has_answers(self, now: float) -> bool:
        """Whether the next :meth:`tick` would answer somebody at once."""
        return self._answers.is_due(now)

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
        neighbours = self._catch_up.neighbours.items()
        return self._catch_up.complete([link for link, each in neighbours if self._is_there(each, now)], now)

    def all_equal(self, now: float) -> bool:
        """Whether every live peer holds what we hold; of relays, which have no weights, those that we talk to."""
        ours, held = len(self.archive), self.archive.digest()
        near = {neighbour.stream for neighbour in self._catch_up.neighbours.values()}
        return all(
            peer.messages == ours and peer.held == held
            for stream, peer in self.roster.peers.items()
            if peer.is_live(now) and (peer.state is not State.RELAYING or stream in near)
        )

    def is_quiet(self, now: float) -> bool:
        """Whether nobody has anything to say any more that we lack: a finished peer may state its digest."""
        if self.cut_off(now):
            return False  # Somebody should have our last messages before we go.
        return not self.roster.is_expecting(now, self._united) and self.has_all(now)

    def is_settled(self, now: float) -> bool:
        """Whether all sets are equal and all digests stated, or there is something to take in first."""
        if self.untaken > 0:
            return True
        stated = all(p.digest or p.state is State.RELAYING for p in self.live(now))
        return stated and self.has_all(now) and self.all_equal(now)

    def digests(self) -> dict[str, str]:
        """The digests, in hex, that peers with the same messages as we have state.

        By name, or by name and stream where names are not unique.
        """
        held = self.archive.digest()
        stated = {s: peer for s, peer in self.roster.peers.items() if peer.digest and peer.held == held}
        names = [peer.name for peer in stated.values()]
        return {
            peer.name if names.count(peer.name) == 1 else f"{peer.name} {stream}": peer.digest.hex()
            for stream, peer in stated.items()
        }

    def cut_off(self, now: float) -> bool:
        """Whether we dialled somebody, hear nobody, and whom we heard last has not taken leave."""
        if not self._dialled or not self.roster.is_alone(now):
            return False
        last = self.roster.last_heard()
        return last is None or last.state is not State.LEAVING

    # Inside: publications

    def _is_there(self, neighbour: Neighbour, now: float) -> bool:
        """Whether a neighbour was heard of lately, or has just come."""
        peer = self.roster.peers.get(neighbour.stream)
        return now - peer.heard < peer.timeout if peer else now - neighbour.since < self.timing.timeout

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
            self.roster.reached(stream, signed.message.round, self.round, now)
        elif number > self.archive.count(stream):
            self._catch_up.hint(stream, number + 1)
        return new

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
            self._dialled = dict.fromkeys(self._dialled, 0.0)
        if not self.roster.note(signed, now):
            return False
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
        return self._heartbeats.beat(self.author, at, self.archive, now, len(self.live(now)))

    def _hello(self) -> bytes:
        introduction = self.author.introduction
        assert introduction is not None
        guest = wire.Guest.of(introduction)
        return wire.encode(wire.Hello(self.author.stream.to_bytes(), self.author.name, guest, self.terms.digest))

    def _answer_hello(self, link: Link, hello: wire.Hello, now: float, sender: bytes) -> list[Output]:
        own = self.author.introduction
        if own is None:
            raise MessageError("a greeting in a private run")
        introduction, stream = hello.guest.introduction(), Stream.from_bytes(hello.stream)
        try:
            self.standing.check_hello(hello, self.terms, sender)
        except RefusedError as error:
            return [Send(link, wire.encode(wire.Refusal(str(error)[:1000])))]
        asks = not hello.manifest_digest
        if not asks:
            self.standing.check_peer(introduction, stream)
        packed, signature = (self.terms.packed, self.terms.signature) if asks else (b"", b"")
        welcome = wire.Welcome(
            self.author.stream.to_bytes(), self.author.name, wire.Guest.of(own), packed, signature
        )
        out: list[Output] = [Send(link, wire.encode(welcome))]
        if not asks:
            self.standing.introduce(introduction, State.LOADING)
            out += self._meet(link, stream, now)
        return out

    def _enter_by(self, link: Link, welcome: wire.Welcome, now: float) -> list[Output]:
        if link not in self._dialled:
            raise MessageError("a welcome on a link that we did not dial")
        stream = Stream.from_bytes(welcome.stream)
        self.standing.check_peer(welcome.guest.introduction(), stream)
        self._dialled[link] = now + REFRESH * self.timing.greet
        return [Join(link), *self._meet(link, stream, now)]

    def _meet(self, link: Link, stream: Stream, now: float) -> list[Output]:
        """Tell a new neighbour of ourselves and of all that we hear."""
        known = self.roster.heartbeats(now) if self._catch_up.meet(link, stream, now) else []
        return [Send(link, frame) for frame in (self._heartbeat(now), *known)]

    def _offer(self, link: Link) -> list[Output]:
        if link not in self._dialled:
            raise MessageError("a vacancy on a link that we did not dial")
        self._dialled[link] = 0.0  # It will greet us once it has the run.
        return [Send(link, wire.encode(wire.Offer(self.terms.packed, self.terms.signature)))]

    def _told(self, link: Link, frame: Said, data: bytes, now: float) -> list[Output]:
        """Take in over a link what is published otherwise, and publish it."""
        new = self._learn(frame, now)
        if not isinstance(frame, wire.SignedHeartbeat):
            return [Publish(data)] if new else []
        if not new:
            return self._remind(link, frame.beat)
        # Those who dialled us are heard by others through us alone.
        return [Publish(data)] if link[0] == "accepted" else []

    def _from_neighbour(self, link: Link, frame: wire.AnyFrame, now: float, sender: bytes) -> list[Output]:
        sends: Iterable[Output]
        match frame:
            case wire.Compare() | wire.Request() | wire.Trace() | wire.Consult():
                self._answers.ask(sender or link, link, frame)
                sends = self._answer(now)
            case wire.Levels():
                sends = self._catch_up.take_levels(link, frame, now)
            case wire.Chunk():
                return self._fill(link, frame, now)
            case wire.Holding():
                self._catch_up.hold(link, frame.messages, frame.held, now)
                peer = self.roster.peers.get(self._catch_up.neighbours[link].stream)
                if peer is not None:
                    peer.messages, peer.held, peer.proven = frame.messages, frame.held, frame.proven
                    peer.heard = now
                sends = []
            case wire.Marks():
                sends = self._catch_up.take_marks(link, frame)
            case Introduction():
                self.standing.introduce(frame, State.LOADING)
                sends = []
            case _:
                raise MessageError(f"a {type(frame).__name__} came over a link; it belongs to publications")
        return list(sends)

    def _fill(self, link: Link, chunk: wire.Chunk, now: float) -> list[Output]:
        """Take in what we have asked for; a single message that we had missed, others will have missed with us."""
        stream = Stream.from_bytes(chunk.stream)
        count = self.archive.count(stream)
        out: list[Output] = list(self._catch_up.take_chunk(link, chunk, now))
        last = self.archive.last(stream) if self.archive.count(stream) == count + 1 else None
        return [*out, Publish(last.encode())] if last is not None and last.signature else out

    def _report(self) -> list[Output]:
        """Tell neighbours what we hold, some times over after it has changed."""
        archive = self.archive
        holding = wire.Holding(len(archive), *self._held())
        if self._reports.count(holding) == REPORTS or not self._catch_up.neighbours:
            return []
        self._reports.append(holding)
        frame = wire.encode(holding)
        return [Send(link, frame) for link in self._catch_up.neighbours]

    def _answer(self, now: float) -> list[Output]:
        """Answer neighbours, as far as their budgets and this pass allow."""
        out: list[Output] = []
        while (due := self._answers.due(now)) is not None:
            asker, link, frame = due
            if link not in self._catch_up.neighbours:
                continue
            sends = self._answer_to(link, frame)
            self._answers.charge(asker, sum(len(send.frame) for send in sends), now)
            out += sends
        return out

    def _answer_to(self, link: Link, frame: Asking) -> list[Send]:
        match frame:
            case wire.Compare():
                return self._catch_up.answer_compare(link, frame)
            case wire.Request():
                return self._catch_up.answer_request(link, frame)
            case wire.Trace():
                return self._catch_up.answer_trace(link, frame)
            case wire.Consult():
                return [Send(link, frame) for frame in self.standing.statements()]
