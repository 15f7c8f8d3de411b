"""Sends messages that are signed already through whatever passes them on, and notes when they arrive.

One thread sends for all writers and receives: with sockets as peers have them, but without the protocol behind
them, so that it costs a tenth of what a relay does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import quantiles

import zmq

from relaying.run import MANIFEST, Writer, protocol
from shared_seed.identity import Key
from shared_seed.messages import Stream
from shared_seed.swarm import wire
from shared_seed.swarm.output import Publish
from shared_seed.swarm.wire import State
from shared_seed.swarm.zmq.sockets import QUEUE, Context, client, curve

PATIENCE = 60.0
"""Seconds that connections may take."""

SILENCE = 20.0
"""Seconds without any message after which the rest counts as lost."""

_PLACE = slice(1, 21)
"""Where a published message has its stream and number."""


@dataclass(frozen=True)
class Way:
    """Where to send to, where to receive, and through how many relays.

    ``keys`` are the Ed25519 keys of the two ends, or none where nothing is encrypted.
    """

    ingress: str
    publications: str
    keys: tuple[bytes, bytes] | None
    relays: int = 0


@dataclass
class Passage:
    """What came through: seconds from the first sending to the last receipt, seconds of each message."""

    sent: int = 0
    seconds: float = 0.0
    delays: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Messages a second."""
        return len(self.delays) / self.seconds if self.seconds else 0.0

    def percentile(self, share: int) -> float:
        """Seconds that so many of a hundred messages took at most."""
        return quantiles(self.delays, n=100)[share - 1] if len(self.delays) > 1 else sum(self.delays)


class Driver:
    """Writers that send, and one subscriber."""

    def __init__(self, way: Way, writers: Sequence[Writer]) -> None:
        self._context: Context = zmq.Context()
        self._senders = [
            self._connect(zmq.XPUB, way.ingress, each.key, way.keys and way.keys[0]) for each in writers
        ]
        reader = Key(b"\x77" * 32)
        self._reader = self._connect(zmq.SUB, way.publications, reader, way.keys and way.keys[1])
        self._poller = zmq.Poller()
        self._poller.register(self._reader, zmq.POLLIN)
        try:
            self._await(way.relays)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the sockets."""
        self._context.destroy(linger=0)

    def introduce(self, writers: Sequence[Writer]) -> None:
        """Have relays hear who the writers are, by a heartbeat of each, and wait until these have come through."""
        waiting = {writer.stream for writer in writers}
        for sender, writer in zip(self._senders, writers, strict=True):
            for output in protocol(writer, "writer").enter(State.TRAINING, 0, 0.0):
                assert isinstance(output, Publish)
                sender.send(output.frame)
        deadline = time.monotonic() + PATIENCE
        while waiting and time.monotonic() < deadline:
            waiting -= self._heard_of()
        if waiting:
            raise RuntimeError(f"{len(waiting)} writers were not passed on within {PATIENCE:g} s")

    def pass_on(self, frames: Sequence[Sequence[bytes]], rate: float | None = None) -> Passage:
        """Send the frames of all writers in turn, all at once or so many a second; receive them."""
        rows = zip(*frames, strict=True)
        line = [pair for row in rows for pair in zip(self._senders, row, strict=True)]
        out, begun = Passage(len(line)), dict[bytes, float]()
        sent, began = 0, time.monotonic()
        heard = began
        while len(out.delays) < len(line) and time.monotonic() - heard < SILENCE:
            passed = time.monotonic() - began
            stop = len(line) if rate is None else min(len(line), 1 + int(passed * rate))
            for sender, frame in line[sent:stop]:
                begun[frame[_PLACE]] = time.monotonic()
                sender.send(frame)
            sent = stop
            if self._poller.poll(1):
                heard = self._receive(begun, out)
        out.seconds = heard - began
        return out

    def _receive(self, begun: dict[bytes, float], out: Passage) -> float:
        """Note all that has come; gives the time."""
        while True:
            now = time.monotonic()
            try:
                frame = self._reader.recv(zmq.NOBLOCK)
            except zmq.Again:
                return now
            at = begun.pop(frame[_PLACE], None)
            if at is not None:
                out.delays.append(now - at)

    def _await(self, relays: int) -> None:
        """Until whoever passes messages on listens to all senders, and is heard; relays by their heartbeats."""
        deadline = time.monotonic() + PATIENCE
        for sender in self._senders:
            if not sender.poll(int(1000 * PATIENCE)):
                raise RuntimeError(f"nobody listens to a sender within {PATIENCE:g} s")
            sender.recv()
        heard: set[Stream] = set()
        while len(heard) < relays and time.monotonic() < deadline:
            heard |= self._heard_of()
        if len(heard) < relays:
            raise RuntimeError(f"{len(heard)} of {relays} relays are heard within {PATIENCE:g} s")

    def _heard_of(self) -> set[Stream]:
        """Whose heartbeat comes next, if one comes soon."""
        if not self._reader.poll(100):
            return set()
        frame = wire.decode(self._reader.recv(), MANIFEST.seal)
        return {frame.stream} if isinstance(frame, wire.SignedHeartbeat) else set()

    def _connect(self, kind: int, endpoint: str, key: Key, server: bytes | None) -> zmq.Socket[bytes]:
        if server is None:
            socket = self._context.socket(kind)
            socket.set_hwm(QUEUE)
            if kind == zmq.SUB:
                socket.subscribe(b"")
        else:
            socket = client(self._context, kind, key, curve(server))
        socket.connect(endpoint)
        return socket
