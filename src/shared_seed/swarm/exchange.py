"""What neighbours tell and ask each other over links, once they have greeted: what they hold, and for the rest."""

from __future__ import annotations

from collections.abc import Iterable

from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.errors import MessageError
from shared_seed.messages import Stream
from shared_seed.swarm import wire
from shared_seed.swarm.answers import Answers, Asking, Supply
from shared_seed.swarm.catchup import CatchUp, Neighbour
from shared_seed.swarm.greetings import Greetings
from shared_seed.swarm.output import Link, Output, Publish, Send, Timing
from shared_seed.swarm.reports import Reports
from shared_seed.swarm.roster import Roster
from shared_seed.swarm.standing import Standing
from shared_seed.swarm.wire import State


class Exchange:
    """One peer's dealings with its neighbours."""

    def __init__(
        self, archive: Archive, roster: Roster, standing: Standing, timing: Timing, supply: Supply | None = None
    ) -> None:
        self.catch_up = CatchUp(archive, timing)
        self.answers = Answers(supply or Supply())
        self._archive = archive
        self._roster = roster
        self._standing = standing
        self._timing = timing
        self._reports = Reports(timing)

    def __contains__(self, link: Link) -> bool:
        return link in self.catch_up.neighbours

    @property
    def near(self) -> set[Stream]:
        """The streams of our neighbours."""
        return {neighbour.stream for neighbour in self.catch_up.neighbours.values()}

    def has_all(self, now: float) -> bool:
        """Whether we have every message that a neighbour that is there, and keeps its word, says it has."""
        neighbours = self.catch_up.neighbours.items()
        return self.catch_up.complete([link for link, each in neighbours if self._is_there(each, now)], now)

    def look(self, greetings: Greetings, now: float) -> list[Output]:
        """Compare with neighbours where that is due; part from those that are gone and will dial us."""
        out: list[Output] = []
        for link, neighbour in list(self.catch_up.neighbours.items()):
            peer = self._roster.peers.get(neighbour.stream)
            if not self._is_there(neighbour, now):
                if link not in greetings:
                    self.catch_up.part(link)
            elif peer is not None:
                out += self.catch_up.look(link, peer, now)
        return out

    def take(self, link: Link, frame: wire.AnyFrame, round_: int, now: float) -> list[Output]:
        """Take in what a neighbour tells us; we are at this round.

        Raises:
            MessageError: it is not valid, or does not belong here.
            EquivocationError: the writer of what it brings has lied; see :meth:`Archive.accept_stretch`.
        """
        sends: Iterable[Output] = ()
        match frame:
            case wire.Levels():
                sends = self.catch_up.take_levels(link, frame, now)
            case wire.Chunk():
                sends = self._fill(link, frame, round_, now)
            case wire.Holding():
                self.catch_up.hold(link, frame.messages, frame.held, now)
                peer = self._roster.peers.get(self.catch_up.neighbours[link].stream)
                if peer is not None:
                    peer.messages, peer.held, peer.proven = frame.messages, frame.held, frame.proven
                    peer.heard = now
            case wire.Marks():
                sends = self.catch_up.take_marks(link, frame)
            case Introduction():
                self._standing.introduce(frame, State.LOADING)
            case _:
                raise MessageError(f"a {type(frame).__name__} came over a link; it belongs to publications")
        return list(sends)

    def report(self, state: State, now: float) -> list[Output]:
        """Tell neighbours what we hold, if that is due."""
        neighbours, archive = self.catch_up.neighbours.items(), self._archive
        if not neighbours:
            return []
        due = self._reports.due(len(archive), self._holding, now)
        if due is None:
            return []
        holding, is_first = due
        told = is_first and state is not State.TRAINING  # At the end it counts that everybody knows.
        frame = wire.encode(holding)
        return [Send(link, frame) for link, each in neighbours if told or not self._agrees(each, holding)]

    def answer(self, now: float) -> list[Output]:
        """Answer neighbours, as far as their budgets and this pass allow."""
        out: list[Output] = []
        while (due := self.answers.due(now)) is not None:
            asker, link, frame = due
            if link not in self:
                continue
            sends = self._answer_to(link, frame)
            self.answers.charge(asker, sum(len(send.frame) for send in sends), now)
            out += sends
        return out

    # Inside

    def _is_there(self, neighbour: Neighbour, now: float) -> bool:
        """Whether a neighbour was heard of lately, or has just come."""
        peer = self._roster.peers.get(neighbour.stream)
        return now - peer.heard < peer.timeout if peer else now - neighbour.since < self._timing.timeout

    def _fill(self, link: Link, chunk: wire.Chunk, round_: int, now: float) -> list[Output]:
        """Take in what we have asked for; a single message that we had missed, others will have missed with us."""
        archive, stream = self._archive, Stream.from_bytes(chunk.stream)
        count = archive.count(stream)
        out: list[Output] = list(self.catch_up.take_chunk(link, chunk, now))
        last = archive.last(stream) if archive.count(stream) > count else None
        if last is None:
            return out
        if last.message.round >= round_ - 1:
            self._roster.hear_of(stream, now)
        self._roster.reached(stream, last.message.round, round_)
        missed = last.signature and archive.count(stream) == count + 1
        return [*out, Publish(last.encode())] if missed else out

    def _holding(self) -> wire.Holding:
        archive = self._archive
        return wire.Holding(len(archive), archive.digest(), archive.statements_digest())

    def _agrees(self, neighbour: Neighbour, ours: wire.Holding) -> bool:
        """Whether a neighbour has told us that it holds what we hold."""
        peer = self._roster.peers.get(neighbour.stream)
        return peer is not None and wire.Holding(peer.messages, peer.held, peer.proven) == ours

    def _answer_to(self, link: Link, frame: Asking) -> list[Send]:
        match frame:
            case wire.Compare():
                return self.catch_up.answer_compare(link, frame)
            case wire.Request():
                return self.catch_up.answer_request(link, frame)
            case wire.Trace():
                return self.catch_up.answer_trace(link, frame)
            case wire.Consult():
                return [Send(link, frame) for frame in self._standing.statements()]
