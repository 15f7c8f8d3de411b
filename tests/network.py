"""Protocols joined by a network of this file's, which loses, doubles and reorders."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

from shared_seed import identity
from shared_seed.archive import Archive
from shared_seed.errors import MessageError
from shared_seed.identity import Key
from shared_seed.manifest import Manifest
from shared_seed.messages import Message, Stream
from shared_seed.signed import Signed
from shared_seed.swarm import wire
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.output import Join, Link, Output, Publish, Send, Timing
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.pulses import Pulses
from shared_seed.swarm.wire import Guest, Heartbeat, Hello, State
from swarming import OWNER, TERMS, Writer, introduction, writer

TIMING = Timing()
AGREED = Terms.of(TERMS, TERMS.sign(OWNER))


@cache
def key_of(name: str) -> Key:
    return OWNER if name == "owner" else Key(hashlib.sha256(name.encode()).digest())


def stream(name: str) -> Stream:
    return Stream(introduction(key_of(name)).peer(TERMS.run_bytes))


def said(name: str, count: int, code: int = 0x38) -> Writer:
    """What a peer of this name has written."""
    return writer(key_of(name), 0, terms=TERMS).more(count, code)


def message(name: str, number: int, round_: int | None = None, code: int = 0x38) -> Message:
    return Message(stream(name), number, number if round_ is None else round_, 0.25, bytes([code]))


def messages(name: str, count: int) -> list[Message]:
    return [message(name, number) for number in range(count)]


def holding(archive: Archive, *held: Writer) -> Archive:
    """The archive, with all that writers have written, as catch-up brings it."""
    for one in held:
        archive.introduce(introduction(one.key))
        for stretch in one.stretches() if one.signed else ():
            archive.accept_stretch(one.stream, stretch)
    return archive


def protocol(name: str, *held: Writer, terms: Manifest = TERMS) -> Protocol:
    key = key_of(name)
    author = Author(stream(name), name, key, introduction(key))
    return Protocol(author, Terms.of(terms, terms.sign(OWNER)), holding(Archive(terms), *held))


def pulses(name: str) -> Pulses:
    """The chain whose end a peer's heartbeats state here."""
    return Pulses(key_of(name), stream(name), TERMS.seal, 0)


def pulse(chain: Pulses, has_published: bool = False) -> bytes:
    return wire.encode_pulse(wire.Pulse(chain.stream.to_bytes(), chain.beat(has_published)))


def beat(
    name: str,
    number: int,
    state: State = State.TRAINING,
    round_: int = 0,
    has: Archive | None = None,
    seal: bytes = TERMS.seal,
    by: Key | None = None,
    pace: int = 0,
) -> bytes:
    """The heartbeat of a peer that holds an archive."""
    holds, key = has or Archive(TERMS), key_of(name)
    frame = Heartbeat(
        stream(name).to_bytes(),
        Guest.of(introduction(key)),
        number,
        name,
        state,
        round_,
        2000,
        pace,
        len(holds),
        holds.digest(),
        holds.statements_digest(),
        pulses(name).last,
    )
    return wire.encode_beat(frame, (by or key).sign(wire.text_of(frame, seal)))


def hello(name: str, digest: bytes = AGREED.digest) -> bytes:
    return wire.encode(Hello(stream(name).to_bytes(), name, Guest.of(introduction(key_of(name))), digest))


def greeted(peer: Protocol, name: str, now: float = 0.0, end: bytes | None = None) -> Link:
    """A link over which a peer of this name has said hello."""
    link: Link = ("accepted", name.encode() if end is None else end)
    peer.receive(link, hello(name), now)
    return link


def hear(peer: Protocol, signed: Signed, now: float = 0.0, forward: bool = False) -> list[Output]:
    """Publish a message to a peer that knows its writer."""
    return peer.hear(signed.encode(), now, forward)


def decoded(outputs: Iterable[Output]) -> list[wire.AnyFrame]:
    return [wire.decode(out.frame, TERMS.seal) for out in outputs if not isinstance(out, Join)]


