"""Damage to bytes that knows nothing of their meaning: flips, splices, repeats, cuts, and numbers at the edges."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

EDGES = (
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xc0",
    b"\xc4\x00",
    b"\xc6\xff\xff\xff\xff",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"\xca\x80\x00\x00\x00",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xcd\x00\x01",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xdd\xff\xff\xff\xff",
    b"\x91" * 64,
    b"\xed\xa0\x80",
    b"NaN",
    b"1e999",
    b"[" * 64,
    b'"\\ud800"',
)
"""Bytes that parsers stumble over: msgpack's and JSON's special values, long lengths, nesting."""


def _flip(chance: random.Random, data: bytearray) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _overwrite(chance: random.Random, data: bytearray) -> None:
    data[chance.randrange(len(data))] = chance.randrange(256)


def _edge(chance: random.Random, data: bytearray) -> None:
    at, edge = chance.randrange(len(data) + 1), chance.choice(EDGES)
    data[at : at + chance.choice((0, 1, len(edge)))] = edge


def _cut(chance: random.Random, data: bytearray) -> None:
    del data[chance.randrange(len(data)) :]


def _remove(chance: random.Random, data: bytearray) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.randint(1, 8)]


def _repeat(chance: random.Random, data: bytearray) -> None:
    at = chance.randrange(len(data))
    data[at:at] = data[at : at + chance.randint(1, 64)] * chance.randint(1, 4)


def _swap(chance: random.Random, data: bytearray) -> None:
    one, other = sorted(chance.randrange(len(data)) for _ in range(2))
    data[one], data[other] = data[other], data[one]


_WAYS: tuple[Callable[[random.Random, bytearray], None], ...]
_WAYS = (_flip, _overwrite, _edge, _cut, _remove, _repeat, _swap)


def mutated(chance: random.Random, seeds: Sequence[bytes], largest: int) -> bytes:
    """One of the seeds with some damage, at most ``largest`` bytes long; sometimes two of them joined."""
    data = bytearray(chance.choice(seeds))
    if chance.random() < 0.15:
        other = chance.choice(seeds)
        data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other) + 1) :]
    for _ in range(1 + int(chance.expovariate(0.5))):
        if data:
            chance.choice(_WAYS)(chance, data)
    return bytes(data[:largest])
