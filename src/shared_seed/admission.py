"""Who may take part in a run: keys, introductions and invites; no sockets, no clock.

An *invite* is a secret that the owner of a run hands to one person. It turns that person's public key into a
*ticket*, which everybody can check and which is of no use to another key, in another run, or without the owner.
``docs/format.md`` gives the bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import zlib
from dataclasses import dataclass, field, replace
from functools import lru_cache

from shared_seed.errors import MessageError, RecipeError, RefusedError
from shared_seed.identity import KEY_SIZE, SIGNATURE_SIZE, Key, curve_public, show, verify
from shared_seed.manifest import Admission

INTRODUCTION_KIND = 0x05
"""First byte of an encoded introduction."""

LABEL_SIZE = 8
TICKET_SIZE = KEY_SIZE + 3 * SIGNATURE_SIZE
"""Bytes of a peer's label and of a ticket."""

_INVITE = b"shared-seed invite"
_GUEST = b"shared-seed guest"
_ACCEPT = b"shared-seed accept"
_PERSON = b"shared-seed peer"

_VERSION = 1
_TOKEN = struct.Struct("<B32s64s16s")
_CHECK = struct.Struct("<I")
_TICKET = struct.Struct(f"{KEY_SIZE}s" + 3 * f"{SIGNATURE_SIZE}s")
_TEXT = re.compile(r"[A-Za-z0-9_-]{156}")


@dataclass(frozen=True, slots=True)
class Introduction:
    """Whose streams those of a peer are.

    ``key`` is the peer's public key, 32 bytes; ``label`` 8 bytes that tell apart the peers of one key; ``ticket``
    224 bytes from :meth:`Invite.admit`, or none.
    """

    key: bytes
    label: bytes
    ticket: bytes = b""

    def __post_init__(self) -> None:
        sizes = (len(self.key), len(self.label), len(self.ticket))
        if sizes[:2] != (KEY_SIZE, LABEL_SIZE) or sizes[2] not in (0, TICKET_SIZE):
            raise MessageError(
                f"an introduction has a key of {KEY_SIZE} bytes, a label of {LABEL_SIZE} and a ticket of 0 or "
                f"{TICKET_SIZE}; got {sizes[0]}, {sizes[1]} and {sizes[2]}"
            )

    def peer(self, run: bytes) -> bytes:
        """The 12 bytes, in the identifiers of streams, that only this key and label have in a run (16 bytes)."""
        content = run + self.key + self.label
        return hashlib.blake2b(content, digest_size=12, person=_PERSON).digest()

    def encode(self) -> bytes:
        """41 bytes, or 265 with a ticket."""
        return bytes([INTRODUCTION_KIND]) + self.key + self.label + self.ticket

    @classmethod
    def decode(cls, data: bytes) -> Introduction:
        """Parse strictly.

        Raises:
            MessageError: the bytes are not exactly one introduction.
        """
        if not data or data[0] != INTRODUCTION_KIND:
            raise MessageError("not an introduction")
        key, label = data[1 : 1 + KEY_SIZE], data[1 + KEY_SIZE : 1 + KEY_SIZE + LABEL_SIZE]
        return cls(key, label, data[1 + KEY_SIZE + LABEL_SIZE :])


@dataclass(frozen=True, slots=True)
class Invite:
    """A secret that admits one key to one run.

    ``run`` is the run's 16 bytes, ``seed`` the ticket's secret (32), ``signature`` the owner's (64), of the run
    and of the public key that belongs to the secret. ``str`` gives the token to hand out.
    """

    run: bytes
    seed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def issue(cls, owner: Key, run: bytes) -> Invite:
        """A new invite to the run of this owner."""
        ticket = Key.fresh()
        return cls(run, ticket.seed, owner.sign(_INVITE + run + ticket.public))

    def __str__(self) -> str:
        content = _TOKEN.pack(_VERSION, self.seed, self.signature, self.run)
        return base64.urlsafe_b64encode(content + _CHECK.pack(zlib.crc32(content))).decode()

    @classmethod
    def parse(cls, text: str) -> Invite:
        """The invite that ``str`` wrote; spaces and line ends, which mail programs put in, are left out.

        Raises:
            RecipeError: it is not a whole token, has a typing error, or is of another version.
        """
        token = "".join(text.split())
        if not _TEXT.fullmatch(token):
            raise RecipeError(
                f"the invite has {len(token)} characters, {token[:8]!r} and so on; expected the 156 letters, "
                "digits, '-' and '_' that `shared-seed invite` printed for the run's owner; copy the whole token"
            )
        data = base64.urlsafe_b64decode(token)
        content, check = data[: _TOKEN.size], data[_TOKEN.size :]
        if _CHECK.pack(zlib.crc32(content)) != check:
            raise RecipeError(
                "the invite has a typing error: its checksum does not fit; copy the token again from what the "
                "run's owner sent"
            )
        version, seed, signature, run = _TOKEN.unpack(content)
        if version != _VERSION:
            raise RecipeError(
                f"the invite is of version {version}, this release reads version {_VERSION}; install the release "
                "that the run's owner has"
            )
        return cls(run, seed, signature)

    def admit(self, key: Key, run: bytes) -> bytes:
        """The ticket, 224 bytes, of a key, which signs it too: nobody can use an invite in another's name.

        Raises:
            RecipeError: the invite is to another run.
        """
        if run != self.run:
            raise RecipeError(
                f"the invite is to run {self.run.hex()}, but this is run {run.hex()}; ask the owner of this run "
                "for an invite, or join the other one"
            )
        ticket = Key(self.seed)
        holder = ticket.sign(_GUEST + run + key.public)
        return ticket.public + self.signature + holder + key.sign(_ACCEPT + run + ticket.public)


