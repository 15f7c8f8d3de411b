"""One stream's messages, each chained to all before it.

The *head* of a stream is a hash of everything that it has said: ``head(n + 1) = BLAKE2b-256(head(n) || message
n)``, where ``head(0)`` hashes the run's seal and the stream. The writer signs a head instead of a message, so one
signature proves all messages up to it, and two signed heads that differ after equal ones prove that their writer
said two things.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared_seed.messages import Message, Stream

BLOCK = 64
"""Messages between two signatures that are kept."""

_PERSON = b"shared-seed head"


def first_head(seal: bytes, stream: Stream) -> bytes:
    """The 32 bytes that a stream's chain begins with."""
    return hashlib.blake2b(seal + stream.to_bytes(), digest_size=32, person=_PERSON).digest()


def chained(head: bytes, encoded: Iterable[bytes]) -> bytes:
    """The head after more messages."""
    for message in encoded:
        head = chained_by_one(head, message)
    return head


def chained_by_one(head: bytes, message: bytes) -> bytes:
    """The head after one more message."""
    return hashlib.blake2b(head + message, digest_size=32, person=_PERSON).digest()


@dataclass(frozen=True, slots=True)
class Stretch:
    """Encoded messages of one stream that follow each other, none beyond a block, and the signature of the head
    after the last.
    """

    start: int
    encoded: tuple[bytes, ...]
    signature: bytes


class Ledger:
    """A stream without gaps. What it is given must have been checked."""

    def __init__(self, seal: bytes, stream: Stream) -> None:
        self.stream = stream
        self.head = first_head(seal, stream)
        self.round = -1
        self._encoded: list[bytes] = []
        self._marks = [self.head]  # of the messages 0, BLOCK, 2 * BLOCK, ...
        self._signatures: dict[int, bytes] = {}  # by how many messages they are after

    def __len__(self) -> int:
        return len(self._encoded)

    def extend(self, encoded: Sequence[bytes], heads: Sequence[bytes], round_: int, signature: bytes) -> None:
        """Put the next messages in.

        Args:
            encoded: the messages.
            heads: after each of them.
            round_: of the last.
            signature: of the last head, or nothing.
        """
        first = BLOCK - 1 - len(self._encoded) % BLOCK
        self._encoded.extend(encoded)
        self.head, self.round = heads[-1], round_
        self._marks.extend(heads[first::BLOCK])
        if signature:
            self.sign(signature)

    def sign(self, signature: bytes) -> None:
        """Keep the signature of the present head; of earlier ones, those at the ends of blocks are kept."""
        count, last = len(self._encoded), next(reversed(self._signatures), 0)
        if last % BLOCK and last != count:
            del self._signatures[last]
        self._signatures[count] = signature

    def signature(self, count: int) -> bytes:
        """The signature of the head after the first ``count`` messages, where one is kept; else nothing."""
        return self._signatures.get(count, b"")

    def encoded(self, start: int, stop: int) -> Sequence[bytes]:
        """The encoded messages numbered in [start, stop)."""
        return self._encoded[start:stop]

    def messages(self, start: int = 0, stop: int | None = None) -> list[Message]:
        """The messages numbered in [start, stop)."""
        return [Message.decode(data) for data in self._encoded[start:stop]]

    def head_at(self, count: int) -> bytes:
        """The head after the first ``count`` messages."""
        if count == len(self):
            return self.head
        block = count // BLOCK
        return chained(self._marks[block], self._encoded[block * BLOCK : count])

    @property
    def marks(self) -> Sequence[bytes]:
        """The heads after 0, BLOCK, 2 * BLOCK, ... messages."""
        return self._marks

    def stretches(self, start: int, most: int) -> list[Stretch]:
        """From ``start`` as far as ``most`` messages and signatures reach, a stretch a block.

        What is left of a stream that was cut may have no signature at its end; it is given without.
        """
        found: list[Stretch] = []
        stop = min(len(self), start + most)
        while start < stop:
            end = min(stop, (start // BLOCK + 1) * BLOCK)
            signature = self.signature(end)
            if not signature and end < len(self):
                break
            found.append(Stretch(start, tuple(self._encoded[start:end]), signature))
            start = end
        return found

    def branch(self, start: int) -> Stretch | None:
        """From ``start`` to the nearest signature behind it."""
        for end in sorted(self._signatures):
            if end > start:
                return Stretch(start, tuple(self._encoded[start:end]), self._signatures[end])
        return None

    def proven(self, count: int, head: bytes) -> int:
        """How many of the first ``count`` messages are proven: all if they lead to ``head``, else as many as a
        kept signature is of.
        """
        if count <= len(self) and self.head_at(count) == head:
            return count
        return max((end for end in self._signatures if end <= count), default=0)

    def cut(self, count: int) -> list[Message]:
        """Take out what comes after the first ``count`` messages, and return it."""
        gone = self.messages(count)
        self.head = self.head_at(count)
        del self._encoded[count:]
        del self._marks[count // BLOCK + 1 :]
        self._signatures = {end: signature for end, signature in self._signatures.items() if end <= count}
        self.round = self.messages(count - 1)[0].round if count else -1
        return gone
