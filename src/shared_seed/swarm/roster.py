"""What a peer knows of the others from their heartbeats and messages, and whom it waits for in lockstep.

A peer waits, at the end of its round r, for every peer that is READY or TRAINING, whose next round is at most r,
that was heard of lately, and that is not late. A peer that lets a deadline pass is late until it is heard of in
the current round again, so a dead one costs one deadline. A peer whose steps take longer than the deadline is not
waited for at all: its messages count whenever they come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from statistics import median_high, median_low

from shared_seed.errors import MessageError
from shared_seed.messages import MOST_STREAMS, Stream
from shared_seed.swarm.pulses import steps
from shared_seed.swarm.wire import Pulse, SignedHeartbeat, State, encode_beat

LATEST = (1 << 32) - 1
"""The last round there can be."""

LEAST_DEADLINE = 2.0
"""Seconds that a deadline is at least."""

SLOWEST = 1.5
"""A deadline is at least this many times the middle peer's pace."""

SPREADS = 4.0
"""How many standard deviations more than the middle pace a step may take."""

_NORMAL = 1.4826
"""The standard deviation of a normal distribution whose median absolute deviation is 1."""

PATIENCE = 3
"""Timeouts of silence after which nothing more is expected of a peer that has not taken leave."""

LONGEST_INTERVAL = 900.0
"""Seconds between two heartbeats that a peer may ask for; a run with the most peers needs 700."""

TAKING_PART = (State.READY, State.TRAINING)
"""What peers are at that publish for the present round."""

ABLE = (*TAKING_PART, State.FINISHED)
"""What peers are at that could begin a round."""

MISSED = 5
"""Heartbeats that a peer may leave out before it counts as gone."""


class Felt(Enum):
    """What a pulse was: heard before, or of nobody known; new; new after something else that we have missed; one
    that leads nowhere, of somebody who is there; such a one of somebody who was gone, and may be too far on to be
    followed.
    """

    OLD = auto()
    NEW = auto()
    LACKING = auto()
    ASTRAY = auto()
    STRANGE = auto()


@dataclass(slots=True)
class PeerView:
    """What we know of another peer."""

    name: str
    heard: float
    timeout: float
    state: State = State.LOADING
    round: int = 0
    pace: float = 0.0
    beat: int = -1
    messages: int = 0
    held: bytes = b""
    proven: bytes = b""
    pulse: bytes = b""
    counted: int | None = None
    """Messages of its stream that we had at its last pulse, where we have heard that."""
    digest: bytes = b""
    late: bool = False
    replaced: bool = False
    """Whether the peer has started again since, as another process."""
    latest: SignedHeartbeat | None = None
    """The heartbeat that said so, for those that come later."""

    def is_live(self, now: float) -> bool:
        """Whether it is there: heard of lately, not leaving, and not started again."""
        return now - self.heard < self.timeout and self.state is not State.LEAVING and not self.replaced


