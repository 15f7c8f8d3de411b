"""Hostile files: logs, checkpoints, notes of streams, low bits; and invites, which people paste."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

from fuzzing import world
from fuzzing.world import ALICE, BOB, OWNER, SEAL, STRANGER, Log, record
from hostile.entry import Entry, not_reduced
from hostile.manifests import bomb
from shared_seed.messages import Message
from shared_seed.proofs import Order, sign_head
from shared_seed.signed import Signed

EPOCH = (1980, 1, 1, 0, 0, 0)
SAID = [world.signed(ALICE, n).encode() for n in range(4)]
WHO = world.introduction(ALICE).encode()


def entries() -> Iterator[Entry]:
    """All of them."""
    for name, what, data in (*_headers(), *_records(), *_runs()):
        yield Entry("logs", name, what, data, "LogError")
    for name, what, data in _checkpoints():
        yield Entry("snapshots", name, what, data, "LogError")
    for name, what, data in _low_bits():
        yield Entry("low-bits", name, what, data, "LogError")
    for name, what, data in _notes():
        yield Entry("peers", name, what, data, "LogError")
    for name, what, data in _invites():
        yield Entry("invites", name, what, data, "RecipeError")


def _headers() -> Iterator[tuple[str, str, bytes]]:
    valid = Log((WHO, *SAID)).encode()
    yield "empty", "nothing at all", b""
    yield "magic-alone", "eight bytes", valid[:8]
    yield "another-magic", "another kind of file", b"SSEEDLOX" + valid[8:]
    yield "cut-in-its-header", "no whole manifest", valid[:200]
    yield "version-1", "an earlier version", Log((WHO, *SAID), version=1).encode()
    yield "version-65535", "a version that there is not", Log((WHO, *SAID), version=65535).encode()
    yield "flags", "flags that there are not", Log((WHO, *SAID), flags=1).encode()
    yield "four-billion", "a manifest said to be so long", Log((WHO,), length=(1 << 32) - 1).encode()
    yield (
        "one-shorter",
        "a manifest said to be one byte shorter",
        Log((WHO,), length=len(world.PACKED) - 1).encode(),
    )
    yield "header-checksum", "damage in the manifest", valid[:30] + bytes([valid[30] ^ 1]) + valid[31:]
    yield "no-manifest", "an empty one", Log((WHO,), b"").encode()
    yield "not-signed", "the owner's signature is zeros", Log((WHO,), signature=bytes(64)).encode()
    yield "signed-by-another", "not by the owner", Log((WHO,), signature=world.MANIFEST.sign(ALICE)).encode()
    yield (
        "signature-not-reduced",
        "valid but for its form",
        Log((WHO,), signature=not_reduced(world.OWNERS)).encode(),
    )
    yield (
        "changed-terms",
        "a signature of other terms",
        Log((WHO,), world.deflate(world.manifest_text(rounds=7))).encode(),
    )


def _records() -> Iterator[tuple[str, str, bytes]]:
    head = Log(()).encode()
    whole = b"".join(map(record, (WHO, *SAID)))
    for name, wrong in {
        "length-0": struct.pack("<HI", 0, zlib.crc32(b"\0\0")),
        "length-65535": struct.pack("<H", 65535) + bytes(10),
        "checksum": record(SAID[0])[:-1] + b"\0",
        "zeros": bytes(1000),
    }.items():
        yield f"damaged-{name}", "no whole record, with others after it", head + record(WHO) + wrong + whole
    kinds = {
        "kind-0": b"\0" + SAID[0][1:],
        "kind-9": b"\x09",
        "kind-heartbeat": world.signed_beat(ALICE),
        "short-digest": b"\x02" + bytes(35),
        "long-digest": b"\x02" + bytes(37),
        "short-introduction": WHO[:-1],
        "short-order": world.frames()["order"][:-1],
        "no-fork": b"\x07" + b"\x91" * 1000,
        "rate-nan": struct.pack("<B16sIIf", 4, world.stream(ALICE).to_bytes(), 0, 0, float("nan")) + bytes(65),
        "rate-negative-zero": struct.pack("<B16sIIf", 4, world.stream(ALICE).to_bytes(), 0, 0, -0.0) + bytes(65),
        "signature-of-10-bytes": SAID[0][:-54],
        "largest": b"\x07" + b"\xff" * 59_999,
    }
    for name, payload in kinds.items():
        yield f"record-{name}", "a record that is none, with a right checksum", Log((WHO, payload)).encode()
    yield (
        "record-60001-bytes",
        "a record that is too long, with others after it",
        Log((bytes(60_001), WHO)).encode(),
    )


def _runs() -> Iterator[tuple[str, str, bytes]]:
    bare = world.says(ALICE, 6)
    other = Signed(Message.decode(world.says(ALICE, 1, 1, 0x39)[0]), bytes(64)).encode()
    for name, payloads in {
        "without-introduction": SAID,
        "of-a-stranger": [world.introduction(STRANGER).encode(), world.signed(STRANGER, 0).encode()],
        "gap": [WHO, SAID[0], SAID[2]],
        "begins-late": [WHO, *SAID[1:]],
        "signature-zero": [WHO, bare[0], b"\x04" + bare[1][1:] + bytes(64)],
        "signature-of-another": [WHO, _signed_by_bob(bare[0])],
        "signature-not-reduced": [WHO, SAID[0][:-64] + not_reduced(SAID[0][-64:])],
        "another-branch": [WHO, *SAID[:2], other],
        "order-by-a-stranger": [WHO, Order.issue(STRANGER, SEAL, 1, BOB.public, True).encode()],
        "order-about-the-owner": [WHO, Order.issue(OWNER, SEAL, 1, OWNER.public, True).encode()],
        "fork-without-introduction": [world.fork(ALICE, 2).encode()],
        "fork-of-another-run": [WHO, _unsigned(2)],
        "rate-2": [WHO, _first(2.0, b"\x38")],
        "9-samples": [WHO, _first(0.25, bytes(9))],
    }.items():
        yield f"run-{name}", "whole records of a run that there cannot be", Log(tuple(payloads)).encode()


def _signed_by_bob(data: bytes) -> bytes:
    return Signed(Message.decode(data), sign_head(BOB, world.head(ALICE, [data]))).encode()


def _unsigned(number: int) -> bytes:
    data = world.fork(ALICE, number).encode()
    return data[:-64] + bytes(64)


def _first(rate: float, codes: bytes) -> bytes:
    message = Message(world.stream(ALICE), 0, 0, rate, codes)
    return Signed(message, sign_head(ALICE, world.head(ALICE, [message.encode()]))).encode()


def _checkpoints() -> Iterator[tuple[str, str, bytes]]:
    digest = struct.pack("<BI32s", 2, len(SAID), bytes(32))
    valid = Log((WHO, *SAID, digest)).encode()
    yield "no-digest", "a log that states none", Log((WHO, *SAID)).encode()
    yield "statement-after-it", "a log that goes on after it", Log((*SAID, digest, WHO)).encode()
    yield "torn", "a log without its last byte", valid[:-1]
    yield "zeros-after-it", "a log that was torn", valid + bytes(100)
    beyond = struct.pack("<BI32s", 2, len(SAID) + 1, bytes(32))
    yield "digest-of-more", "a digest after more messages than there are", Log((WHO, *SAID, beyond)).encode()
    most = struct.pack("<BI32s", 2, (1 << 32) - 1, bytes(32))
    yield "digest-of-four-billion", "likewise", Log((WHO, *SAID, most)).encode()


def _array(shape: str, values: bytes, kind: str = "<i2", version: bytes = b"\1\0") -> bytes:
    """An array in NumPy's format, whatever its header says."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + values


