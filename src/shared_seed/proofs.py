"""What takes messages out of a run, everywhere alike: the owner's orders, and proofs that a writer forked its
stream.

Both are signed statements that anybody may pass on. A run is a function of them as it is of its messages: in
whatever order they come, what they leave is the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Annotated

import msgspec

from shared_seed import identity
from shared_seed.errors import MessageError
from shared_seed.identity import KEY_SIZE, SIGNATURE_SIZE, Key
from shared_seed.ledger import BLOCK, Stretch, chained
from shared_seed.messages import BODY, LARGEST, Message, Stream

ORDER_KIND = 0x06
FORK_KIND = 0x07
"""First bytes of the two."""

LARGEST_PROOF = 60_000
"""Bytes of an encoded fork or order."""

LAST_SERIAL = (1 << 32) - 1
"""The highest serial of an order."""

_ORDER = struct.Struct(f"<BI{KEY_SIZE}s?")
_HEAD_CONTEXT = b"shared-seed message"
_ORDER_CONTEXT = b"shared-seed order"


def sign_head(key: Key, head: bytes) -> bytes:
    """The signature that proves a stream up to a head."""
    return key.sign(_HEAD_CONTEXT + head)


def signed_head(head: bytes) -> bytes:
    """The bytes that :func:`sign_head` signs."""
    return _HEAD_CONTEXT + head


@dataclass(frozen=True, slots=True)
class Order:
    """The owner's word on a key: what it has written is out of the run, or back in. The highest serial counts."""

    serial: int
    key: bytes
    banned: bool
    signature: bytes = b""

    @classmethod
    def issue(cls, owner: Key, run: bytes, serial: int, key: bytes, banned: bool) -> Order:
        """Sign an order."""
        order = cls(serial, key, banned)
        return cls(serial, key, banned, owner.sign(order.signed(run)))

    def after(self, owner: Key, run: bytes, earlier: Order | None) -> Order:
        """The same order, with the next serial where an earlier one would overrule it.

        Raises:
            MessageError: there is no next serial.
        """
        if earlier is None or earlier.rank < self.rank:
            return self
        if earlier.serial >= LAST_SERIAL:
            raise MessageError("the last order that there can be about this key has been given")
        return self.issue(owner, run, earlier.serial + 1, self.key, self.banned)

    def signed(self, run: bytes) -> bytes:
        """The bytes that the owner signs."""
        return _ORDER_CONTEXT + run + _ORDER.pack(ORDER_KIND, self.serial, self.key, self.banned)

    @property
    def rank(self) -> tuple[int, bool]:
        """What decides between two orders for one key."""
        return self.serial, self.banned

    def encode(self) -> bytes:
        """102 bytes."""
        return _ORDER.pack(ORDER_KIND, self.serial, self.key, self.banned) + self.signature

    @classmethod
    def decode(cls, data: bytes) -> Order:
        """Parse strictly.

        Raises:
            MessageError: the bytes are not exactly one order.
        """
        if len(data) != _ORDER.size + SIGNATURE_SIZE or data[0] != ORDER_KIND or data[_ORDER.size - 1] > 1:
            raise MessageError("not an order")
        _, serial, key, banned = _ORDER.unpack_from(data)
        return cls(serial, key, banned, data[_ORDER.size :])


Body = Annotated[bytes, msgspec.Meta(min_length=9, max_length=LARGEST - BODY)]
Bodies = Annotated[tuple[Body, ...], msgspec.Meta(min_length=1, max_length=BLOCK)]
Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_SIZE, max_length=SIGNATURE_SIZE)]


class Branch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a stream says after a common beginning: bodies of messages, and the signature of the last head."""

    bodies: Bodies
    signature: Signature

    @classmethod
    def of(cls, stretch: Stretch) -> Branch:
        """The same as a stretch, without where it begins."""
        return cls(tuple(data[BODY:] for data in stretch.encoded), stretch.signature)

    def encoded(self, stream: Stream, start: int) -> list[bytes]:
        """The whole messages, which must be valid ones."""
        bodies = enumerate(self.bodies, start)
        return [Message.of_body(stream, number, body).encode() for number, body in bodies]


class Fork(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Two branches of one stream that part with their first message, the one numbered ``number``.

    ``head`` is the stream's before that message; neither branch goes beyond that message's block, and ``one`` is
    the smaller in its bytes. Whoever signs both has lied to somebody: the stream ends there.
    """

    stream: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    number: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
    head: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    one: Branch
    other: Branch

    @classmethod
    def of(cls, stream: Stream, head: bytes, mine: Stretch, theirs: Stretch) -> Fork:
        """The fork of a stream after a head into these branches, whichever of them comes first."""
        one, other = sorted((Branch.of(mine), Branch.of(theirs)), key=lambda branch: branch.bodies)
        return cls(stream.to_bytes(), mine.start, head, one, other)

    @property
    def rank(self) -> tuple[int, bytes]:
        """What decides between two forks of one stream, the smallest first."""
        return self.number, self.encode()

    def check(self, key: bytes) -> None:
        """Make sure that this is a proof.

        Raises:
            MessageError: the branches do not part, or the owner of ``key`` has not signed both.
        """
        stream = Stream.from_bytes(self.stream)
        if self.one.bodies[0] >= self.other.bodies[0]:
            raise MessageError("a fork whose branches begin alike, or are not in order")
        for branch in (self.one, self.other):
            if self.number % BLOCK + len(branch.bodies) > BLOCK:
                raise MessageError("a fork with a branch that goes beyond its block")
            head = chained(self.head, branch.encoded(stream, self.number))
            if not identity.verify(key, signed_head(head), branch.signature):
                raise MessageError("a fork with a branch that the stream's writer has not signed")

    def encode(self) -> bytes:
        """At most ``LARGEST_PROOF`` bytes."""
        return bytes([FORK_KIND]) + _encoder.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Fork:
        """Parse strictly; :meth:`check` is still to be called.

        Raises:
            MessageError: the bytes are not exactly one fork.
        """
        if not 1 <= len(data) <= LARGEST_PROOF or data[0] != FORK_KIND:
            raise MessageError("not a fork")
        try:
            fork = _decoder.decode(memoryview(data)[1:])
        except (msgspec.DecodeError, RecursionError) as error:
            raise MessageError(f"not a fork: {error}") from error
        if fork.encode() != data:
            raise MessageError("a fork that is not in canonical form")
        return fork


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Fork] = msgspec.msgpack.Decoder(Fork)
