"""Hostile manifests: JSON and zlib that would take memory or time, or that say what no run can."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

from fuzzing import world
from fuzzing.world import MANIFEST, deflate
from hostile.entry import Entry
from shared_seed.manifest import LARGEST_UNPACKED


def bomb(size: int) -> bytes:
    """``size`` or a few more spaces as zlib deflates them with fixed codes, 13 bits for 258 of them (RFC 1951)."""
    repeats = -(-size // 258)
    # A last block of fixed codes; a space; copies of 258 bytes from one byte before; the end. Codes come in bits
    # from the highest, into bytes from the lowest.
    space, copy, end = f"{0x30 + 32:08b}", f"{0b11000101:08b}" + "00000", "0" * 7
    bits = "1" + "10" + space + copy * repeats + end
    bits += "0" * (-len(bits) % 8)
    body = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    return b"\x78\x9c" + body + _adler_of_spaces(1 + 258 * repeats).to_bytes(4, "big")


def _adler_of_spaces(count: int) -> int:
    """Adler-32 (RFC 1950) of so many spaces."""
    one = (1 + 32 * count) % 65521
    two = (count + 32 * count * (count + 1) // 2) % 65521
    return two << 16 | one


def entries() -> Iterator[Entry]:
    """All of them."""
    for name, what, data in (*_packed(), *_texts(), *_fields()):
        yield Entry("manifests", name, what, data, "ManifestMismatchError")


def _packed() -> Iterator[tuple[str, str, bytes]]:
    valid = world.PACKED
    yield "empty", "nothing at all", b""
    yield "not-zlib", "JSON that is not deflated", MANIFEST.canonical()
    yield "truncated", "the first half", valid[: len(valid) // 2]
    yield "cut-by-one", "without the last byte of its checksum", valid[:-1]
    yield "and-a-byte", "with a byte after its end", valid + b"\0"
    yield "twice", "two of them", valid + valid
    yield "checksum", "with another checksum", valid[:-1] + bytes([valid[-1] ^ 1])
    yield "dictionary", "deflated with a dictionary that nobody has", b"\x78\xbb\0\0\0\1" + valid[2:]
    yield "bomb", f"{LARGEST_UNPACKED:,} spaces and more in a fraction of the size", bomb(LARGEST_UNPACKED)
    yield "endless", "stored blocks, none of them the last", b"\x78\x01" + (b"\0\x01\0\xfe\xff " * 1000)
    yield "wrong-block", "a type of block that there is not", b"\x78\x01\x07" + valid[3:]


def _texts() -> Iterator[tuple[str, str, bytes]]:
    for name, text in {
        "no-text": b"",
        "null": b"null",
        "list": b"[]",
        "object": b"{}",
        "cut-off": MANIFEST.canonical()[:-1],
        "two-objects": MANIFEST.canonical() * 2,
        "not-utf8": b'{"model":"\xff"}',
        "utf-16": MANIFEST.canonical().decode().encode("utf-16"),
        "byte-order-mark": b"\xef\xbb\xbf" + MANIFEST.canonical(),
        "raw-surrogate": world.manifest_text().replace(b'"tiny"', b'"\xed\xa0\x80"'),
        "key-twice": MANIFEST.canonical()[:-1] + b',"model":"another"}',
        "key-twice-inside": MANIFEST.canonical().replace(b'"steps":100', b'"steps":100,"steps":1'),
    }.items():
        yield name, "a text that is no manifest", deflate(text)
    for name, opening in {"lists": b"[", "objects": b'{"a":', "recipe": b'{"recipe":' + b"[" * 9}.items():
        yield (
            f"nested-{name}",
            "20,000 bytes of them, one in the other",
            deflate(opening * (20_000 // len(opening))),
        )
    for name, number in {
        "integer-of-5000-digits": b"9" * 5000,
        "integer-of-400-digits": b"9" * 400,
        "infinite": b"1e999",
        "minus-infinite": b"-1e999",
        "nan": b"NaN",
        "infinity": b"Infinity",
        "zero": b"0",
        "minus-zero": b"-0.0",
        "negative": b"-0.5",
        "too-small": b"1e-999",
        "text": b'"0.5"',
        "true": b"true",
        "long-fraction": b"0." + b"0" * 20_000 + b"1",
    }.items():
        text = MANIFEST.canonical().replace(b'"epsilon":0.00390625', b'"epsilon":' + number)
        yield f"epsilon-{name}", "an epsilon that is no positive number", deflate(text)
    for name, value in {
        "nan": b"NaN",
        "infinite": b"1e999",
        "surrogate": b'"\\ud800"',
        "5000-digits": b"9" * 5000,
    }.items():
        text = MANIFEST.canonical().replace(b'"steps":100', b'"steps":' + value)
        yield f"recipe-{name}", "a value that JSON's writers refuse, deep in the recipe", deflate(text)
    long = MANIFEST.canonical()[:-1] + b',"' + b"k" * 20_000 + b'":1}'
    yield "long-unknown-key", "a field of 20,000 characters that there is not", deflate(long)
    escape = MANIFEST.canonical()[:-1] + b',"\\u001b[2J":1}'
    yield "escape-in-a-key", "a field whose name a terminal would obey", deflate(escape)
    many = b'"digest":1,' * 2000
    yield (
        "errors-by-the-thousand",
        "a field 2,000 times",
        deflate(MANIFEST.canonical()[:-1] + b"," + many[:-1] + b"}"),
    )


def _fields() -> Iterator[tuple[str, str, bytes]]:
    tensor: dict[str, Any] = MANIFEST.tensors[0].model_dump(mode="json")
    limits: dict[str, Any] = MANIFEST.limits.model_dump()
    keys = [key.public.hex() for key in (world.ALICE, world.BOB)]
    for name, changes in {
        "format-1": {"format": 1},
        "format-float": {"format": 2.0},
        "run-short": {"run": "0" * 31},
        "run-upper-case": {"run": "A" * 32},
        "run-newline": {"run": "0" * 32 + "\n"},
        "owner-short": {"owner": "0" * 63},
        "owner-newline": {"owner": "0" * 64 + "\n"},
        "nonce-long": {"nonce": "0" * 33},
        "no-owner-but-invites": {"owner": ""},
        "mode-unknown": {"admission": {"mode": "nobody", "keys": []}},
        "open-with-keys": {"admission": {"mode": "open", "keys": keys}},
        "key-short": {"admission": {"mode": "keys", "keys": ["0" * 62]}},
        "no-tensors": {"tensors": []},
        "tensor-as-text": {"tensors": ["w"]},
        "shape-negative": {"tensors": [{**tensor, "shape": [-1, 2]}]},
        "shape-float": {"tensors": [{**tensor, "shape": [3.0, 2]}]},
        "shape-huge": {"tensors": [{**tensor, "shape": [10**40, 2]}]},
        "exponent-huge": {"tensors": [{**tensor, "exponent": 10**9}]},
        "exponent-small": {"tensors": [{**tensor, "exponent": -(10**9)}]},
        "family-unknown": {"tensors": [{**tensor, "family": "rank2"}]},
        "rate-negative": {"tensors": [{**tensor, "rate": -1.0}]},
        "rate-not-float32": {"tensors": [{**tensor, "rate": 0.1}]},
        "scale-65": {"scale_exponent": 65},
        "rounds-none": {"rounds": 0},
        "rounds-33-bits": {"rounds": 1 << 32},
        "start-with-nobody": {"start_with": 0},
        "lockstep-number": {"lockstep": 1},
        "rate-none": {"limits": {**limits, "learning_rate": 0.0}},
        "samples-256": {"limits": {**limits, "samples_per_message": 256}},
        "streams-none": {"limits": {**limits, "streams_per_key": 0}},
        "bytes-few": {"limits": {**limits, "bytes_per_second": 999}},
        "aggregation-unknown": {"aggregation": {"kind": "mean"}},
        "trim-half": {"aggregation": {"kind": "trimmed", "factor": 3.0, "trim": 0.5}},
        "recipe-list": {"recipe": []},
        "unknown-field": {"weights": []},
    }.items():
        yield name, "a run that there cannot be", deflate(world.manifest_text(**changes))


def large() -> dict[str, bytes]:
    """Manifests that are too large for files: each is made when it is needed."""
    half = LARGEST_UNPACKED - 1000
    text = MANIFEST.canonical()
    tensor = json.dumps(MANIFEST.tensors[0].model_dump(mode="json"))
    wrong = text.replace(b'"tensors":[', b'"tensors":[' + (tensor.replace("21", '"x"') + ",").encode() * 50_000)
    keys = {"mode": "keys", "keys": [f"{n:064x}" for n in range(4097)]}
    return {
        "too many keys": zlib.compress(world.manifest_text(admission=keys), 1),
        "beyond the largest": bytes((4 << 20) + 1),
        "a list of ten million empty lists": zlib.compress(b"[" + b"[]," * (half // 3) + b"[]]", 1),
        "a list of zeros": zlib.compress(b"[" + b"0," * (half // 2) + b"0]", 1),
        "objects of one key": zlib.compress(b"[" + b'{"":0},' * (half // 7) + b"{}]", 1),
        "one long text": zlib.compress(b'"' + b"a" * half + b'"', 1),
        "50,000 tensors that are wrong": zlib.compress(wrong, 1),
        "16 million lists, one in the other": zlib.compress(b"[" * half, 1),
    }
