"""Peers on real sockets of this machine, and clients that are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq

from shared_seed import clock
from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.identity import Key
from shared_seed.manifest import Limits, Manifest, TensorSpec
from shared_seed.messages import Message, Stream
from shared_seed.noise import Family
from shared_seed.swarm.address import parse
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.output import Link, Output
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.zmq import Swarm
from shared_seed.swarm.zmq.line import Line, News
from shared_seed.swarm.zmq.sockets import Context, curve

ANYWHERE = "tcp://127.0.0.1:0"
OWNER = Key(b"\x09" * 32)
MANIFEST = Manifest(
    run="0123456789abcdef0123456789abcdef",
    owner=OWNER.public.hex(),
    model="tiny",
    frozen_digest="c0ffee",
    tensors=(TensorSpec(name="w", shape=(3, 2), family=Family.DENSE, exponent=21, digest="ab"),),
    epsilon=2.0**-8,
    scale_exponent=0,
    rounds=1_000_000,
    start_with=1,
    limits=Limits(learning_rate=1.0, samples_per_message=8),
)
TERMS = Terms.of(MANIFEST, MANIFEST.sign(OWNER))
PORTS = {zmq.DEALER: 0, zmq.SUB: 1, zmq.XPUB: 2}
"""Kind of client socket: which of a peer's ports it fits."""


class Watched(Protocol):
    """A protocol that says whom it admits, and remembers who has sent what."""

    def __init__(self, name: str) -> None:
        super().__init__(Author(Stream.fresh(), name), TERMS, Archive(MANIFEST))
        self.admits: Callable[[bytes], bool] = lambda key: True
        self.greets: Callable[[bytes], bool] = lambda key: True
        self.standing.might_admit = lambda curve_public: self.admits(curve_public)
        self.standing.might_greet = lambda curve_public: self.greets(curve_public)
        self.senders: set[bytes] = set()
        self.linked: set[bytes] = set()

    def sign_as(self, key: Key) -> None:
        """Be a peer with this key."""
        introduction = Introduction(key.public, self.author.name.encode().ljust(8)[:8])
        self.archive.introduce(introduction)
        self.become(Author(Stream(introduction.peer(MANIFEST.run_bytes)), self.author.name, key, introduction))

    def hear(self, data: bytes, now: float, forward: bool, sender: bytes = b"") -> list[Output]:
        self.senders.add(sender)
        return super().hear(data, now, forward, sender)

    def receive(self, link: Link, data: bytes, now: float, sender: bytes = b"") -> list[Output]:
        self.linked.add(sender)
        return super().receive(link, data, now, sender)


class Swarms:
    """Opens peers, and closes them all."""

    def __init__(self) -> None:
        self._open: list[Swarm] = []

    def start(
        self, protocol: Watched, key: Key, listen: str | None = None, *dial: str, rate: int = 10**6
    ) -> Swarm:
        protocol.sign_as(key)
        self._open.append(Swarm(protocol, key, listen, dial, rate))
        return self._open[-1]

    def listener(self, protocol: Watched, key: Key, rate: int = 10**6) -> tuple[Swarm, str]:
        swarm = self.start(protocol, key, ANYWHERE, rate=rate)
        assert swarm.address is not None
        return swarm, swarm.address

    def close(self) -> None:
        # Those that dialled first: whoever has lost the other end waits a second to deliver its leave.
        for swarm in reversed(self._open):
            swarm.close()


def guest(key: Key) -> Introduction:
    """As whom somebody with a key asks for a run's terms."""
    return Introduction(key.public, b"a guest.")


def meet(*swarms: Swarm) -> None:
    """Wait until each has heard of another."""
    for swarm in swarms:
        assert swarm.wait(lambda p, now: bool(p.live(now)), 10)


def say(swarm: Swarm, count: int = 1) -> None:
    """Publish the next messages of a peer."""
    stream = swarm.ask(lambda p, now: p.author.stream)
    first = swarm.ask(lambda p, now: p.archive.count(stream))
    for number in range(first, first + count):
        swarm.publish(Message(stream, number, number, 0.25, b"\x38"))


def has(count: int) -> Callable[[Protocol, float], bool]:
    return lambda protocol, now: len(protocol.archive) == count


@contextmanager
def line(address: str, kind: int, key: Key) -> Iterator[Line]:
    """A client with a key, at the port that fits its kind."""
    where = parse(address)
    assert where.key is not None
    context: Context = zmq.Context()
    opened = Line(context, kind, where.endpoint(PORTS[kind]), key, curve(where.key))
    try:
        yield opened
    finally:
        opened.close()
        context.destroy(linger=0)


def first_news(opened: Line, seconds: float = 10.0) -> News | None:
    """What happens to a client first."""
    deadline = clock.now() + seconds
    while clock.now() < deadline:
        if opened.monitor.poll(100):
            for news in opened.heed(clock.now()):
                return news
    return None
