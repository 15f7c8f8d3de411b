"""A small run, the same every time, and valid bytes of every kind that it knows: what fuzzing begins with."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from shared_seed import folder
from shared_seed.admission import Introduction, Invite
from shared_seed.archive import Archive
from shared_seed.buckets import BUCKETS
from shared_seed.identity import Key
from shared_seed.ledger import BLOCK, Stretch, chained, first_head
from shared_seed.log import MAGIC, VERSION
from shared_seed.manifest import Admission, Aggregation, Limits, Manifest, TensorSpec
from shared_seed.messages import Message, Stream
from shared_seed.noise import Family
from shared_seed.proofs import Fork, Order, sign_head
from shared_seed.signed import Signed
from shared_seed.swarm import wire
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.output import Link
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.pulses import Pulses
from shared_seed.swarm.wire import State

OWNER, OURS, ALICE, BOB, CAROL, STRANGER = (Key(bytes([n]) * 32) for n in (9, 1, 2, 3, 4, 5))
"""The run's owner; this peer; two listed peers; one with an invite; one whom nobody has admitted."""

TICKET = Key(b"\x0a" * 32)
GREETED: Link = ("accepted", b"alice")
DIALLED: Link = ("dialled", "tcp://relay:1")
UNKNOWN: Link = ("accepted", b"nobody")
"""Links to a protocol of :func:`protocol`: one that has greeted, one that it has dialled, one that is new."""

NOW = 1000.0
SAID = BLOCK + 6
"""Messages that Alice has published: more than a block."""

MANIFEST = Manifest(
    run="0123456789abcdef0123456789abcdef",
    nonce="fedcba9876543210fedcba9876543210",
    owner=OWNER.public.hex(),
    admission=Admission(mode="invite", keys=tuple(key.public.hex() for key in (OURS, ALICE, BOB))),
    model="tiny",
    frozen_digest="c0ffee",
    tensors=(
        TensorSpec(name="w", shape=(3, 2), family=Family.RANK1, exponent=21, digest="ab"),
        TensorSpec(name="b", shape=(3,), family=Family.DENSE, exponent=20, digest="cd", rate=0.5),
    ),
    epsilon=2.0**-8,
    scale_exponent=-3,
    rounds=1_000_000,
    start_with=2,
    limits=Limits(learning_rate=1.0, samples_per_message=8, streams_per_key=4),
    recipe={"model": {"name": "tiny"}, "steps": 100},
    aggregation=Aggregation(kind="clip"),
)
RUN, SEAL = MANIFEST.run_bytes, MANIFEST.seal


def deflate(text: bytes) -> bytes:
    """Text as zlib's format holds it uncompressed: the same bytes whatever the version of zlib."""
    parts = [text[at : at + 65535] for at in range(0, len(text), 65535)] or [b""]
    blocks = [
        bytes([part is parts[-1]]) + struct.pack("<HH", len(part), 0xFFFF ^ len(part)) + part for part in parts
    ]
    return b"\x78\x01" + b"".join(blocks) + zlib.adler32(text).to_bytes(4, "big")


PACKED, OWNERS = deflate(MANIFEST.canonical()), MANIFEST.sign(OWNER)
"""The manifest as links and logs have it, and the owner's signature of it."""


def introduction(key: Key, label: bytes = b"a label.", ticket: bytes = b"") -> Introduction:
    """A peer of a key."""
    return Introduction(key.public, label, ticket)


def stream(key: Key, incarnation: int = 0) -> Stream:
    """A stream of a key's peer."""
    return Stream(introduction(key).peer(RUN), incarnation)


def invite() -> Invite:
    """The run's one invite."""
    return Invite(SEAL, TICKET.seed, OWNER.sign(b"shared-seed invite" + SEAL + TICKET.public))


@cache
def guest(key: Key) -> Introduction:
    """A peer of a key that shows the invite."""
    return introduction(key, ticket=invite().admit(key, SEAL))


