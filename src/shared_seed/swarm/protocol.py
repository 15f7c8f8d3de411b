r"""What a peer does with what it hears: no sockets, no clock, no threads.

Frames and the time come in, outputs come out, and whoever owns the sockets carries them out. Since the
message set is grow-only, nothing here can make replicas differ: this module only sees to it that messages
get to everybody, and that a calm run goes in lockstep.

States of a peer, as it states them in its heartbeats::

    LOADING -> READY -> TRAINING -> FINISHED -> LEAVING
       \________________________________________^

A relay, which holds the set but no model, is RELAYING all the time and takes no part in rounds.

In lockstep a peer waits, at the end of its round r, for every peer that is READY or TRAINING, whose next
round is at most r, that was heard of within ``timeout``, and that is not late. A peer that lets a deadline
pass is late until it is heard of in the current round again, so a dead one costs one deadline.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shared_seed.errors import EquivocationError, MessageError
from shared_seed.messages import MOST_STREAMS, Message, MessageSet, Stream, as_float32
from shared_seed.swarm import wire
from shared_seed.swarm.wire import State

REFRESH = 4
"""A greeting that was answered is repeated after this many times ``Timing.greet``."""

LATEST = (1 << 32) - 1
"""The last round there can be."""

MOST_FAULTS = 100
"""Faults of other peers that are remembered."""

POSTPONED = 4
"""How many heartbeats a peer that publishes messages may leave out."""

Link = tuple[str, str | bytes]
"""A two-way connection: ("dialled", address) or ("accepted", routing id)."""

NOBODY: Link = ("", "")
"""No link."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Output: send a frame to everybody who listens to us."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Output: send a frame over one link."""

    link: Link
    frame: bytes


Output = Publish | Send


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: between heartbeats, of silence until a peer counts as gone, until a request or a greeting is
    repeated.
    """

    heartbeat: float = 2.0
    timeout: float = 10.0
    retry: float = 1.0
    greet: float = 5.0


@dataclass(slots=True)
class PeerView:
    """What we know of another peer."""

    name: str
    heard: float
    state: State = State.LOADING
    round: int = 0
    beat: int = -1
    version: dict[Stream, int] = field(default_factory=dict)
    digest: bytes = b""
    late: bool = False
    ahead: dict[Stream, int] = field(default_factory=dict)
    """The part of ``version`` that we lacked when we last looked; sets only grow, so no other can be lacking."""
    compared: int = -1
    """The size that our set had when the peer was last seen to have all of it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a link is checked against: the manifest's digest, its packed bytes, its limits."""

    digest: bytes
    packed: bytes
    most_samples: int
    most_learning_rate: float


