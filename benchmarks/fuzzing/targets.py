"""What is fed with bytes, what it may raise, and what must be true afterwards."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fuzzing import sealing, world
from shared_seed import codec, folder, history, log
from shared_seed.admission import Introduction, Invite
from shared_seed.archive import Archive
from shared_seed.errors import LogError, ManifestMismatchError, MessageError, RecipeError, SharedSeedError
from shared_seed.manifest import Manifest
from shared_seed.messages import Message
from shared_seed.proofs import Fork, Order
from shared_seed.signed import Signed
from shared_seed.snapshot import Snapshot
from shared_seed.swarm import catchup, wire
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.standing import MOST_FAULTS

SEPARATOR = b"\xfe\xfd\xfc\xfb"
"""Between the frames of one input to ``catchup``."""

SEALED, HEARD, DIALLED, UNKNOWN = 1, 2, 4, 8
"""Bits of the byte before each of them: signed anew; published; over the dialled link; over one that is new."""


@dataclass(frozen=True)
class Target:
    """A way in for bytes of others.

    ``feed`` raises one of ``refusals`` for what it refuses, an AssertionError where a promise is broken, and
    nothing else; ``seeds`` are valid inputs.
    """

    feed: Callable[[bytes], None]
    refusals: tuple[type[SharedSeedError], ...]
    seeds: Callable[[], list[bytes]]
    largest: int = 1 << 16

    def takes(self, data: bytes) -> bool:
        """Whether it was accepted; any exception but a refusal comes through."""
        try:
            self.feed(data)
        except self.refusals:
            return False
        return True


def encoded(frame: wire.AnyFrame) -> bytes:
    """The one encoding of a frame of any kind."""
    match frame:
        case Signed() | Introduction() | Order():
            return frame.encode()
        case wire.Accusation():
            return wire.encode_accusation(frame)
        case wire.SignedHeartbeat():
            return wire.encode_beat(frame.beat, frame.signature)
        case wire.Pulse():
            return wire.encode_pulse(frame)
    return wire.encode(frame)


def _codec(data: bytes) -> None:
    for code in data:
        value = codec.decode(code, -3)
        assert codec.is_abstention(code) == math.isnan(value)
        assert codec.is_abstention(code) or codec.encode(value, -3) == code, code
    if len(data) >= 8:
        number = memoryview(data[:8]).cast("d")[0]
        assert 0 <= codec.encode(number) <= 255
        assert codec.is_abstention(codec.encode(number)) != math.isfinite(number)


_MESSAGES: dict[bytes, Callable[[bytes], Message | Signed | Introduction | Order | Fork]] = {
    b"\x04": Signed.decode,
    b"\x05": Introduction.decode,
    b"\x06": Order.decode,
    b"\x07": Fork.decode,
}


def _messages(data: bytes) -> None:
    found = _MESSAGES.get(data[:1], Message.decode)(data)
    assert found.encode() == data
    if isinstance(found, Fork):
        found.check(world.ALICE.public)


def _wire(data: bytes) -> None:
    frame = wire.decode(data, world.SEAL)
    assert encoded(frame) == data, "a frame that is not in canonical form"
    if isinstance(frame, wire.Chunk):
        joined = [body for stretch in frame.stretches() for body in stretch.encoded]
        assert len(joined) == len(frame.bodies)


def _manifest(data: bytes) -> None:
    found = Manifest.unpack(data)
    again = Manifest.unpack(found.pack())
    assert again == found
    assert again.canonical() == found.canonical()
    found.check_equal(again)


def _manifest_text(data: bytes) -> None:
    _manifest(world.deflate(data))


def _log(data: bytes) -> None:
    found = log.parse(sealing.log(data), "a log")
    assert found.size + found.torn == len(data)
    held = history.archive_of(found)
    check_archive(held, found.manifest, found.signature)
    # Messages that nothing proves any more are left out in one of the two, as their order is another.
    again = log.parse(log.encode(found), "the same")
    assert again.statements == found.statements
    assert history.archive_of(again).digest() == held.digest()


def _peer(data: bytes) -> None:
    noted = folder.decode_note(data, "a note")
    assert folder.decode_note(folder.encode_note(*noted), "the same") == noted


def _snapshot(data: bytes) -> None:
    found = Snapshot.unpack(sealing.log(data), world.note(), "a checkpoint")
    assert found.number <= len(found.contained)
    assert found.round >= 0


def _invite(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    found = Invite.parse(text)
    assert str(found) == "".join(text.split())
    found.admit(world.CAROL, world.SEAL)


def _invite_sealed(data: bytes) -> None:
    _invite(sealing.token(data))


def check_archive(held: Archive, manifest: Manifest, signature: bytes) -> None:
    """Make sure that an archive adds up, and that its log gives one that is the same."""
    messages = list(held)
    assert len(held) == len(messages) == len(set(messages))
    assert len(held) == sum(held.count(stream) for stream in held.streams)
    assert len(held) == sum(bucket.messages for bucket in held.buckets())
    for stream in held.streams:
        rounds = [message.round for message in messages if message.stream == stream]
        assert rounds == sorted(set(rounds))
        assert held.introduction(stream) is not None or not held.owner
    contents = history.contents_of(held, manifest, signature)
    again = history.archive_of(log.parse(log.encode(contents), "its log"))
    assert again.digest() == held.digest(), "the log gives other messages"
    assert again.statements_digest() == held.statements_digest(), "the log gives other statements"
    assert Counter(again.effective()) == Counter(held.effective()), "the log gives other weights"


@dataclass
class Peer:
    """A peer that takes in what comes, and is begun anew when that has changed it."""

    protocol: Protocol = field(default_factory=world.protocol)
    fresh: bool = True

    def take(self, data: bytes) -> None:
        """Take in frames, each with a byte before it that says how; then check that all adds up.

        Raises:
            MessageError: the last of them was refused.
        """
        if not self.fresh:
            self.protocol = world.protocol()
        before, self.fresh = self.fingerprint(), False
        effective, refusal = Counter(self.protocol.archive.effective()), None
        now = world.NOW
        for part in data.split(SEPARATOR)[:16]:
            now += 1.5
            quiet = self.fingerprint()
            try:
                self._take_one(part, now)
                refusal = None
            except MessageError as error:
                refusal = error
                assert self.fingerprint()[:2] == quiet[:2], "a frame that was refused has changed the archive"
            self.protocol.tick(now)
        self.check()
        self.fresh = self.fingerprint() == before
        if not self.fresh:
            news = self.protocol.take()
            effective.update(news.fresh)
            effective.subtract(news.withdrawn)
            assert +effective == Counter(self.protocol.archive.effective()), "the news are not what has changed"
            assert min(effective.values(), default=0) >= 0, "withdrawn twice"
            check_archive(self.protocol.archive, world.MANIFEST, world.OWNERS)
        if refusal is not None:
            raise refusal

    def _take_one(self, part: bytes, now: float) -> None:
        how, data = (part[0], part[1:]) if part else (0, b"")
        if how & SEALED:
            data = sealing.frame(data, self.protocol.archive)
        if how & HEARD:
            self.protocol.hear(data, now, True)
            return
        link = world.DIALLED if how & DIALLED else world.UNKNOWN if how & UNKNOWN else world.GREETED
        self.protocol.receive(link, data, now)

    def fingerprint(self) -> tuple[object, ...]:
        """What distinguishes a protocol that has taken something in: the archive's first, then the rest."""
        at = self.protocol
        held = at.archive
        archive = (held.digest(), held.statements_digest(), len(held.orders), len(held.forks))
        roster = [(stream, peer.beat, peer.round, peer.pulse) for stream, peer in at.roster.peers.items()]
        catching = at._catch_up
        links = [(link, each.stream) for link, each in catching.neighbours.items()]
        return (
            archive,
            held.untaken,
            roster,
            links,
            list(catching._wants),
            list(at.standing.faults),
            at.standing.refusal,
        )

    def check(self) -> None:
        """Make sure that what peers can fill is bounded."""
        at = self.protocol
        assert len(at.standing.faults) <= MOST_FAULTS
        assert all(len(fault) < 2000 for fault in at.standing.faults)
        neighbours = at._catch_up.neighbours
        assert len(at._catch_up._wants) <= catchup.MOST_HINTS + catchup.MOST_CLAIMS * len(neighbours)
        at.live(world.NOW)
        at.digests()
        at.swarm_round(world.NOW)
        at.has_all(world.NOW)
        at.all_equal(world.NOW)
        at.is_settled(world.NOW)


