"""How a peer gets what it lacks: neighbours compare what they hold, over links, and ask for the rest.

A heartbeat carries a digest of what its sender holds. Where a neighbour's differs from ours we send it summaries
of our streams, in groups; it answers with the level of each stream in the groups that differ, and we ask for what
it has more of. In a crowd heartbeats are rare, and what got lost would be missed late; so neighbours also tell
each other alone, and often, what they hold, and compare where a difference stays when what was under way has come.
Where it has other messages than we, its writer has lied to one of us: we go back to where they part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from shared_seed.archive import Archive
from shared_seed.errors import EquivocationError, MessageError, RefusedError
from shared_seed.ledger import BLOCK
from shared_seed.messages import Stream
from shared_seed.swarm import wire
from shared_seed.swarm.output import Link, Send, Timing
from shared_seed.swarm.roster import PeerView

UNEQUAL = 3
"""Heartbeats in a row after which a neighbour that holds something else is asked for all of it."""

ATTEMPTS = 10
"""Requests to one neighbour, for one stream, that may stay without an answer."""

MOST_AT_ONCE = 32
"""Streams that are asked for over one link at the same time."""

MOST_CLAIMS = 4096
"""Streams of which it is noted, at the same time, that one neighbour has more."""

MOST_HINTS = 1024
"""Streams that are wanted, beyond which hints are not followed: who published what follows a gap is not known."""

UNKEPT = 3
"""Claims of a neighbour, one after another, that may come to nothing until nobody waits for it."""

SILENT = 10
"""Times ``Timing.retry`` that a neighbour may leave comparisons unanswered until nobody waits for it."""


LOOKED_AT = 256
"""Streams at most that a look for new requests passes by, since whom they would be asked of is busy."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """When to look again whether we hold what a neighbour has told us it holds; and what we held then."""

    due: float
    messages: int
    ours: bytes


@dataclass(slots=True)
class Neighbour:
    """The peer at the other end of a link."""

    stream: Stream
    since: float
    compared: bool = False
    beat: int = -1
    unequal: int = 0
    asked: float | None = None
    again: float | None = None
    doubt: Doubt | None = None
    consulted: float = float("-inf")
    awaited: float | None = None
    unkept: int = 0

    def keeps_word(self, now: float, retry: float) -> bool:
        """Whether what it says it has is worth waiting for."""
        silent = self.awaited is not None and now - self.awaited >= SILENT * retry
        return not silent and self.unkept < UNKEPT


@dataclass(slots=True)
class Want:
    """A stream of which neighbours have more: how much each has, or may have, which of them have said so, and whom
    we asked last.
    """

    stops: dict[Link, int] = field(default_factory=dict)
    claimed: set[Link] = field(default_factory=set)
    asked: float = float("-inf")
    link: Link | None = None
    attempts: int = 0


class CatchUp:
    """What is still to be fetched, and from whom."""

    def __init__(self, archive: Archive, timing: Timing) -> None:
        self.neighbours: dict[Link, Neighbour] = {}
        self._archive = archive
        self._timing = timing
        self._wants: dict[Stream, Want] = {}
        self._traced: dict[Stream, float] = {}

    # Neighbours come and go

    def meet(self, link: Link, stream: Stream, now: float) -> bool:
        """There is a link to a peer, whether a new one; a peer that connected again has left its old link."""
        if link in self.neighbours and self.neighbours[link].stream == stream:
            return False
        old = [known for known, n in self.neighbours.items() if n.stream == stream and known[0] == link[0]]
        for known in old:
            self.part(known)
        self.neighbours[link] = Neighbour(stream, now)
        return True

    def part(self, link: Link) -> None:
        """A link is no more."""
        self.neighbours.pop(link, None)
        for want in self._wants.values():
            want.stops.pop(link, None)

    def complete(self, there: Iterable[Link], now: float) -> bool:
        """Whether we have all that neighbours say they have, of those that are there and keep their word."""
        retry = self._timing.retry
        trusted = {link for link in there if self.neighbours[link].keeps_word(now, retry)}
        return all(self.neighbours[link].compared for link in trusted) and not any(
            self._open(stream, want) and not trusted.isdisjoint(want.claimed)
            for stream, want in self._wants.items()
        )

    # What we ask

    def look(self, link: Link, peer: PeerView, now: float) -> list[Send]:
        """Compare with a neighbour whose heartbeat says that it holds something else."""
        neighbour = self.neighbours[link]
        out = self._consult(link, neighbour, peer, now)
        if peer.beat > neighbour.beat:
            neighbour.beat = peer.beat
            if peer.messages == len(self._archive) and peer.held == self._archive.digest():
                self._agree(neighbour)
                return out
            neighbour.unequal += 1
            full = not neighbour.compared or neighbour.unequal >= UNEQUAL
            if full or peer.messages > len(self._archive):
                return [*out, self._compare(link, neighbour, full, now)]
        doubt = neighbour.doubt
        if doubt is not None and now >= doubt.due:
            neighbour.doubt = None
            more = doubt.messages - len(self._archive)
            still = more == 0 and doubt.ours == self._archive.digest()
            if more > 0 or still:  # Who has less compares with us.
                return [*out, self._compare(link, neighbour, still, now)]
        overdue = neighbour.asked is not None and now - neighbour.asked >= self._timing.retry
        due = neighbour.again is not None and now >= neighbour.again
        if overdue or due:
            neighbour.again = None
            return [*out, self._compare(link, neighbour, True, now)]
        return out

    def hold(self, link: Link, messages: int, held: bytes, now: float) -> None:
        """Note how many messages a neighbour holds, and their digest; we may be about to hear the same."""
        neighbour = self.neighbours[link]
        if messages == len(self._archive) and held == self._archive.digest():
            self._agree(neighbour)
        elif neighbour.doubt is None:
            neighbour.doubt = Doubt(now + self._timing.retry, messages, self._archive.digest())

    def _agree(self, neighbour: Neighbour) -> None:
        neighbour.compared, neighbour.unequal, neighbour.asked, neighbour.awaited = True, 0, None, None
        neighbour.doubt = None

    def _compare(self, link: Link, neighbour: Neighbour, full: bool, now: float) -> Send:
        if not neighbour.compared and neighbour.asked is None:
            # What it publishes before we hear its publications is missed.
            neighbour.again = now + self._timing.retry
        neighbour.asked = now
        neighbour.awaited = now if neighbour.awaited is None else neighbour.awaited
        if full:
            neighbour.unequal = 0
        summaries = [(bucket.messages, bucket.digest) for bucket in self._archive.buckets()]
        return Send(link, wire.encode(wire.Compare(full, summaries)))

    def _consult(self, link: Link, neighbour: Neighbour, peer: PeerView, now: float) -> list[Send]:
        if not peer.proven or peer.proven == self._archive.statements_digest():
            return []
        if now - neighbour.consulted < self._timing.heartbeat:
            return []
        neighbour.consulted = now
        return [Send(link, wire.encode(wire.Consult()))]

    def hint(self, stream: Stream, stop: int) -> None:
        """Somebody has published a message that follows some we lack; any neighbour may have them."""
        # Whoever has the messages of a writer that we have not heard of introduces him.
        full = self._archive.introduction(stream) is not None and not self._archive.has_room(stream)
        if full or stop > self._target(stream, stop) or len(self._wants) >= MOST_HINTS:
            return
        want = self._wants.setdefault(stream, Want())
        for link in self.neighbours:
            want.stops[link] = max(stop, want.stops.get(link, 0))

    def requests(self, now: float) -> list[Send]:
        """Ask for what we lack, stream by stream; one that does not answer is asked again after the others."""
        out: list[Send] = []
        busy: dict[Link, int] = {}
        passed = 0
        for stream, want in list(self._wants.items()):
            if passed > LOOKED_AT:
                break
            if not self._open(stream, want):
                del self._wants[stream]
                continue
            if now - want.asked < self._timing.retry:
                if want.link is not None:
                    busy[want.link] = busy.get(want.link, 0) + 1
                continue
            links = self._askable(stream, want)
            link = self._next_link(want, links)
            most = MOST_AT_ONCE if want.claimed else MOST_AT_ONCE // 2  # What is only hinted at may not exist.
            if link is None or busy.get(link, 0) >= most:
                passed += 1
                self._wants[stream] = self._wants.pop(stream)  # Next time, others have their turn.
                continue
            want.attempts = want.attempts + 1 if want.link in links else 1
            busy[link] = busy.get(link, 0) + 1
            want.asked, want.link = now, link
            out.append(Send(link, wire.encode(wire.Request(stream.to_bytes(), self._archive.count(stream)))))
        return out

    def _askable(self, stream: Stream, want: Want) -> list[Link]:
        """Whom to ask in turn: those who say that they have more, or else everybody, the writer first.

        Where a crowd has missed something, a turn through all of it would take a minute.
        """
        claimed = [link for link in want.stops if link in want.claimed]
        return claimed or sorted(want.stops, key=lambda link: self.neighbours[link].stream != stream)

    def _next_link(self, want: Want, links: Sequence[Link]) -> Link | None:
        """Who has just answered, or else the next one; ``None`` if all were asked often enough."""
        if want.link not in links:
            return links[0]
        if want.attempts >= ATTEMPTS * len(links):
            for each in links:
                self._give_up(want, each)
            return None
        return links[(links.index(want.link) + 1) % len(links)] if want.attempts else want.link

    def _give_up(self, want: Want, link: Link) -> None:
        """A neighbour does not have, or does not give, what it may have."""
        want.stops.pop(link, None)
        if link in want.claimed and link in self.neighbours:
            want.claimed.discard(link)
            self.neighbours[link].unkept += 1

    def _open(self, stream: Stream, want: Want) -> bool:
        """Whether a stream is still wanted; forgets neighbours that have no more of it than we."""
        have = self._archive.count(stream)
        for link, stop in list(want.stops.items()):
            if self._target(stream, stop) <= have:
                del want.stops[link]
                want.claimed.discard(link)
        return bool(want.stops)

    def _target(self, stream: Stream, stop: int) -> int:
        fork = self._archive.forks.get(stream)
        return stop if fork is None else min(stop, fork.number)

    # What we answer, and what comes

    def answer_compare(self, link: Link, compare: wire.Compare) -> list[Send]:
        """Tell the levels of streams in groups that differ."""
        levels: list[tuple[bytes, int, bytes]] = []
        for index, (ours, theirs) in enumerate(zip(self._archive.buckets(), compare.buckets(), strict=True)):
            if ours != theirs and (compare.full or ours.messages >= theirs.messages):
                levels += [(s.to_bytes(), count, head[:8]) for s, count, head in self._archive.levels(index)]
        return [Send(link, wire.encode(wire.Levels(levels)))]

    def take_levels(self, link: Link, frame: wire.Levels, now: float) -> list[Send]:
        """Note what a neighbour has more of, and look into what it has otherwise.

        Raises:
            MessageError: it tells of a stream twice.
        """
        if len({name for name, _, _ in frame.levels}) < len(frame.levels):
            raise MessageError("levels that tell of a stream twice")
        neighbour = self.neighbours[link]
        asked = neighbour.awaited is not None
        neighbour.asked = neighbour.awaited = None
        room = MOST_CLAIMS - sum(link in want.claimed for want in self._wants.values())
        out: list[Send] = []
        for name, count, head in frame.levels:
            stream = Stream.from_bytes(name)
            if self._target(stream, count) > self._archive.count(stream):
                if not self._archive.has_room(stream):
                    continue
                room -= 1
                if room >= 0:
                    want = self._wants.setdefault(stream, Want())
                    want.stops[link] = count
                    want.claimed.add(link)
            elif asked:  # Each of these may take a block's hashes, and nobody is to have us do so at will.
                ours = self._archive.head(stream, count)
                if ours is not None and ours[:8] != head:
                    out += self._trace(link, stream, now)
        neighbour.compared = room >= 0
        if not neighbour.compared:
            neighbour.again = now + self._timing.retry
        return out + self.requests(now)

    def answer_request(self, link: Link, request: wire.Request) -> list[Send]:
        """Send messages of a stream, as many as one answer takes; none if we have none."""
        stream = Stream.from_bytes(request.stream)
        introduction = self._archive.introduction(stream)
        if introduction is None:
            return []
        most = min(
            request.most, wire.CHUNK, max(BLOCK, wire.CHUNK_BYTES // self._size_near(stream, request.start))
        )
        stretches = self._archive.stretches(stream, request.start, most)
        guest = wire.Guest.of(introduction)
        return [Send(link, wire.encode(wire.Chunk.of(request.stream, guest, request.start, stretches)))]

    def _size_near(self, stream: Stream, start: int) -> int:
        """Bytes of a message where an answer begins; those after it are as long, or nearly so."""
        first = self._archive.stretches(stream, start, BLOCK)
        return max(len(data) for stretch in first for data in stretch.encoded) if first else 1

    def take_chunk(self, link: Link, chunk: wire.Chunk, now: float) -> list[Send]:
        """Take in messages of a stream, and ask for the next ones.

        Raises:
            MessageError: they are not valid.
            EquivocationError: their writer has signed others too; see :meth:`Archive.accept_stretch`.
        """
        stream = Stream.from_bytes(chunk.stream)
        want = self._wants.get(stream)
        stretches = chunk.stretches()
        if not stretches:
            if want is not None:
                self._give_up(want, link)
            return self.requests(now)
        introduction = chunk.guest.introduction()
        if introduction.peer(self._archive.run) != stream.peer:
            raise MessageError(f"stream {stream} is not of the peer that is introduced with it")
        try:
            self._archive.introduce(introduction)
        except RefusedError as error:
            raise MessageError(str(error)) from error
        new = 0
        try:
            for stretch in stretches:
                new += self._archive.accept_stretch(stream, stretch)
        except EquivocationError:
            raise
        except MessageError:
            if want is not None:
                self._give_up(want, link)
            # It may be that we hold another branch of this stream, and that these continue theirs.
            return self._trace(link, stream, now)
        if new:
            self.neighbours[link].unkept = 0
            if want is not None:
                want.asked, want.attempts = float("-inf"), 0
        return self.requests(now)

    def _trace(self, link: Link, stream: Stream, now: float) -> list[Send]:
        if now - self._traced.get(stream, float("-inf")) < self._timing.heartbeat:
            return []
        if len(self._traced) >= 1000:
            self._traced.clear()
        self._traced[stream] = now
        return [Send(link, wire.encode(wire.Trace(stream.to_bytes())))]

    def answer_trace(self, link: Link, trace: wire.Trace) -> list[Send]:
        """Send the heads of a stream's blocks."""
        marks = self._archive.marks(Stream.from_bytes(trace.stream))
        heads = [mark[:8] for mark in marks[: wire.MOST_MARKS]]
        return [Send(link, wire.encode(wire.Marks(trace.stream, heads)))]

    def take_marks(self, link: Link, frame: wire.Marks) -> list[Send]:
        """Ask for the block in which a neighbour's branch of a stream leaves ours."""
        ours = self._archive.marks(Stream.from_bytes(frame.stream))
        shared = _common(ours, frame.marks)
        if shared == 0:
            return []
        return [Send(link, wire.encode(wire.Request(frame.stream, (shared - 1) * BLOCK, BLOCK)))]


def _common(ours: Sequence[bytes], theirs: Iterable[bytes]) -> int:
    """How many heads are the same at the beginning."""
    count = 0
    for one, other in zip(ours, theirs, strict=False):
        if one[:8] != other:
            break
        count += 1
    return count
