"""A message as it travels and as it is stored: with its writer's signature."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import overload

from shared_seed.admission import Introduction
from shared_seed.errors import MessageError
from shared_seed.identity import SIGNATURE_SIZE
from shared_seed.messages import KIND, LARGEST, SMALLEST, Message
from shared_seed.proofs import Fork, Order

SIGNED_KIND = 0x04
"""First byte of an encoded message with a signature."""

Statement = Introduction | Order | Fork
"""What a run knows beside messages."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A message and the signature, 64 bytes, of its stream's head after it (:mod:`shared_seed.ledger`); without
    one in a private run, and in logs wherever a later signature proves the message too.
    """

    message: Message
    signature: bytes = b""

    def encode(self) -> bytes:
        """The canonical bytes, as sent and as stored."""
        encoded = self.message.encode()
        return bytes([SIGNED_KIND]) + encoded[1:] + self.signature if self.signature else encoded

    @classmethod
    def decode(cls, data: bytes) -> Signed:
        """Parse strictly.

        Raises:
            MessageError: the bytes are not exactly one message, with or without a signature.
        """
        if not data or data[0] != SIGNED_KIND:
            return cls(Message.decode(data))
        if not SMALLEST + SIGNATURE_SIZE <= len(data) <= LARGEST + SIGNATURE_SIZE:
            raise MessageError(f"a signed message of {len(data)} bytes")
        message, signature = parts(data)
        return cls(Message.decode(message), signature)


class Records:
    """Encoded messages with or without signatures, like a list of :class:`Signed`; each is decoded when it is
    looked at, since a decoded one takes five times the memory.
    """

    def __init__(self, payloads: Iterable[bytes] = ()) -> None:
        """Of what :meth:`Signed.encode` gave."""
        self.payloads = list(payloads)

    @classmethod
    def of(cls, said: Iterable[Signed] | Records) -> Records:
        """The same messages."""
        return said if isinstance(said, Records) else cls(signed.encode() for signed in said)

    def extend(self, said: Iterable[Signed]) -> None:
        """Put more at the end."""
        self.payloads.extend(signed.encode() for signed in said)

    def __len__(self) -> int:
        return len(self.payloads)

    def __iter__(self) -> Iterator[Signed]:
        return map(Signed.decode, self.payloads)

    @overload
    def __getitem__(self, index: int) -> Signed: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Signed | Records:
        found = self.payloads[index]
        return Signed.decode(found) if isinstance(found, bytes) else Records(found)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Records | list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


def parts(payload: bytes) -> tuple[bytes, bytes]:
    """The encoded message and the signature, or nothing, in what :meth:`Signed.encode` gave."""
    if payload[0] != SIGNED_KIND:
        return payload, b""
    return bytes([KIND]) + payload[1:-SIGNATURE_SIZE], payload[-SIGNATURE_SIZE:]
