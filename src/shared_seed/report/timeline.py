"""Who took part when, as the log proves it: a lane for each peer, a stretch of rounds for each process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from shared_seed import codec, identity
from shared_seed.archive import Archive
from shared_seed.messages import Message, Stream
from shared_seed.proofs import Fork
from shared_seed.report.material import Material, unnamed

MOST_LANES = 40
"""Peers that get a lane of their own; the others are told of together."""


@dataclass(frozen=True)
class Life:
    """One process of a peer: from its first round to its last, where it said nothing in between, and its
    abstentions. Every ``pauses`` is a first and a last round.
    """

    stream: Stream
    first: int
    last: int
    pauses: tuple[tuple[int, int], ...] = ()
    abstained: tuple[int, ...] = ()


@dataclass(frozen=True)
class Lane:
    """What one peer did: ``counts`` is the gradients that have moved the weights, ``forked`` the round from which
    its stream was cut because it had said two different things, ``late`` how often others noted that it missed a
    deadline, ``out`` why nothing of it counts.
    """

    name: str
    key: str
    lives: tuple[Life, ...]
    messages: int
    gradients: int
    abstained: int
    published: int
    codes: Counter[int]
    late: int = 0
    out: str = ""
    forked: int | None = None

    @property
    def first(self) -> int:
        """Its first round."""
        return min((life.first for life in self.lives), default=self.forked or 0)

    @property
    def last(self) -> int:
        """Its last round."""
        return max((life.last for life in self.lives), default=self.forked or 0)


@dataclass(frozen=True)
class Timeline:
    """All lanes, by first round; the run's rounds; how many streams said something in each round that anybody did
    (``present``); and where rounds are in time.

    ``times`` are rounds and the seconds at their ends, as far as the folder's own peer was there.
    """

    lanes: list[Lane]
    first: int
    last: int
    present: dict[int, int]
    times: list[tuple[int, float]]

    @property
    def shown(self) -> list[Lane]:
        """Those that are drawn: what happened to somebody first, then who said most."""
        if len(self.lanes) <= MOST_LANES:
            return self.lanes
        chosen = sorted(self.lanes, key=lambda lane: (not is_notable(lane), -lane.messages))[:MOST_LANES]
        return sorted(chosen, key=lambda lane: (lane.first, lane.name, lane.key))


def is_notable(lane: Lane) -> bool:
    """Whether a peer was cut off or taken out."""
    return bool(lane.out) or lane.forked is not None


def trace(material: Material, times: list[tuple[int, float]]) -> Timeline:
    """The timeline of a run; ``times`` as in :class:`Timeline`."""
    archive = material.archive
    by_stream: dict[Stream, list[Message]] = {}
    for message in archive:
        by_stream.setdefault(message.stream, []).append(message)
    peers: dict[bytes, list[Stream]] = {}
    for stream in sorted({*by_stream, *archive.forks}):
        peers.setdefault(stream.peer, []).append(stream)
    late = Counter(name for part in material.parts for line in part.lines for name in line.late)
    names = {stream.peer: name for stream, name in sorted(material.names.items())}
    lanes = [
        _lane(archive, [(s, by_stream.get(s, [])) for s in streams], names.get(peer, ""), late)
        for peer, streams in peers.items()
    ]
    present = Counter(message.round for message in archive)
    rounds = [*present, *(lane.forked for lane in lanes if lane.forked is not None)]
    ordered = sorted(lanes, key=lambda lane: (lane.first, lane.name, lane.key))
    return Timeline(ordered, min(rounds, default=0), max(rounds, default=0), dict(sorted(present.items())), times)


def _lane(archive: Archive, said: Sequence[tuple[Stream, list[Message]]], name: str, late: Counter[str]) -> Lane:
    streams = [stream for stream, _ in said]
    messages = [message for _, own in said for message in own]
    introduction = archive.introduction(streams[0])
    key = introduction.key if introduction else b""
    out = ""
    if introduction is not None and archive.is_out(key):
        order = archive.orders.get(key)
        out = "banned by the owner" if order is not None and order.banned else "its invite admits another"
    forks = [archive.forks[stream] for stream in streams if stream in archive.forks]
    codes = Counter(code for message in messages for code in message.codes)
    signature = 64 if archive.owner else 0
    return Lane(
        name=name or unnamed(streams[0]),
        key=identity.show(key) if key else "",
        lives=tuple(_life(stream, own) for stream, own in said if own),
        messages=len(messages),
        gradients=sum(codes.values()),
        abstained=sum(count for code, count in codes.items() if codec.is_abstention(code)),
        published=sum(len(message.encode()) + signature for message in messages),
        codes=codes,
        late=late[name] if name else 0,
        out=out,
        forked=min(map(_round_of, forks), default=None),
    )


def _round_of(fork: Fork) -> int:
    """The earlier of the two rounds that the branches begin with."""
    stream = Stream.from_bytes(fork.stream)
    return min(Message.of_body(stream, fork.number, branch.bodies[0]).round for branch in (fork.one, fork.other))


def _life(stream: Stream, messages: Sequence[Message]) -> Life:
    """``messages`` are in order of number, so of round."""
    rounds = [message.round for message in messages]
    pauses = tuple((a + 1, b - 1) for a, b in pairwise(rounds) if b > a + 1)
    abstained = tuple(m.round for m in messages if all(map(codec.is_abstention, m.codes)))
    return Life(stream, rounds[0], rounds[-1], pauses, abstained)
