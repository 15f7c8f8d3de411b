"""A member of the swarm that publishes what it should not: what it heard again, disordered, damaged, forged."""

from __future__ import annotations

import json
import random
import secrets
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from faulting import ours
from faulting.history import History
from faulting.schedule import Frames
from shared_seed import authors, clock, log
from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.errors import MessageError
from shared_seed.identity import Key
from shared_seed.manifest import Manifest
from shared_seed.messages import Message, Stream
from shared_seed.settings import Settings
from shared_seed.signed import Signed
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.output import Output, Publish
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import LARGEST_FRAME, State
from shared_seed.swarm.zmq import Swarm

KEPT = 300
"""Frames that were heard last."""

RATE = 0.5
"""The learning rate of forged messages, which no peer uses."""


class Liar(Protocol):
    """A protocol that remembers the frames that it hears, and publishes whatever it is given."""

    def __init__(self, author: Author, terms: Terms, archive: Archive) -> None:
        super().__init__(author, terms, archive, first_beat=clock.stamp())
        self.heard: deque[bytes] = deque(maxlen=KEPT)
        self.lies: list[bytes] = []

    def hear(self, data: bytes, now: float, forward: bool, sender: bytes = b"") -> list[Output]:
        """Remember it, and take it in as everybody does."""
        self.heard.append(data)
        return super().hear(data, now, forward, sender)

    def tick(self, now: float) -> list[Output]:
        """Publish the lies, beside what time asks for."""
        lies, self.lies = self.lies, []
        return [*(Publish(lie) for lie in lies), *super().tick(now)]


def truncated(frame: bytes) -> bytes:
    """Without its end."""
    return frame[: random.randrange(1, len(frame))]


def flipped(frame: bytes) -> bytes:
    """With one bit changed."""
    bit = random.randrange(8 * len(frame))
    out = bytearray(frame)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def oversized(frame: bytes) -> bytes:
    """With more behind it: a byte, more than a message may have, more than a frame may have."""
    return frame + secrets.token_bytes(random.choice((1, 300, LARGEST_FRAME)))


def _after(frame: bytes) -> Message:
    """What may be the next message of the stream that a frame belongs to, or of none."""
    try:
        heard = Signed.decode(frame).message
    except MessageError:
        heard = Message(Stream.fresh(), 0, 0, RATE, b"\x38")
    return Message(heard.stream, heard.number + 1, heard.round + 1, RATE, heard.codes)


def unsigned(frame: bytes) -> bytes:
    """The next message of somebody's stream, without a signature."""
    return Signed(_after(frame)).encode()


class Forger:
    """Makes bad frames of good ones; has a key and knows the run's terms."""

    def __init__(self, manifest: Manifest, key: Key) -> None:
        self.key = key
        self._elsewhere = Archive(manifest.model_copy(update={"nonce": secrets.token_hex(16)}))
        introduction = Introduction(key.public, secrets.token_bytes(8))
        self._elsewhere.introduce(introduction)
        self._stream = Stream(introduction.peer(manifest.run_bytes))
        self.made: dict[str, Callable[[bytes], bytes]] = {
            Frames.TRUNCATED: truncated,
            Frames.FLIPPED: flipped,
            Frames.OVERSIZED: oversized,
            Frames.FOREIGN: self.foreign,
            Frames.UNSIGNED: unsigned,
            Frames.STOLEN: self.stolen,
            Frames.NOISE: lambda frame: secrets.token_bytes(random.randint(1, 2 * len(frame))),
        }

    def frames(self, how: str, heard: list[bytes]) -> list[bytes]:
        """What to publish, given some frames that were heard."""
        if how == Frames.REORDERED:
            return heard[::-1]
        return [self.made[how](frame) for frame in heard] if how in self.made else heard

    def foreign(self, frame: bytes) -> bytes:
        """A message of our own, in good order and signed, but of another run with the same terms."""
        number = self._elsewhere.count(self._stream)
        return self._elsewhere.publish(Message(self._stream, number, number, RATE, frame[-1:]), self.key).encode()

    def stolen(self, frame: bytes) -> bytes:
        """The next message of somebody else's stream, signed with our key."""
        message = _after(frame)
        return Signed(message, self.key.sign(message.encode())).encode()


def _misbehave(forger: Forger, liar: Liar, order: dict[str, Any], _: Protocol, __: float) -> dict[str, Any]:
    """Give a liar its lies; what to note of them."""
    heard = random.sample(list(liar.heard), min(order["amount"], len(liar.heard)))
    sent = forger.frames(order["how"], heard)
    liar.lies += sent
    forged = {ours.message_in(frame) for frame in sent} - {ours.message_in(frame) for frame in liar.heard}
    return {"how": order["how"], "count": len(sent), "forged": sorted(filter(None, forged))}


def run(history: History, founded: Path, relays: list[str], control: Path) -> int:
    """Join relays at their addresses and do what datagrams of JSON at ``control`` say, until killed."""
    contents = log.read(ours.log_path(founded))
    manifest = contents.manifest
    author = authors.author(Settings(name="hostile", join=tuple(relays)), manifest, None)
    assert author.key is not None
    liar = Liar(author, Terms.of(manifest, contents.signature), Archive(manifest))
    forger = Forger(manifest, author.key)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    door.bind(str(control))
    swarm = Swarm(liar, author.key, None, relays)
    swarm.enter(State.RELAYING, 0)
    while True:
        misbehave = partial(_misbehave, forger, liar, json.loads(door.recv(1 << 16)))
        history.note("published", **swarm.ask(misbehave))
        swarm.ask(lambda p, now: p.take())
