"""Summaries of streams, by which two archives find out where they differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from shared_seed.ledger import Ledger
from shared_seed.messages import Stream

BUCKETS = 64
"""Groups of streams that two archives are compared by."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A summary of a part of the streams: how many messages, and a digest of their heads."""

    messages: int
    digest: bytes


class Buckets:
    """The streams of an archive in parts, each with a summary that is made when it is asked for.

    Args:
        ledgers: the archive's; whoever changes one must tell with :meth:`touch`.
    """

    def __init__(self, ledgers: Mapping[Stream, Ledger]) -> None:
        self._ledgers = ledgers
        # Not sets, whose order is another in every process.
        self._members: list[dict[Stream, None]] = [{} for _ in range(BUCKETS)]
        self._known: list[Bucket | None] = [None] * BUCKETS

    def touch(self, stream: Stream) -> None:
        """Note that a stream has come, has changed or has gone."""
        index = _index_of(stream)
        self._known[index] = None
        if stream in self._ledgers:
            self._members[index][stream] = None
        else:
            self._members[index].pop(stream, None)

    def levels(self, index: int) -> list[tuple[Stream, int, bytes]]:
        """Of each stream in a part: how many messages there are, and the head after them."""
        ledgers = self._ledgers
        return [(stream, len(ledgers[stream]), ledgers[stream].head) for stream in self._members[index]]

    def all(self) -> list[Bucket]:
        """The summary of every part."""
        return [self._bucket(index) for index in range(BUCKETS)]

    def digest(self) -> bytes:
        """16 bytes that are equal for equal messages."""
        return hashlib.blake2b(b"".join(bucket.digest for bucket in self.all()), digest_size=16).digest()

    def _bucket(self, index: int) -> Bucket:
        known = self._known[index]
        if known is None:
            levels = sorted((stream.to_bytes(), count, head) for stream, count, head in self.levels(index))
            text = b"".join(name + count.to_bytes(4, "little") + head for name, count, head in levels)
            total = sum(count for _, count, _ in levels)
            known = self._known[index] = Bucket(total, hashlib.blake2b(text, digest_size=8).digest())
        return known


def _index_of(stream: Stream) -> int:
    return (stream.peer[0] + stream.incarnation) % BUCKETS
