"""Who is in good standing: introductions, the owner's orders, proofs of lies, and what is held against whom."""

from __future__ import annotations

from shared_seed import identity
from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.errors import EquivocationError, MessageError, RefusedError
from shared_seed.messages import Stream
from shared_seed.proofs import Order
from shared_seed.swarm import wire
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.roster import Roster
from shared_seed.swarm.wire import State

MOST_FAULTS = 100
"""Faults of other peers that are remembered."""


class Standing:
    """What one peer knows of the others' keys, and what came of it.

    ``faults`` are sentences, oldest first, for people; ``refusal`` says why others will not have us, or is None.
    """

    def __init__(self, archive: Archive, roster: Roster) -> None:
        self.faults: dict[str, None] = {}
        self.refusal: str | None = None
        self._archive = archive
        self._roster = roster
        self._vouched: set[bytes] = set()

    # Keys

    def vouch(self, key: bytes) -> None:
        """Trust the public key of a peer that we have chosen ourselves."""
        self._vouched.add(key)

    def is_vouched(self, key: bytes) -> bool:
        """Whether we have chosen a peer with this public key."""
        return key in self._vouched

    def might_greet(self, curve: bytes) -> bool:
        """Whether a Curve25519 public key may say hello, and so show an invite."""
        return self._archive.admissions.might_greet(curve)

    def might_admit(self, curve: bytes) -> bool:
        """Whether a Curve25519 public key may publish and hear."""
        return self._archive.admissions.might_admit(curve) or curve in map(identity.curve_public, self._vouched)

    def check_sender(self, curve: bytes) -> None:
        """Revoking a key does not cut a connection that is there, so what comes over it is left unread.

        Raises:
            MessageError: the link's other end has a key that is out of the run.
        """
        if curve and curve in self._archive.out_links:
            raise MessageError("a frame over a link of a key that is out of the run")

    def check_peer(self, introduction: Introduction, stream: Stream) -> None:
        """Make sure that a stream is of the peer that introduces itself with it.

        Raises:
            MessageError: it is another's.
        """
        if introduction.peer(self._archive.run) != stream.peer:
            raise MessageError(f"stream {stream} is not of the peer that introduces itself with it")

    def check_hello(self, hello: wire.Hello, terms: Terms, curve: bytes) -> None:
        """Make sure that a greeting comes from somebody who may take part.

        Raises:
            MessageError: it is not of the key at the link's other end.
            RefusedError: the sender may not; the text is for him, and the fault is noted.
        """
        introduction = hello.guest.introduction()
        if curve and identity.curve_public(introduction.key) != curve:
            raise MessageError("a greeting in the name of another key than the link's")
        try:
            self._archive.admissions.check(introduction)
            if self._archive.is_out(introduction.key):
                raise RefusedError(
                    "the run's owner has banned your key, or another key has used your invite; ask the owner"
                )
            if hello.manifest_digest and hello.manifest_digest != terms.digest:
                raise RefusedError("your manifest differs from the run's; fetch the run's manifest and compare")
        except RefusedError as error:
            self.blame(f"key {identity.show(introduction.key)} was refused: {error}"[:500], MOST_FAULTS // 2)
            raise

    def introduce(self, introduction: Introduction, state: State) -> None:
        """Let a key and its peer in.

        Raises:
            MessageError: it is not admitted, and no relay that we have chosen: that writes nothing.
        """
        excluded = len(self._archive.admissions.excluded)
        try:
            self._archive.introduce(introduction)
        except RefusedError as error:
            if state is not State.RELAYING or not self.is_vouched(introduction.key):
                self.blame(f"key {identity.show(introduction.key)} is not admitted to this run", MOST_FAULTS // 2)
                raise MessageError(str(error)) from error
        if len(self._archive.admissions.excluded) > excluded:
            self._forget_out()

    # Statements

    def obey(self, order: Order, author: Author) -> bool:
        """Take in an order of the owner; whether it is new.

        Raises:
            MessageError: the owner has not signed it.
        """
        new = self._archive.accept_order(order)
        if new:
            self._forget_out()
            if order.banned and author.key and order.key == author.key.public:
                self.refusal = "the run's owner has banned this machine's key; ask them why"
        return new

    def believe(self, accusation: wire.Accusation) -> bool:
        """Take in a proof that a writer has lied; whether it is new.

        Raises:
            MessageError: it proves nothing, or its writer may not be in the run.
        """
        introduction, fork = accusation.guest.introduction(), accusation.fork
        stream = Stream.from_bytes(fork.stream)
        self.check_peer(introduction, stream)
        fork.check(introduction.key)
        self.introduce(introduction, State.LOADING)
        new = self._archive.accept_fork(fork)
        if new:
            self.blame(
                f"stream {stream} is proven to have published two different messages under number {fork.number}"
            )
        return new

    def accuse(self, error: EquivocationError, stream: Stream) -> list[bytes]:
        """Note a fork that we have found ourselves; what to tell everybody."""
        self.blame(str(error))
        accusation = self._accusation(stream)
        return [wire.encode_accusation(accusation)] if accusation else []

    def statements(self) -> list[bytes]:
        """Frames of all orders, forks and guests with invites that are known here."""
        accusations = [accusation for stream in self._archive.forks if (accusation := self._accusation(stream))]
        return [
            *(guest.encode() for guest in self._archive.guests()),
            *(order.encode() for order in self._archive.orders.values()),
            *map(wire.encode_accusation, accusations),
        ]

    def blame(self, fault: str, most: int = MOST_FAULTS) -> None:
        """Note a fault for people, unless so many are known."""
        if len(self.faults) < most:
            self.faults[fault] = None

    def turned_away(self, curve: bytes, where: str) -> None:
        """Note that a Curve25519 public key was refused; what peers do wrong keeps room."""
        self.blame(f"{where} was closed to somebody with the Curve25519 key {curve.hex()}", MOST_FAULTS // 2)

    def _accusation(self, stream: Stream) -> wire.Accusation | None:
        fork, introduction = self._archive.forks.get(stream), self._archive.introduction(stream)
        return wire.Accusation(fork, wire.Guest.of(introduction)) if fork and introduction else None

    def _forget_out(self) -> None:
        """Take peers whose keys are out of the run for gone."""
        self._roster.forget([stream for stream in self._roster.peers if not self._archive.counts(stream)])
