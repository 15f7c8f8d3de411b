"""Decoding a frame once, however many simulated peers hear it.

Decoding is a pure function of the bytes, so what the protocols do stays the same; only that a thousand of them in
one process share the results, which are immutable, or are never changed (version vectors).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from unittest import mock

from shared_seed.messages import Stream
from shared_seed.swarm import wire


class _Versions:
    """Remembers the last version vectors that were unpacked, by the identity of what they were unpacked from."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[int, tuple[dict[bytes, int], dict[Stream, int]]] = {}
        self._unpack = wire.unpack_version

    def __call__(self, version: dict[bytes, int]) -> dict[Stream, int]:
        known = self._known.get(id(version))
        if known is None:
            if len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            known = self._known[id(version)] = (version, self._unpack(version))
        return known[1]


@contextmanager
def shared_decoding(most: int) -> Iterator[None]:
    """While it lasts, ``wire`` remembers the last ``most`` frames that it has decoded."""
    decode = lru_cache(most)(wire.decode)
    with mock.patch.object(wire, "decode", decode), mock.patch.object(wire, "unpack_version", _Versions(most)):
        yield
