"""Our own signs of life: what they state, and when the next one is due."""

from __future__ import annotations

from dataclasses import dataclass

from shared_seed import identity
from shared_seed.archive import Archive
from shared_seed.swarm import wire
from shared_seed.swarm.author import Author
from shared_seed.swarm.pulses import Pulses
from shared_seed.swarm.wire import SignedHeartbeat, State

RARELY = 64
"""Intervals after which a heartbeat is published again that says nothing new."""

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
    """Numbers, times and signs the signs of life of one peer.

    What a heartbeat says gets lost at times, so it is said again: after one interval, then two, four, up to
    ``RARELY``. Where nothing else was published for an interval meanwhile, a pulse is.

    Args:
        seconds: an interval, in a swarm that is no crowd.
        first: the number before the first one's; later processes of a stream must begin with higher ones.
    """

    def __init__(self, seconds: float, first: int) -> None:
        self.number = first
        self._seconds = self._interval = seconds
        self._pulses: Pulses | None = None
        self._has_published = False
        self._repeat = 0
        self.hastened = 0.0
        self._again = 0.0
        self._next = 0.0

    def is_due(self, now: float) -> bool:
        """Whether it is time for a sign of life."""
        return now >= min(self._next, self._again)

    def renew(self) -> None:
        """There is something new to say."""
        self._repeat = 0

    def hasten(self, now: float) -> None:
        """Somebody has missed something: what we hold is of interest."""
        self.hastened = now
        self._repeat, self._again = 0, min(self._again, now + self._interval)

    def published(self, now: float) -> None:
        """A message was published: that is a sign of life."""
        self._has_published = True
        self._next = now + self._interval

    def said(self, now: float) -> None:
        """The last heartbeat was published."""
        self._repeat = min(2 * self._repeat or 1, RARELY)
        self._again = now + self._repeat * self._interval
        self._next = now + self._interval

    def pulse(self, now: float) -> bytes | None:
        """The next pulse, as it is published; ``None`` where it is time for a heartbeat."""
        pulses = self._pulses
        if pulses is None or len(pulses) < 2 or now >= self._again:
            return None
        number = pulses.beat(self._has_published)
        self._has_published = False
        self._next = now + self._interval
        return wire.encode_pulse(wire.Pulse(pulses.stream.to_bytes(), number))

    def outrun(self, author: Author, signed: SignedHeartbeat) -> None:
        """Number on from a heartbeat of an earlier process of ours, if the clock went back in between."""
        key, number = author.key, signed.beat.beat
        if key is not None and number > self.number and identity.verify(key.public, signed.text, signed.signature):
            self.number, self._again = number, 0.0

    def beat(self, author: Author, at: Standpoint, archive: Archive, live: int) -> bytes:
        """The next heartbeat, in a swarm of so many other peers."""
        assert author.key is not None
        assert author.introduction is not None
        self.number += 1
        self._interval = self._seconds * max(1.0, live / CROWD)
        if self._pulses is None or self._pulses.stream != author.stream or len(self._pulses) < 2:
            self._pulses = Pulses(author.key, author.stream, archive.seal, self.number)
            self._has_published = False
            self.renew()
        beat = wire.Heartbeat(
            author.stream.to_bytes(),
            wire.Guest.of(author.introduction),
            self.number,
            author.name,
            at.state,
            at.round,
            round(1000 * self._interval),
            min(round(1000 * at.pace), wire.MOST_COUNT),
            len(archive),
            archive.digest(),
            archive.statements_digest(),
            self._pulses.last,
            at.digest,
        )
        return wire.encode_beat(beat, author.key.sign(wire.text_of(beat, archive.seal)))