@lru_cache(4096)  # Three signatures take 170 microseconds, and every stream of a peer shows the same ticket.
def is_ticket(ticket: bytes, key: bytes, run: bytes, owner: bytes) -> bool:
    """Whether a ticket, 224 bytes, admits a public key to a run of an owner."""
    public, *signatures = _TICKET.unpack(ticket)
    texts = ((owner, _INVITE + run + public), (public, _GUEST + run + key), (key, _ACCEPT + run + public))
    return all(verify(signer, text, by) for (signer, text), by in zip(texts, signatures, strict=True))


class Admissions:
    """Who may take part in one run, and who has used which invite.

    What is excluded follows from the set of introductions noted, whatever their order, and only ever grows.

    Args:
        run: the run's 16 bytes.
        owner: the owner's public key, or no bytes where there is none.
        admission: as in the manifest.
    """

    def __init__(self, run: bytes, owner: bytes, admission: Admission) -> None:
        self.excluded: set[bytes] = set()
        self._run, self._owner, self._mode = run, owner, admission.mode
        self._listed = frozenset({owner} - {b""}) | {bytes.fromhex(key) for key in admission.keys}
        self._holders: dict[bytes, bytes] = {}  # a ticket's public key: the smallest key that has shown it
        # A key and its negative have one Curve25519 key, so that one of them may be out and the other in.
        self._links: dict[bytes, set[bytes]] = {}
        for key in self._listed:
            self._let_in(key)

    def check(self, introduction: Introduction) -> None:
        """Make sure that an introduction admits to the run, whatever others there are.

        Raises:
            RefusedError: it does not; says what to do.
        """
        key, ticket = introduction.key, introduction.ticket
        if self._mode == "open" or key in self._listed:
            return
        owner = show(self._owner) or "nobody"
        if self._mode == "keys":
            raise RefusedError(
                f"this run admits listed keys alone, and yours, {show(key)}, is not among them; send the run's "
                f"owner, {owner}, what `shared-seed key` prints on your machine, and ask to be listed in the next "
                "run (`shared-seed run --key`)"
            )
        if not ticket:
            raise RefusedError(
                f"this run admits by invite, and your key, {show(key)}, came without one; ask the run's owner, "
                f"{owner}, for an invite, which `shared-seed invite` prints, and join with --invite TOKEN"
            )
        if not is_ticket(ticket, key, self._run, self._owner):
            raise RefusedError(
                f"your invite does not admit your key, {show(key)}, to this run; expected one that the run's "
                f"owner, {owner}, has signed for it; ask for a new invite and join with --invite TOKEN"
            )

    def essential(self, introduction: Introduction) -> Introduction:
        """The introduction, without a ticket that admits nobody who would not be admitted anyway.

        Raises:
            RefusedError: the introduction does not admit to the run.
        """
        self.check(introduction)
        needed = self._mode == "invite" and introduction.key not in self._listed
        return introduction if needed else replace(introduction, ticket=b"")

    def note(self, introduction: Introduction) -> bytes | None:
        """Note who has used an invite, which admits one key: of several that show it, the smallest stays.

        The owner and listed keys need no invite; they use none up, and are never excluded.

        Returns:
            the key, this or another, that this introduction adds to ``excluded``; ``None`` if it adds none.

        Raises:
            RefusedError: the introduction does not admit to the run.
        """
        self.check(introduction)
        key, ticket = introduction.key, introduction.ticket[:KEY_SIZE]
        if self._mode != "invite" or key in self._listed:
            return None
        holder = self._holders.get(ticket, key)
        stays, goes = min(holder, key), max(holder, key)
        self._holders[ticket] = stays
        if stays not in self.excluded:
            self._let_in(stays)
        if goes == stays or goes in self.excluded:
            return None
        self.excluded.add(goes)
        self._links.get(curve_public(goes) or b"", set()).discard(goes)
        return goes

    def might_greet(self, curve: bytes) -> bool:
        """Whether a link of this Curve25519 key, 32 bytes, may say hello: where there are invites, it may show
        one.
        """
        return self._mode == "invite" or self.might_admit(curve)

    def might_admit(self, curve: bytes) -> bool:
        """Whether a link of this Curve25519 key, 32 bytes, may connect to the sockets of gradients.

        Where the run is not open, these are the owner's, the listed keys' and those that were noted and are not
        excluded.
        """
        return self._mode == "open" or bool(self._links.get(curve))

    def _let_in(self, key: bytes) -> None:
        curve = curve_public(key)
        if curve is not None:
            self._links.setdefault(curve, set()).add(key)