def sent(outputs: Iterable[Output], kind: type) -> list[tuple[Link, wire.AnyFrame]]:
    """The frames of one kind that go over links."""
    frames = [(o.link, wire.decode(o.frame, TERMS.seal)) for o in outputs if isinstance(o, Send)]
    return [(link, frame) for link, frame in frames if isinstance(frame, kind)]


@dataclass
class Network:
    """Carries outputs from peer to peer; ``dials`` holds (who dials, who listens), ``drop`` says what is lost."""

    peers: dict[str, Protocol]
    dials: list[tuple[str, str]]
    seed: int = 0
    loss: float = 0.0
    doubling: float = 0.0
    delay: float = 0.05
    now: float = 100.0
    dead: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    carried: list[tuple[str, str, bytes]] = field(default_factory=list)
    joined: set[tuple[str, str]] = field(default_factory=set)
    drop: Callable[[str, str, bytes], bool] | None = None

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._order = itertools.count()
        self._flying: list[tuple[float, int, str, str, Link | None, bytes]] = []
        for dialler, listener in self.dials:
            self.peers[dialler].dialled(("dialled", listener), key_of(listener).public)

    def neighbours(self, name: str) -> set[str]:
        return {b if a == name else a for a, b in self.dials if name in (a, b)}

    def carry(self, sender: str, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, Join):
                self.joined.add((sender, str(output.link[1])))
            elif isinstance(output, Publish):
                for receiver in sorted(self.neighbours(sender)):
                    self._throw(sender, receiver, None, output.frame)
            else:
                kind, end = output.link
                receiver = end if isinstance(end, str) else end.decode()
                arrives: Link = ("accepted", sender.encode()) if kind == "dialled" else ("dialled", sender)
                self._throw(sender, receiver, arrives, output.frame)

    def _throw(self, sender: str, receiver: str, link: Link | None, frame: bytes) -> None:
        self.carried.append((sender, receiver, frame))
        assert len(self.carried) < 200_000, "a flood that does not end"
        lost = self.drop is not None and self.drop(sender, receiver, frame)
        if lost or self.dead & {sender, receiver} or self._random.random() < self.loss:
            return
        for _ in range(2 if self._random.random() < self.doubling else 1):
            due = self.now + self._random.uniform(0, self.delay)
            heapq.heappush(self._flying, (due, next(self._order), sender, receiver, link, frame))

    def _deliver(self, sender: str, receiver: str, link: Link | None, frame: bytes) -> None:
        if receiver in self.dead or receiver not in self.peers:
            return
        curve = identity.curve_public(key_of(sender).public) or b""
        peer = self.peers[receiver]
        listens = any(receiver == listener for _, listener in self.dials)
        try:
            if link is None:
                self.carry(receiver, peer.hear(frame, self.now, listens, curve))
            else:
                self.carry(receiver, peer.receive(link, frame, self.now, curve))
        except MessageError as error:
            self.refused.append(str(error))

    def run(self, seconds: float, act: Callable[[], None] = lambda: None, step: float = 0.1) -> None:
        """Let time pass; ``act`` is called at every step."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            while self._flying and self._flying[0][0] <= self.now:
                _, _, sender, receiver, link, frame = heapq.heappop(self._flying)
                self._deliver(sender, receiver, link, frame)
            act()
            for name in sorted(self.peers.keys() - self.dead):
                self.carry(name, self.peers[name].tick(self.now))

    def count(self, kind: type) -> int:
        return sum(isinstance(wire.decode(frame, TERMS.seal), kind) for _, _, frame in self.carried)


def star(names: list[str]) -> list[tuple[str, str]]:
    return [(name, names[0]) for name in names[1:]]


def chain(names: list[str]) -> list[tuple[str, str]]:
    return [(later, earlier) for earlier, later in itertools.pairwise(names)]


def mesh(names: list[str]) -> list[tuple[str, str]]:
    return [(later, earlier) for earlier, later in itertools.combinations(names, 2)]


Shape = Callable[[list[str]], list[tuple[str, str]]]


def swarm(count: int, shape: Shape, **network: float) -> Network:
    names = [f"peer{n}" for n in range(count)]
    return Network({name: protocol(name) for name in names}, shape(names), **network)  # type: ignore[arg-type]