@cache
def says(key: Key, count: int, start: int = 0, code: int = 0x38) -> tuple[bytes, ...]:
    """Messages of a key's peer, encoded: one a round."""
    name = stream(key)
    return tuple(Message(name, n, n, 0.25, bytes([code, n % 128])).encode() for n in range(start, start + count))


def head(key: Key, encoded: Sequence[bytes]) -> bytes:
    """The head of a key's stream after messages from its first on."""
    return chained(first_head(SEAL, stream(key)), encoded)


@cache
def signed(key: Key, number: int, code: int = 0x38) -> Signed:
    """A message of a key's peer, signed; those before it are the usual ones."""
    encoded = [*says(key, number), *says(key, 1, number, code)]
    return Signed(Message.decode(encoded[-1]), sign_head(key, head(key, encoded)))


@cache
def stretches(key: Key, count: int) -> tuple[Stretch, ...]:
    """What a key's peer has said, a stretch a block, each signed."""
    encoded = says(key, count)
    out = []
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        out.append(Stretch(start, encoded[start:stop], sign_head(key, head(key, encoded[:stop]))))
    return tuple(out)


def fork(key: Key, number: int) -> Fork:
    """Two branches, each of one message, of a key's stream."""
    before = says(key, number)
    branches = []
    for code in (0x38, 0x39):
        encoded = says(key, 1, number, code)
        branches.append(Stretch(number, encoded, sign_head(key, head(key, before + encoded))))
    return Fork.of(stream(key), head(key, before), *branches)


def pulses(key: Key) -> Pulses:
    """The chain of pulses whose end the heartbeats of a key's peer state."""
    return Pulses(key, stream(key), SEAL, 7)


def pulse(key: Key, count: int = 1, **changes: object) -> bytes:
    """The frame of the pulse after so many others."""
    chain = pulses(key)
    fields: dict[str, object] = {
        "stream": stream(key).to_bytes(),
        "number": [chain.beat(False) for _ in range(count)][-1],
    }
    return wire.encode_pulse(wire.Pulse(**{**fields, **changes}))  # type: ignore[arg-type]


def beat(key: Key, number: int = 7, **changes: object) -> wire.Heartbeat:
    """A heartbeat of a key's peer."""
    fields: dict[str, object] = {
        "stream": stream(key).to_bytes(),
        "guest": wire.Guest.of(introduction(key)),
        "beat": number,
        "name": "Zoë",
        "state": State.TRAINING,
        "round": 3,
        "interval": 2000,
        "pace": 300,
        "messages": 70,
        "held": bytes(16),
        "proven": bytes(8),
        "pulse": pulses(key).last,
        "digest": bytes(32),
    }
    return wire.Heartbeat(**{**fields, **changes})  # type: ignore[arg-type]


def signed_beat(key: Key, number: int = 7, **changes: object) -> bytes:
    """The frame of a heartbeat."""
    said = beat(key, number, **changes)
    return wire.encode_beat(said, key.sign(wire.text_of(said, SEAL)))


def archive() -> Archive:
    """What this peer holds: all that Alice and Carol have said."""
    held = Archive(MANIFEST)
    for known in (introduction(OURS), introduction(ALICE), introduction(BOB), guest(CAROL)):
        held.introduce(known)
    for stretch in stretches(ALICE, SAID):
        held.accept_stretch(stream(ALICE), stretch)
    for number in range(3):
        held.accept(signed(CAROL, number))
    held.take()
    return held


def protocol(greeted: bool = True) -> Protocol:
    """Our peer, in the middle of a run; with ``greeted``, Alice has said hello over a link."""
    author = Author(stream(OURS), "ours", OURS, introduction(OURS))
    ours = Protocol(author, Terms(MANIFEST.digest(), PACKED, OWNERS), archive())
    ours.dialled(DIALLED, BOB.public)
    ours.enter(State.TRAINING, SAID, NOW)
    if greeted:
        ours.receive(GREETED, hello(ALICE), NOW)
        ours.hear(signed_beat(ALICE, 1), NOW, False)
    ours.tick(NOW)
    ours.take()
    return ours


