"""Our own signs of life: what they state, and when the next one is due."""

from __future__ import annotations

from dataclasses import dataclass

from shared_seed import identity
from shared_seed.archive import Archive
from shared_seed.swarm import wire
from shared_seed.swarm.author import Author
from shared_seed.swarm.wire import SignedHeartbeat, State

POSTPONED = 4
"""How many heartbeats a peer that publishes messages may leave out."""

CROWD = 200
"""Peers beyond which heartbeats become rarer, so that all together are no more than from so many."""


@dataclass(frozen=True, slots=True)
class Standpoint:
    """What a peer is at: its state and round, the seconds that its steps take (0: not known), and, where it states
    one, the digest of its weights.
    """

    state: State
    round: int
    pace: float
    digest: bytes


class Heartbeats:
    """Numbers, times and signs the heartbeats of one peer.

    Args:
        seconds: between two, in a swarm that is no crowd.
        first: the number before the first one's; later processes of a stream must begin with higher ones.
    """

    def __init__(self, seconds: float, first: int) -> None:
        self.number = first
        self._seconds = seconds
        self._last = 0.0
        self._next = 0.0

    def is_due(self, now: float) -> bool:
        """Whether it is time for one."""
        return now >= self._next

    def interval(self, live: int) -> float:
        """Seconds between two while so many other peers are there."""
        return self._seconds * max(1.0, live / CROWD)

    def postpone(self, now: float, live: int) -> None:
        """A message is a sign of life too, so heartbeats may wait; but they alone tell what others lack."""
        interval = self.interval(live)
        self._next = min(now, self._last + POSTPONED * interval) + interval

    def outrun(self, author: Author, signed: SignedHeartbeat) -> None:
        """Number on from a heartbeat of an earlier process of ours, if the clock went back in between."""
        key, number = author.key, signed.beat.beat
        if key is not None and number > self.number and identity.verify(key.public, signed.text, signed.signature):
            self.number, self._next = number, 0.0

    def beat(self, author: Author, at: Standpoint, archive: Archive, now: float, live: int) -> bytes:
        """The next heartbeat, as it is published."""
        assert author.key is not None
        assert author.introduction is not None
        interval = self.interval(live)
        self._last, self._next = now, now + interval
        self.number += 1
        beat = wire.Heartbeat(
            author.stream.to_bytes(),
            wire.Guest.of(author.introduction),
            self.number,
            author.name,
            at.state,
            at.round,
            round(1000 * interval),
            min(round(1000 * at.pace), wire.MOST_COUNT),
            len(archive),
            archive.digest(),
            archive.statements_digest(),
            at.digest,
        )
        return wire.encode_beat(beat, author.key.sign(wire.text_of(beat, archive.seal)))