def _catchup_seeds() -> list[bytes]:
    frames = world.frames()
    over = [bytes([how]) + frame for frame in frames.values() for how in (0, SEALED)]
    published = ("message", "order", "fork", "heartbeat", "pulse")
    over += [bytes([SEALED | HEARD]) + frames[name] for name in published]
    over += [bytes([DIALLED]) + frames[name] for name in ("welcome", "vacancy", "refusal")]
    over += [bytes([UNKNOWN]) + frames["hello"]]
    pairs = (("fork", "chunk"), ("order", "chunk"), ("levels", "chunk"), ("chunk", "fork"), ("chunk", "marks"))
    return [*over, *(SEPARATOR.join(bytes([SEALED]) + frames[name] for name in pair) for pair in pairs)]


def _frames() -> list[bytes]:
    return list(world.frames().values())


def _message_seeds() -> list[bytes]:
    names = ("message", "introduction", "guest", "order")
    others = [world.says(world.ALICE, 1)[0], world.fork(world.ALICE, 5).encode()]
    return [*(world.frames()[name] for name in names), *others]


def _log_seeds() -> list[bytes]:
    whole = world.Log(world.payloads()).encode()
    return [whole, whole[:-40], whole + bytes(100), world.Log(()).encode()]


def _manifest_seeds() -> list[bytes]:
    return [world.PACKED, world.MANIFEST.pack()]


_PEER = Peer()

TARGETS: dict[str, Target] = {
    "codec": Target(_codec, (), lambda: [bytes(range(256)), b"\0" * 8], 512),
    "messages": Target(_messages, (MessageError,), _message_seeds),
    "wire": Target(_wire, (MessageError,), _frames),
    "catchup": Target(_PEER.take, (MessageError,), _catchup_seeds),
    "log": Target(_log, (LogError,), _log_seeds),
    "manifest": Target(_manifest, (ManifestMismatchError,), _manifest_seeds),
    "manifest-text": Target(_manifest_text, (ManifestMismatchError,), lambda: [world.MANIFEST.canonical()]),
    "invite": Target(_invite, (RecipeError,), lambda: [str(world.invite()).encode()], 1024),
    "invite-sealed": Target(
        _invite_sealed, (RecipeError,), lambda: [base64.urlsafe_b64decode(str(world.invite()))[:113]], 256
    ),
    "peer": Target(_peer, (LogError,), lambda: [world.note()], 4096),
    "snapshot": Target(_snapshot, (LogError,), _log_seeds),
}
"""All ways in, by name."""