class Roster:
    """The other peers of a run; ``timeout`` are seconds of silence until one counts as gone, at least."""

    def __init__(self, timeout: float) -> None:
        self.peers: dict[Stream, PeerView] = {}
        self._timeout = timeout
        self._newest: dict[bytes, Stream] = {}  # of each peer
        self._own: Stream | None = None

    def write(self, own: Stream) -> None:
        """We write this stream: those that we wrote before, in other processes, are nobody to wait for."""
        self._own = own
        self._replace(own)

    def note(self, signed: SignedHeartbeat, now: float) -> bool:
        """Take in a heartbeat; ``False`` for one that is not the latest.

        Raises:
            MessageError: there are too many peers.
        """
        stream, beat = signed.stream, signed.beat
        peer = self.peers.get(stream)
        if peer is None:
            if len(self.peers) >= MOST_STREAMS:
                self._forget_gone(now)
            peer = self.peers[stream] = PeerView(beat.name, now, self._timeout)
            self._replace(stream)
        elif beat.beat <= peer.beat:
            return False
        peer.name, peer.heard, peer.beat = beat.name, now, beat.beat
        peer.timeout = max(self._timeout, MISSED * min(beat.interval / 1000, LONGEST_INTERVAL))
        peer.state, peer.digest = beat.state, beat.digest
        peer.pace = beat.pace / 1000
        peer.messages, peer.held, peer.proven = beat.messages, beat.held, beat.proven
        if beat.pulse != peer.pulse:
            peer.pulse, peer.counted = beat.pulse, None
        peer.round = max(peer.round, min(beat.round, LATEST))
        peer.latest = signed
        return True

    def _forget_gone(self, now: float) -> None:
        gone = [stream for stream, peer in self.peers.items() if now - peer.heard >= peer.timeout]
        self.forget(gone)
        if not gone:
            raise MessageError(f"more than {MOST_STREAMS} peers in one run")

    def forget(self, streams: Iterable[Stream]) -> None:
        """Take peers for gone."""
        for stream in streams:
            del self.peers[stream]
        self._newest = {}
        for stream in [*self.peers, *([self._own] if self._own else [])]:
            self._replace(stream)

    def _replace(self, stream: Stream) -> None:
        """Of a peer's processes, only the newest is there."""
        known = self._newest.get(stream.peer, stream)
        older, self._newest[stream.peer] = sorted((known, stream), key=lambda one: one.incarnation)
        if older != self._newest[stream.peer] and older in self.peers:
            self.peers[older].replaced = True

    def hear_of(self, stream: Stream, now: float) -> None:
        """A peer has given a sign of life."""
        peer = self.peers.get(stream)
        if peer is not None:
            peer.heard = now

    def feel(self, pulse: Pulse, count: int, now: float) -> Felt:
        """Take in a pulse of a peer; ``count`` are the messages of its stream that are here."""
        peer = self.peers.get(Stream.from_bytes(pulse.stream))
        if peer is None or pulse.number == peer.pulse:
            return Felt.OLD
        gone = steps(pulse.stream, pulse.number, peer.pulse)
        if gone == 0:
            return Felt.ASTRAY if peer.is_live(now) else Felt.STRANGE
        lacking = peer.counted is not None and gone > 1 + (count > peer.counted)
        peer.pulse, peer.counted, peer.heard = pulse.number, count, now
        return Felt.LACKING if lacking else Felt.NEW

    def reached(self, stream: Stream, round_: int, ours: int) -> None:
        """A peer has published for a round; perhaps long ago."""
        peer = self.peers.get(stream)
        if peer is not None:
            peer.round = max(peer.round, min(round_ + 1, LATEST))
            self.catch_up(peer, ours)

    def catch_up(self, peer: PeerView, ours: int) -> None:
        """A peer that is in our round, ``ours``, is late no longer."""
        if peer.round >= ours:
            peer.late = False

    def heartbeats(self, now: float) -> list[bytes]:
        """The latest of each live peer, as it was sent: who comes late knows from them who is there."""
        latest = [peer.latest for peer in self.live(now)]
        return [encode_beat(signed.beat, signed.signature) for signed in latest if signed is not None]

    def live(self, now: float) -> list[PeerView]:
        """The other peers that are there now."""
        return [peer for peer in self.peers.values() if peer.is_live(now)]

    def is_alone(self, now: float) -> bool:
        """Whether :meth:`live` names nobody."""
        return not any(peer.is_live(now) for peer in self.peers.values())

    def is_expecting(self, now: float, united: float) -> bool:
        """Whether any peer may still have something to say: one that trains, or that fell silent while it did,
        until it was silent for ``PATIENCE`` timeouts, and until as long after ``united``, when whatever cut us
        off from everybody ended.

        An earlier process of a peer that has started again is not expected back.
        """
        busy = (State.LOADING, State.READY, State.TRAINING)
        return any(
            peer.state in busy and now - max(peer.heard, united) < PATIENCE * peer.timeout and not peer.replaced
            for peer in self.peers.values()
        )

    def ready(self, now: float) -> int:
        """How many of them could begin a round."""
        return sum(peer.state in ABLE for peer in self.live(now))

    def waits_for(self, round_: int, now: float, deadline: float = math.inf) -> list[PeerView]:
        """The peers whose message for a round is still to come in lockstep, but for those that are known to need
        longer than the deadline.
        """
        return list(self._awaited(round_, now, deadline))

    def is_waiting(self, round_: int, now: float, deadline: float = math.inf) -> bool:
        """Whether :meth:`waits_for` names anybody."""
        return next(self._awaited(round_, now, deadline), None) is not None

    def _awaited(self, round_: int, now: float, deadline: float) -> Iterator[PeerView]:
        for peer in self.peers.values():
            behind = peer.round <= round_ and not peer.late and peer.pace <= deadline
            if behind and peer.state in TAKING_PART and peer.is_live(now):
                yield peer

    def give_up_on(self, round_: int, now: float) -> list[PeerView]:
        """Mark as late all that :meth:`waits_for` names, and return them."""
        late = self.waits_for(round_, now)
        for peer in late:
            peer.late = True
        return late

    def deadline(self, own: float, now: float) -> float:
        """Seconds that a step may take, from the median and the spread of all peers' paces; ``own`` is ours.

        The lower median, so that of two peers the fast one does not wait for the slow one.
        """
        paces = self._paces(own, now)
        middle = median_low(paces)
        spread = _NORMAL * median_low(abs(pace - middle) for pace in paces)
        return max(LEAST_DEADLINE, SLOWEST * middle, middle + SPREADS * spread)

    def pace(self, own: float, now: float) -> float:
        """Seconds that a step takes the middle peer; ``own`` is ours."""
        return median_low(self._paces(own, now))

    def _paces(self, own: float, now: float) -> list[float]:
        return [own, *(p.pace for p in self.live(now) if p.state in TAKING_PART and p.pace > 0)]

    def round(self, now: float) -> int:
        """The round that the swarm is at: the middle one of the live peers', so that no few of them can move it.

        Peers that train or have finished know better than those that are still to begin.
        """
        live = self.live(now)
        under_way = [p.round for p in live if p.state in (State.TRAINING, State.FINISHED)]
        return median_high(under_way or [p.round for p in live] or [0])

    def last_heard(self) -> PeerView | None:
        """Whom we heard last, be he gone or not."""
        return max(self.peers.values(), key=lambda peer: peer.heard, default=None)
