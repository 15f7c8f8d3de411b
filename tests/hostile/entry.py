"""An entry of the corpus, and the points of Curve25519 that make signatures say too much."""

from __future__ import annotations

from dataclasses import dataclass

from shared_seed.identity import Key

ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the group that Ed25519 signs in (RFC 8032, section 5.1)."""

SMALL_ORDER = {
    "zero": bytes(32),
    "identity": b"\x01" + bytes(31),
    "order-2": b"\xec" + b"\xff" * 30 + b"\x7f",
    "order-8": bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
}
"""Keys for which anybody can sign anything where the verifier does not look."""


@dataclass(frozen=True)
class Entry:
    """One hostile input.

    ``folder`` says what reads it; ``way`` how a frame arrives: "published", "link" or "dialled"; ``refusal`` is
    the name of the error, empty where it is passed over.
    """

    folder: str
    name: str
    what: str
    data: bytes
    refusal: str = "MessageError"
    way: str = "link"


def not_reduced(signature: bytes) -> bytes:
    """The same signature with the group's order added to its second half: equal, but not the one form."""
    number = int.from_bytes(signature[32:], "little") + ORDER
    return signature[:32] + number.to_bytes(32, "little")


def sign(key: Key, text: bytes) -> bytes:
    """A signature that is valid but for its form."""
    return not_reduced(key.sign(text))