class Protocol:
    """One peer's view of the swarm."""

    def __init__(
        self,
        stream: Stream,
        name: str,
        terms: Terms,
        messages: MessageSet,
        timing: Timing | None = None,
        first_beat: int = 0,
    ) -> None:
        self.stream = stream
        self.name = name
        self.terms = terms
        self.messages = messages
        self.timing = timing or Timing()
        self.state = State.LOADING
        self.round = 0
        self.digest = b""
        self.peers: dict[Stream, PeerView] = {}
        self.refusal: str | None = None
        self.faults: dict[str, None] = {}
        self._links: dict[Link, Stream] = {}
        self._dialled: dict[Link, float] = {}
        self._fresh: list[Message] = []
        self._beat = first_beat
        self._next_beat = 0.0
        self._last_beat = 0.0
        self._asked: dict[Stream, tuple[float, Link]] = {}

    # What the peer itself does

    def enter(self, state: State, round_: int, now: float, digest: bytes = b"") -> list[Output]:
        """State what we are at from now on."""
        self.state, self.round, self.digest = state, round_, digest
        return self._heartbeat(now)

    def publish(self, message: Message, now: float) -> list[Output]:
        """Put our own next message into the set and send it; our next round is the one after it.

        Raises:
            MessageError: the manifest does not allow it, so the others would refuse it.
        """
        self._check(message)
        before = self.messages.gapless(message.stream)
        self.messages.add(message)
        self._release(message.stream, before)
        self.round = message.round + 1
        # A message is a sign of life too, so heartbeats may wait; but they alone tell what others lack.
        self._next_beat = min(now, self._last_beat + POSTPONED * self.timing.heartbeat) + self.timing.heartbeat
        return [Publish(message.encode())]

    def dialled(self, link: Link) -> None:
        """Introduce ourselves on this link at every tick that is due; the other side may have restarted."""
        self._dialled[link] = 0.0

    def take(self) -> list[Message]:
        """The messages that are new since the last call, our own too, each after all before it in its stream.

        What lies beyond a gap waits for the gap to be filled. If its writer died, it may never be: then others are
        not told to fetch what follows, and replicas that had used it would differ from those that never heard it.
        """
        fresh, self._fresh = self._fresh, []
        return fresh

    @property
    def untaken(self) -> int:
        """How many messages :meth:`take` would give."""
        return len(self._fresh)

    # What others do

    def hear(self, data: bytes, now: float, forward: bool) -> list[Output]:
        """Take in a published frame; pass it on, untouched, if it is new and ``forward`` is set.

        Raises:
            MessageError: the frame is not valid or not allowed; it has changed nothing.
        """
        frame = wire.decode(data)
        if isinstance(frame, Message):
            new = self._take_in(frame, now)
        elif isinstance(frame, wire.Heartbeat):
            new = self._note(frame, now)
        else:
            raise MessageError(f"a {type(frame).__name__} frame was published; expected a message or heartbeat")
        return [Publish(data)] if new and forward else []

    def receive(self, link: Link, data: bytes, now: float) -> list[Output]:
        """Take in a frame from a link.

        Raises:
            MessageError: the frame is not valid; it has changed nothing.
        """
        frame = wire.decode(data)
        match frame:
            case wire.Hello():
                return self._answer_hello(link, frame, now)
            case wire.Welcome():
                if link not in self._dialled:
                    raise MessageError("a welcome on a link that we did not dial")
                self._dialled[link] = now + REFRESH * self.timing.greet
                self._links[link] = Stream.from_bytes(frame.stream)
                return []
            case wire.Refusal():
                self.refusal = frame.reason
                return []
            case wire.Request():
                return self._answer_request(link, frame)
            case wire.Chunk():
                return self._take_chunk(frame, now)
            case _:
                raise MessageError(f"a {type(frame).__name__} came over a link; it belongs to publications")

    def tick(self, now: float) -> list[Output]:
        """Do what time asks for: heartbeats, and requests for what we lack."""
        out: list[Output] = []
        if now >= self._next_beat:
            out += self._heartbeat(now)
        for link, due in self._dialled.items():
            if now >= due:
                self._dialled[link] = now + self.timing.greet
                hello = wire.Hello(self.stream.to_bytes(), self.name, self.terms.digest)
                out.append(Send(link, wire.encode(hello)))
        return out + self._requests(now)

    # Questions

    def live(self, now: float) -> list[PeerView]:
        """The other peers that are there now."""
        timeout, leaving = self.timing.timeout, State.LEAVING
        return [p for p in self.peers.values() if now - p.heard < timeout and p.state is not leaving]

    def ready(self, now: float) -> int:
        """How many peers, we among them, could begin a round."""
        able = (State.READY, State.TRAINING, State.FINISHED)
        return sum(peer.state in able for peer in self.live(now)) + (self.state in able)

    def waits_for(self, round_: int, now: float) -> list[PeerView]:
        """The peers whose message for a round is still to come in lockstep."""
        taking_part = (State.READY, State.TRAINING)
        return [p for p in self.live(now) if p.state in taking_part and p.round <= round_ and not p.late]

    def give_up_on(self, round_: int, now: float) -> list[PeerView]:
        """Mark as late all that :meth:`waits_for` names, and return them."""
        late = self.waits_for(round_, now)
        for peer in late:
            peer.late = True
        return late

    def swarm_round(self, now: float) -> int:
        """The furthest round that any live peer is at."""
        return max((p.round for p in self.live(now)), default=0)

    def has_all(self, now: float) -> bool:
        """Whether we have every message that any live peer says it has."""
        return not any(self._lacking(peer) for peer in self.live(now))

    def others_have_all(self, now: float) -> bool:
        """Whether every live peer says that it has every message of ours."""
        ours = self.messages.version()
        return all(self._is_level(peer, ours) for peer in self.live(now))

    def is_quiet(self, now: float) -> bool:
        """Whether nobody has anything to say any more that we lack: a finished peer may state its digest."""
        if self.cut_off(now):
            return False  # Somebody should have our last messages before we go.
        busy = (State.READY, State.TRAINING, State.LOADING)
        return not any(p.state in busy for p in self.live(now)) and self.has_all(now)

    def is_settled(self, now: float) -> bool:
        """Whether all sets are equal and all digests stated, or there is something to take in first."""
        if self.untaken > 0:
            return True
        stated = all(p.digest or p.state is State.RELAYING for p in self.live(now))
        return stated and self.has_all(now) and self.others_have_all(now)

    def digests(self) -> dict[str, str]:
        """The digests, in hex, that peers with the same messages as we have state.

        By name, or by name and stream where names are not unique.
        """
        ours = self.messages.version()
        stated = {s: peer for s, peer in self.peers.items() if peer.digest and peer.version == ours}
        names = [peer.name for peer in stated.values()]
        return {
            peer.name if names.count(peer.name) == 1 else f"{peer.name} {stream}": peer.digest.hex()
            for stream, peer in stated.items()
        }

    def cut_off(self, now: float) -> bool:
        """Whether we dialled somebody, hear nobody, and whom we heard last has not taken leave."""
        last = max(self.peers.values(), key=lambda peer: peer.heard, default=None)
        left = last is not None and last.state is State.LEAVING
        return bool(self._dialled) and not left and not self.live(now)

    # Inside

    def _lacking(self, peer: PeerView) -> dict[Stream, tuple[int, int]]:
        """What a peer has more of than we; goes through its whole version vector once a heartbeat."""
        spans = self.messages.lacks(peer.ahead)
        if len(spans) < len(peer.ahead):
            peer.ahead = {stream: stop for stream, (_, stop) in spans.items()}
        return spans

    def _is_level(self, peer: PeerView, ours: dict[Stream, int]) -> bool:
        """Whether a peer says that it has all of ours; looks again only once our set has grown."""
        if peer.compared != len(self.messages):
            if peer.version != ours and any(peer.version.get(s, 0) < count for s, count in ours.items()):
                return False
            peer.compared = len(self.messages)
        return True

    def _check(self, message: Message) -> None:
        """Hold a message against the manifest's limits."""
        if len(message.codes) > self.terms.most_samples:
            raise MessageError(
                f"{len(message.codes)} samples in one message; the manifest allows {self.terms.most_samples}"
            )
        if message.learning_rate > as_float32(self.terms.most_learning_rate):
            raise MessageError(
                f"learning rate {message.learning_rate:g}; the manifest allows {self.terms.most_learning_rate:g}"
            )

    def _take_in(self, message: Message, now: float) -> bool:
        self._check(message)
        before = self.messages.gapless(message.stream)
        try:
            new = self.messages.add(message)
        except EquivocationError as error:
            if len(self.faults) < MOST_FAULTS:
                self.faults[str(error)] = None
            raise
        if self._release(message.stream, before):
            self.digest = b""  # It was that of the weights without this message.
        peer = self.peers.get(message.stream)
        if peer is not None:
            peer.heard = now
            self._advance(peer, message.round + 1)
        return new

    def _release(self, stream: Stream, before: int) -> bool:
        """Let :meth:`take` have what a stream has gained since it had ``before`` messages without a gap."""
        stop = self.messages.gapless(stream)
        self._fresh += self.messages.slice(stream, before, stop, stop - before)
        return stop > before

    def _advance(self, peer: PeerView, round_: int) -> None:
        peer.round = max(peer.round, min(round_, LATEST))
        if peer.round >= self.round:
            peer.late = False

    def _note(self, beat: wire.Heartbeat, now: float) -> bool:
        stream = Stream.from_bytes(beat.stream)
        if stream == self.stream:
            return False
        peer = self.peers.get(stream)
        if peer is None:
            if len(self.peers) >= MOST_STREAMS:
                raise MessageError(f"more than {MOST_STREAMS} peers in one run")
            peer = self.peers[stream] = PeerView(beat.name, now)
            # It may be the other end of a link of ours, restarted and without knowledge of us.
            self._dialled = dict.fromkeys(self._dialled, 0.0)
        elif beat.beat <= peer.beat:
            return False
        peer.name, peer.heard, peer.beat = beat.name, now, beat.beat
        peer.state, peer.digest = beat.state, beat.digest
        peer.version = peer.ahead = wire.unpack_version(beat.version)
        self._advance(peer, beat.round)
        return True

    def _heartbeat(self, now: float) -> list[Output]:
        self._last_beat = now
        self._next_beat = now + self.timing.heartbeat
        self._beat += 1
        beat = wire.Heartbeat(
            self.stream.to_bytes(),
            self._beat,
            self.name,
            self.state,
            self.round,
            wire.pack_version(self.messages.version()),
            self.digest,
        )
        return [Publish(wire.encode(beat))]

    def _answer_hello(self, link: Link, hello: wire.Hello, now: float) -> list[Output]:
        if hello.manifest_digest and hello.manifest_digest != self.terms.digest:
            reason = "your manifest differs from the run's; fetch the run's manifest and compare"
            return [Send(link, wire.encode(wire.Refusal(reason)))]
        manifest = b"" if hello.manifest_digest else self.terms.packed
        known = link in self._links
        stream = Stream.from_bytes(hello.stream)
        if hello.manifest_digest and self._links.get(link) != stream:
            # A peer that connected again has left its old link.
            gone = [old for old, peer in self._links.items() if peer == stream and old[0] == "accepted"]
            for old in gone:
                del self._links[old]
            self._links[link] = stream
        answer = wire.Welcome(self.stream.to_bytes(), self.name, manifest)
        return [Send(link, wire.encode(answer)), *([] if known else self._heartbeat(now))]

    def _answer_request(self, link: Link, request: wire.Request) -> list[Output]:
        if link not in self._links:
            raise MessageError("a request on a link that has not said hello with the run's manifest")
        stream = Stream.from_bytes(request.stream)
        found = self.messages.slice(stream, request.start, request.stop, wire.CHUNK)
        return [Send(link, wire.encode(wire.Chunk([message.encode() for message in found])))]

    def _take_chunk(self, chunk: wire.Chunk, now: float) -> list[Output]:
        messages = [Message.decode(data) for data in chunk.messages]
        for message in messages:
            self._check(message)
        for message in messages:
            if self._take_in(message, now):
                _, link = self._asked.get(message.stream, (0.0, NOBODY))
                self._asked[message.stream] = (-self.timing.retry, link)
        return self._requests(now)

    def _requests(self, now: float) -> list[Output]:
        """Ask, over a link to a peer that has it, for each stream of which somebody has more than we.

        One that does not answer is asked again only after the others that have it.
        """
        able: dict[Stream, list[tuple[Link, tuple[int, int]]]] = {}
        for link, stream in self._links.items():
            peer = self.peers.get(stream)
            if peer is not None and now - peer.heard < self.timing.timeout:
                for lacking, span in self._lacking(peer).items():
                    able.setdefault(lacking, []).append((link, span))
        out: list[Output] = []
        for lacking, choices in able.items():
            asked, before = self._asked.get(lacking, (-self.timing.retry, NOBODY))
            if now - asked < self.timing.retry:
                continue
            links = [link for link, _ in choices]
            # One that answered, so that its time was reset, is asked again.
            step = 1 if asked >= 0 else 0
            link, (start, stop) = choices[(links.index(before) + step) % len(links) if before in links else 0]
            self._asked[lacking] = (now, link)
            request = wire.Request(lacking.to_bytes(), start, min(stop, start + wire.CHUNK))
            out.append(Send(link, wire.encode(request)))
        return out
