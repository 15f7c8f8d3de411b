"""Damaged bytes whose checksums and signatures are made good again, so that they get beyond the first check."""

from __future__ import annotations

import base64
import struct
import zlib

from fuzzing import world
from shared_seed.archive import Archive
from shared_seed.errors import MessageError
from shared_seed.identity import SIGNATURE_SIZE, Key
from shared_seed.ledger import chained, first_head
from shared_seed.log import MAGIC
from shared_seed.messages import Stream
from shared_seed.proofs import Branch, Fork, Order, sign_head
from shared_seed.signed import Signed
from shared_seed.swarm import wire

_KEYS = (world.ALICE, world.BOB, world.CAROL, world.STRANGER, world.OURS)
_WRITERS: dict[bytes, Key] = {world.stream(key).peer: key for key in _KEYS}
_SIGNERS: dict[bytes, Key] = {key.public: key for key in _KEYS}


def frame(data: bytes, held: Archive) -> bytes:
    """A frame as its writer would have signed it, after what the archive holds; the same if it is none."""
    try:
        said = wire.decode(data, world.SEAL)
        match said:
            case Signed():
                return _message(said, held)
            case wire.SignedHeartbeat():
                key = _SIGNERS.get(said.beat.guest.key)
                return wire.encode_beat(said.beat, key.sign(said.text)) if key else data
            case wire.Chunk():
                return _chunk(said, held)
            case Order():
                return Order.issue(world.OWNER, world.SEAL, said.serial, said.key, said.banned).encode()
            case wire.Accusation():
                return wire.encode_accusation(wire.Accusation(_fork(said.fork, held), said.guest))
    except MessageError:
        pass
    return data


def _head(held: Archive, stream: Stream, count: int) -> bytes:
    known = held.head(stream, min(count, held.count(stream)))
    return first_head(world.SEAL, stream) if known is None else known


def _message(said: Signed, held: Archive) -> bytes:
    stream = said.message.stream
    key = _WRITERS.get(stream.peer)
    if key is None:
        return said.encode()
    after = chained(_head(held, stream, said.message.number), [said.message.encode()])
    return Signed(said.message, sign_head(key, after)).encode()


def _chunk(said: wire.Chunk, held: Archive) -> bytes:
    stream = Stream.from_bytes(said.stream)
    key = _WRITERS.get(stream.peer)
    if key is None:
        return wire.encode(said)
    after, signatures = _head(held, stream, said.start), []
    for stretch in said.stretches():
        after = chained(after, stretch.encoded)
        signatures.append(sign_head(key, after))
    return wire.encode(wire.Chunk(said.stream, said.guest, said.start, said.bodies, signatures))


def _fork(said: Fork, held: Archive) -> Fork:
    stream = Stream.from_bytes(said.stream)
    key = _WRITERS.get(stream.peer)
    if key is None:
        return said
    before = _head(held, stream, said.number)
    heads = [chained(before, branch.encoded(stream, said.number)) for branch in (said.one, said.other)]
    one, other = (
        Branch(branch.bodies, sign_head(key, after))
        for branch, after in zip((said.one, said.other), heads, strict=True)
    )
    return Fork(said.stream, said.number, before, one, other)


def log(data: bytes) -> bytes:
    """A log whose checksums fit, as far as its lengths make sense."""
    if len(data) < 16:
        return data
    (length,) = struct.unpack_from("<I", data, 12)
    end = 16 + length + SIGNATURE_SIZE
    if end + 4 > len(data):
        return data
    head = MAGIC + data[8:end]
    out, at = [head + struct.pack("<I", zlib.crc32(head))], end + 4
    while at + 2 <= len(data):
        (size,) = struct.unpack_from("<H", data, at)
        if at + 6 + size > len(data):
            break
        out.append(world.record(data[at + 2 : at + 2 + size]))
        at += 6 + size
    return b"".join(out) + data[at:]


def token(data: bytes) -> bytes:
    """An invite whose checksum fits."""
    content = (data + bytes(113))[:113]
    return base64.urlsafe_b64encode(content + struct.pack("<I", zlib.crc32(content)))