def _zip(data: bytes, how: int = zipfile.ZIP_STORED, name: str = "w.npy") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr(zipfile.ZipInfo(name, EPOCH), data, how)
    return file.getvalue()


def _low_bits() -> Iterator[tuple[str, str, bytes]]:
    values = np.arange(6, dtype="<i2").tobytes()
    valid = _zip(_array("(3, 2)", values))
    yield "empty", "nothing at all", b""
    yield "no-zip", "an array that is in no archive", _array("(3, 2)", values)
    yield "truncated", "the first half", valid[: len(valid) // 2]
    yield "checksum", "damage in an array", valid.replace(values, values[::-1])
    yield "encrypted", "said to be encrypted", valid.replace(b"PK\1\2\x14\x03\x14\0\0", b"PK\1\2\x14\x03\x14\0\1")
    for name, array in {
        "no-array": b"hello",
        "no-header": b"\x93NUMPY\1\0\xff\xff",
        "version-9": _array("(3, 2)", values, version=b"\x09\0"),
        "pickle": _array("(3,)", b"cos\nsystem\n(S'true'\ntR.", "|O"),
        "float32": _array("(3,)", values, "<f4"),
        "big-endian": _array("(3, 2)", values, ">i2"),
        "shape-of-terabytes": _array("(1099511627776,)", values),
        "shape-too-large-for-numbers": _array("(18446744073709551616,)", values),
        "shape-negative": _array("(-3, -2)", values),
        "shape-float": _array("(3.0, 2)", values),
        "shape-code": _array("(__import__('os').getpid(),)", values),
        "shape-nested": _array("(" * 50 + ")" * 50, values),
        "too-little": _array("(3, 2)", values[:-1]),
        "too-much": _array("(3, 2)", values + b"\0"),
    }.items():
        yield name, "an archive of an array that is none of low bits", _zip(array)
    bomb = _deflated_bomb()
    yield "bomb", "16 MB of spaces, deflated", bomb


def _deflated_bomb() -> bytes:
    """A zip whose one file is deflated: to what a manifest is that is a bomb, without what zlib puts around it."""
    size = 16 << 20
    stored = _zip(bomb(size)[2:-4])
    return stored.replace(b"PK\3\4\x14\0\0\0\0\0", b"PK\3\4\x14\0\0\0\x08\0").replace(
        b"PK\1\2\x14\x03\x14\0\0\0\0\0", b"PK\1\2\x14\x03\x14\0\0\0\x08\0"
    )


def _notes() -> Iterator[tuple[str, str, bytes]]:
    valid = json.loads(world.note())
    for name, text in {
        "empty": b"",
        "null": b"null",
        "list": b"[]",
        "number": b"7",
        "not-utf8": world.note()[:-1] + b"\xff",
        "byte-order-mark": b"\xef\xbb\xbf" + world.note(),
        "cut": world.note()[:-1],
        "twice": world.note() * 2,
        "nested": b"[" * 20_000,
        "nested-in-a-field": b'{"peer":' + b"[" * 20_000,
        "long": b" " * 5000 + world.note(),
        "surrogate": world.note().replace(valid["label"].encode(), b"\\ud800"),
    }.items():
        yield name, "no note of a stream", text
    for name, number in {
        "infinite": "1e999",
        "nan": "NaN",
        "5000-digits": "9" * 900,
        "float": "1.5",
        "true": "true",
        "text": '"1"',
        "negative": "-1",
        "33-bits": str(1 << 32),
        "null": "null",
    }.items():
        text = world.note().replace(b'"incarnation": 0', b'"incarnation": ' + number.encode())
        yield f"incarnation-{name}", "an incarnation that there cannot be", text
    for name, changes in {
        "peer-short": {"peer": "00" * 11},
        "peer-no-hex": {"peer": "zz" * 12},
        "peer-list": {"peer": [0] * 12},
        "label-7-bytes": {"label": "00" * 7},
        "label-odd": {"label": "0"},
        "label-null": {"label": None},
        "unknown": {"key": 1},
    }.items():
        yield name, "a note with that in it", json.dumps({**valid, **changes}).encode()
    del valid["label"]
    yield "no-label", "a field is missing", json.dumps(valid).encode()


def _invites() -> Iterator[tuple[str, str, bytes]]:
    token = str(world.invite())
    content = base64.urlsafe_b64decode(token)[:113]

    def sealed(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data + struct.pack("<I", zlib.crc32(data)))

    for name, text in {
        "empty": b"",
        "spaces": b" " * 156,
        "one-short": token[:-1].encode(),
        "one-long": token.encode() + b"A",
        "twice": token.encode() * 2,
        "other-alphabet": token.replace("-", "+").replace("_", "/").encode(),
        "padded": token[:-1].encode() + b"=",
        "typing-error": (("B" if token[0] == "A" else "A") + token[1:]).encode(),
        "not-utf8": b"\xff" * 156,
        "full-width": ("\uff21" * 156).encode(),
        "nul-inside": token[:50].encode() + b"\0" + token[51:].encode(),
        "escape": b"\x1b[2J" * 39,
        "version-0": sealed(b"\0" + content[1:]),
        "version-255": sealed(b"\xff" + content[1:]),
        "to-another-run": sealed(content[:97] + bytes(16)),
        "kilobytes": b"A" * 10_000,
    }.items():
        yield name, "no invite to this run", text