@cache
def hello(key: Key) -> bytes:
    """A greeting."""
    named = stream(key).to_bytes()
    return wire.encode(wire.Hello(named, "Zoë", wire.Guest.of(introduction(key)), MANIFEST.digest()))


def controls() -> dict[str, wire.ControlFrame]:
    """A control frame of every tag, by its name."""
    alice, who = stream(ALICE).to_bytes(), wire.Guest.of(introduction(ALICE))
    bob, they = stream(BOB), wire.Guest.of(introduction(BOB))
    return {
        "hello": wire.Hello(alice, "Zoë", who, MANIFEST.digest()),
        "welcome": wire.Welcome(bob.to_bytes(), "bob", they, PACKED, OWNERS),
        "refusal": wire.Refusal("your manifest differs"),
        "compare": wire.Compare(True, [(n, bytes([n]) * 8) for n in range(BUCKETS)]),
        "levels": wire.Levels([(alice, SAID, bytes(8)), (bob.to_bytes(), 9, b"12345678")]),
        "request": wire.Request(alice, 3, 60),
        "chunk": wire.Chunk.of(bob.to_bytes(), they, 0, stretches(BOB, SAID)),
        "trace": wire.Trace(alice),
        "marks": wire.Marks(alice, [head(ALICE, says(ALICE, n))[:8] for n in (0, BLOCK)]),
        "consult": wire.Consult(),
        "vacancy": wire.Vacancy(),
        "offer": wire.Offer(PACKED, OWNERS),
    }


def frames() -> dict[str, bytes]:
    """A valid frame of every kind, by its name."""
    named = {name: wire.encode(frame) for name, frame in controls().items()}
    named["message"] = signed(ALICE, SAID).encode()
    named["introduction"] = introduction(BOB, b"another.").encode()
    named["guest"] = guest(STRANGER).encode()
    named["order"] = Order.issue(OWNER, SEAL, 1, BOB.public, True).encode()
    accused = wire.Guest.of(introduction(ALICE))
    named["fork"] = wire.encode_accusation(wire.Accusation(fork(ALICE, 5), accused))
    named["heartbeat"] = signed_beat(ALICE)
    named["pulse"] = pulse(ALICE)
    return named


@dataclass(frozen=True)
class Log:
    """A log to be written byte by byte, so that it may be a wrong one."""

    payloads: tuple[bytes, ...]
    packed: bytes = PACKED
    signature: bytes = OWNERS
    version: int = VERSION
    flags: int = 0
    length: int | None = None

    def encode(self) -> bytes:
        """The file."""
        length = len(self.packed) if self.length is None else self.length
        whole = struct.pack("<8sHHI", MAGIC, self.version, self.flags, length) + self.packed + self.signature
        return whole + struct.pack("<I", zlib.crc32(whole)) + b"".join(map(record, self.payloads))


def record(payload: bytes) -> bytes:
    """A record of a log."""
    body = struct.pack("<H", len(payload)) + payload
    return body + struct.pack("<I", zlib.crc32(body))


@cache
def payloads() -> tuple[bytes, ...]:
    """Records of every kind."""
    said = [signed(ALICE, n).encode() for n in range(4)]
    statements = [introduction(ALICE).encode(), guest(CAROL).encode()]
    statements += [Order.issue(OWNER, SEAL, 1, BOB.public, True).encode(), fork(CAROL, 2).encode()]
    digest = struct.pack("<BI32s", 0x02, len(said), bytes(range(32)))
    return (*statements, *said, digest)


def low_bits() -> bytes:
    """The low bits of a bfloat16 parameter, as a checkpoint keeps them."""
    file = io.BytesIO()
    np.savez(file, w=np.arange(6, dtype=np.int16).reshape(3, 2))
    return file.getvalue()


def note() -> bytes:
    """What a run folder notes of its stream."""
    return folder.encode_note(stream(OURS), b"a label.")


def manifest_text(**changes: object) -> bytes:
    """The manifest's JSON with other values in some fields."""
    return json.dumps({**MANIFEST.model_dump(mode="json"), **changes}, separators=(",", ":")).encode()
