"""The set that a run is: messages, who may write them, and what has been taken out.

Everything in it grows only, or gives way by a rule that does not depend on order, so archives that know the same
statements are the same. What counts for the weights is:

- of every stream, the messages before the earliest fork that is proven;
- of no key that the owner has banned, or that has used an invite which admits another;
- of each key, no more than ``limits.streams_per_key`` streams, those with the smallest names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NoReturn

from shared_seed import identity
from shared_seed.admission import Admissions, Introduction
from shared_seed.buckets import Bucket, Buckets
from shared_seed.errors import EquivocationError, MessageError
from shared_seed.identity import Key
from shared_seed.ledger import BLOCK, Ledger, Stretch, chained, chained_by_one
from shared_seed.manifest import Manifest
from shared_seed.messages import Message, Stream
from shared_seed.news import News, Newsroom
from shared_seed.proofs import Fork, Order, sign_head, signed_head
from shared_seed.rules import Rules
from shared_seed.signed import Signed, Statement
from shared_seed.writers import Writers

MOST_ORDERS = 4096
"""Keys that orders may be about."""


class Archive:
    """The set of one run.

    Args:
        manifest: the run's terms; one without an owner is that of a private run, where nothing is signed.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.run = manifest.run_bytes
        self.seal = manifest.seal
        self.owner = bytes.fromhex(manifest.owner)
        self.rules = Rules(manifest)
        self.admissions = Admissions(self.seal, self.owner, manifest.admission)
        self.orders: dict[bytes, Order] = {}
        self.forks: dict[Stream, Fork] = {}
        self._ledgers: dict[Stream, Ledger] = {}
        self._writers = Writers(self.run, self.admissions, manifest.limits.streams_per_key)
        self._count = 0
        self._buckets = Buckets(self._ledgers)
        self._news = Newsroom()
        self._proven: bytes | None = None
        self._out_links: frozenset[bytes] | None = None

    # What is here

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Message]:
        """All messages, whether they count or not: streams in order of first arrival, each in order of number."""
        for ledger in self._ledgers.values():
            yield from ledger.messages()

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that have messages here."""
        return tuple(self._ledgers)

    def count(self, stream: Stream) -> int:
        """How many messages of a stream are here."""
        ledger = self._ledgers.get(stream)
        return len(ledger) if ledger else 0

    def head(self, stream: Stream, count: int) -> bytes | None:
        """The head of a stream after so many messages, if that many are here."""
        ledger = self._ledgers.get(stream)
        return ledger.head_at(count) if ledger and count <= len(ledger) else None

    def marks(self, stream: Stream) -> Sequence[bytes]:
        """The heads at the ends of a stream's blocks; see :attr:`Ledger.marks`."""
        ledger = self._ledgers.get(stream)
        return ledger.marks if ledger else ()

    def stretches(self, stream: Stream, start: int, most: int) -> list[Stretch]:
        """Messages of a stream to send; see :meth:`Ledger.stretches`."""
        ledger = self._ledgers.get(stream)
        return ledger.stretches(start, most) if ledger else []

    def signature(self, stream: Stream, count: int) -> bytes:
        """The signature of a stream's head after so many messages, where one is kept; else nothing."""
        ledger = self._ledgers.get(stream)
        return ledger.signature(count) if ledger else b""

    def last(self, stream: Stream) -> Signed | None:
        """The last message of a stream that is here."""
        ledger, count = self._ledgers.get(stream), self.count(stream)
        return Signed(ledger.messages(count - 1)[0], ledger.signature(count)) if ledger else None

    def introduction(self, stream: Stream) -> Introduction | None:
        """Who a stream's peer said it was."""
        return self._writers.introductions.get(stream.peer)

    def counts(self, stream: Stream) -> bool:
        """Whether a stream's messages move the weights."""
        introduction = self._writers.introductions.get(stream.peer)
        return introduction is None or not self.is_out(introduction.key)

    def is_out(self, key: bytes) -> bool:
        """Whether what a key writes is left out, by ban or because its invite admits another."""
        return self._is_banned(key) or key in self.admissions.excluded

    @property
    def out(self) -> set[bytes]:
        """The keys of which :meth:`is_out` is true."""
        return {key for key, order in self.orders.items() if order.banned} | self.admissions.excluded

    @property
    def out_links(self) -> frozenset[bytes]:
        """The Curve25519 public keys that belong to the keys that are out."""
        if self._out_links is None:
            self._out_links = frozenset(identity.curve_public(key) or b"" for key in self.out)
        return self._out_links

    def effective(self) -> list[Message]:
        """The messages that count, in the order of :meth:`__iter__`."""
        ledgers = self._ledgers.items()
        return [m for stream, ledger in ledgers if self.counts(stream) for m in ledger.messages()]

    # Comparing

    def buckets(self) -> list[Bucket]:
        """Summaries of all parts; archives whose summaries are equal hold equal messages."""
        return self._buckets.all()

    def digest(self) -> bytes:
        """16 bytes that are equal for equal messages."""
        return self._buckets.digest()

    def statements_digest(self) -> bytes:
        """8 bytes that are equal for equal orders, ends of streams and guests with invites."""
        if self._proven is None:
            said: list[Statement] = [*self.orders.values(), *self.guests(), *self.forks.values()]
            hashes = sorted(hashlib.blake2b(s.encode(), digest_size=16).digest() for s in said)
            self._proven = hashlib.blake2b(b"".join(hashes), digest_size=8).digest()
        return self._proven

    def guests(self) -> list[Introduction]:
        """Introductions that show an invite; see :meth:`Writers.guests`."""
        return self._writers.guests()

    def has_room(self, stream: Stream) -> bool:
        """Whether a stream is not one too many of its key."""
        return self._writers.has_room(stream)

    def levels(self, index: int) -> list[tuple[Stream, int, bytes]]:
        """Of each stream in a part: how many messages there are, and the head after them."""
        return self._buckets.levels(index)

    # Taking in. What raises has changed nothing.

    def introduce(self, introduction: Introduction) -> bool:
        """Learn who a peer is, and which invite it shows; ``False`` if that was known.

        Raises:
            RefusedError: the run does not admit this key.
            MessageError: there are too many peers, of this key or in all.
        """
        new, excluded = self._writers.introduce(introduction)
        if excluded is not None and not self._is_banned(excluded):
            self._change_key(excluded, withdrawn=True)
        if new is not None:
            self._state(new)
        return new is not None

    def publish(self, message: Message, key: Key | None) -> Signed:
        """Put our own next message in, signed.

        Raises:
            MessageError: the manifest does not allow it, or it is not the stream's next.
        """
        ledger, encoded = self._ledger(message.stream), message.encode()
        head = self._next_head(ledger, message, encoded)
        signed = Signed(message, sign_head(key, head) if key else b"")
        self._extend(ledger, [signed], [encoded], [head])
        return signed

    def accept(self, signed: Signed) -> bool:
        """Take in somebody's message; ``False`` for one that was here, or that comes after one that is not here.

        Raises:
            MessageError: its writer is not known, has not signed it, or may not say this.
            EquivocationError: the writer has signed something else under this number; the stream ends there now.
        """
        message = signed.message
        ledger = self._ledger(message.stream)
        encoded = message.encode()
        if message.number < len(ledger):
            if ledger.encoded(message.number, message.number + 1)[0] != encoded:
                self._meet(ledger, Stretch(message.number, (encoded,), signed.signature))
            return False
        if message.number > len(ledger):
            return False  # It proves nothing without those before it.
        head = self._next_head(ledger, message, encoded)
        self._check_signature(message.stream, head, signed.signature)
        self._extend(ledger, [signed], [encoded], [head])
        return True

    def accept_stretch(self, stream: Stream, stretch: Stretch) -> int:
        """Take in a part of a stream; how many of its messages were new.

        Raises:
            MessageError: it does not continue what is here, or its end is not signed.
            EquivocationError: its writer has signed something else before; the stream ends there now.
        """
        ledger = self._ledger(stream)
        if stretch.start > len(ledger):
            return 0
        if stretch.start % BLOCK + len(stretch.encoded) > BLOCK:
            raise MessageError("a stretch that goes beyond its block")
        known = ledger.encoded(stretch.start, stretch.start + len(stretch.encoded))
        if list(known) != list(stretch.encoded[: len(known)]):
            self._meet(ledger, stretch)
        fresh, signature = stretch.encoded[len(known) :], stretch.signature
        fork = self.forks.get(stream)
        if fork is not None and len(ledger) + len(fresh) > fork.number:
            fresh, signature = fresh[: max(0, fork.number - len(ledger))], b""
        if not fresh:
            return 0
        self.rules.check_room(self._count + len(fresh))
        messages, heads = self.rules.follow(ledger, fresh)
        stop = len(ledger) + len(fresh)
        if fork is not None and stop % BLOCK and (stop, heads[-1]) == (fork.number, fork.head):
            signature = b""  # The fork proves as much.
        else:
            self._check_signature(stream, heads[-1], signature)
        said = [*map(Signed, messages[:-1]), Signed(messages[-1], signature)]
        self._extend(ledger, said, fresh, heads)
        return len(messages)

    def accept_order(self, order: Order) -> bool:
        """Obey the owner; ``False`` for an order that is known or overruled.

        Raises:
            MessageError: the owner has not signed it.
        """
        before = self.orders.get(order.key)
        if before is not None and before.rank >= order.rank:
            return False
        if not self.owner or not identity.verify(self.owner, order.signed(self.seal), order.signature):
            raise MessageError("an order that the run's owner has not signed")
        if order.key == self.owner or (before is None and len(self.orders) >= MOST_ORDERS):
            raise MessageError("an order about the owner's own key, or one too many")
        was_banned = self._is_banned(order.key)
        self.orders[order.key] = order
        self._state(order)
        if order.banned != was_banned and order.key not in self.admissions.excluded:
            self._change_key(order.key, withdrawn=order.banned)
        return True

    def accept_fork(self, fork: Fork) -> bool:
        """End a stream before its writer forked it; ``False`` if it is known to end earlier, or there by a proof
        that goes before this one, so that everybody keeps the same.

        Raises:
            MessageError: it is not a proof, of a writer that is not known, or of one stream too many.
        """
        stream = Stream.from_bytes(fork.stream)
        known = self.forks.get(stream)
        if known is not None and known.rank <= fork.rank:
            return False
        fork.check(self._writers.key_of(stream))
        self._let_in(stream)
        self.forks[stream] = fork
        self._state(fork)
        ledger = self._ledgers.get(stream)
        if ledger is not None:
            # What the fork does not prove, and no signature does, nobody else would believe us.
            self._cut(ledger, ledger.proven(fork.number, fork.head))
        return True

    def hold_at_most(self, messages: int) -> None:
        """Take in no more once so many are here; what is not taken in is as if it had not been heard."""
        self.rules.most = messages

    def take(self) -> News:
        """What is new since the last call. A message that came and went meanwhile is in neither list."""
        return self._news.take()

    @property
    def untaken(self) -> int:
        """How many messages :meth:`take` would tell of."""
        return self._news.untaken

    @property
    def has_news(self) -> bool:
        """Whether :meth:`take` would tell of anything, be it for the log alone."""
        return not self._news.is_empty

    # Inside

    def _state(self, statement: Statement) -> None:
        self._proven = self._out_links = None
        self._news.statements.append(statement)

    def _ledger(self, stream: Stream) -> Ledger:
        return self._ledgers.get(stream) or Ledger(self.seal, stream)

    def _is_banned(self, key: bytes) -> bool:
        order = self.orders.get(key)
        return order is not None and order.banned

    def _check_signature(self, stream: Stream, head: bytes, signature: bytes) -> None:
        if self.owner and not identity.verify(self._writers.key_of(stream), signed_head(head), signature):
            raise MessageError(f"stream {stream} has something that its writer has not signed")

    def _next_head(self, ledger: Ledger, message: Message, encoded: bytes) -> bytes:
        """The head after a message that may be the next of its stream."""
        self.rules.check_next(ledger, message, self.forks.get(message.stream))
        self.rules.check_room(self._count + 1)
        return chained_by_one(ledger.head, encoded)

    def _extend(
        self, ledger: Ledger, said: Sequence[Signed], encoded: Sequence[bytes], heads: Sequence[bytes]
    ) -> None:
        """Put a stream's next messages in, the last one with a signature: all of them or none."""
        stream = ledger.stream
        if stream not in self._ledgers:
            self._let_in(stream)
            self._ledgers[stream] = ledger
        ledger.extend(encoded, heads, said[-1].message.round, said[-1].signature)
        self._count += len(said)
        self._buckets.touch(stream)
        self._news.heard.extend(said)
        if self.counts(stream):
            for signed in said:
                self._news.bring(signed.message)

    def _let_in(self, stream: Stream) -> None:
        """Make room for a stream, by taking out another as if it had never been heard of.

        Raises:
            MessageError: its key, or the run, has too many.
        """
        surplus = self._writers.let_in(stream)
        if surplus is None:
            return
        if self.forks.pop(surplus, None) is not None:
            self._proven = None
        if surplus in self._ledgers:
            self._cut(self._ledgers[surplus], 0)

    def _cut(self, ledger: Ledger, count: int) -> None:
        """Take out what a stream has after its first ``count`` messages."""
        if count == len(ledger):
            return
        stream, gone = ledger.stream, ledger.cut(count)
        self._count -= len(gone)
        if not count:
            del self._ledgers[stream]
        self._buckets.touch(stream)
        if self.counts(stream):
            for message in gone:
                self._news.withdraw(message)
        self._news.unhear(gone)

    def _change_key(self, key: bytes, withdrawn: bool) -> None:
        """Take out, or bring back, all that a key has written."""
        change = self._news.withdraw if withdrawn else self._news.bring
        for stream in self._writers.streams_of(key):
            for message in self._ledgers[stream].messages() if stream in self._ledgers else ():
                change(message)

    def _meet(self, ledger: Ledger, theirs: Stretch) -> NoReturn:
        """Compare a stretch with what is here of its stream, and differs.

        Raises:
            MessageError: its writer has not signed it, so it says nothing about him.
            EquivocationError: he has; the fork is noted.
        """
        stream = ledger.stream
        head = ledger.head_at(theirs.start)
        self._check_signature(stream, chained(head, theirs.encoded), theirs.signature)
        ours = ledger.encoded(theirs.start, theirs.start + len(theirs.encoded))
        parted = next(i for i, (one, other) in enumerate(zip(ours, theirs.encoded, strict=False)) if one != other)
        number = theirs.start + parted
        mine, fork = ledger.branch(number), self.forks.get(stream)
        if mine is None and fork is not None:  # No signature is left of ours; the later fork has one.
            rest = fork.one.encoded(stream, fork.number)
            mine = Stretch(number, (*ledger.encoded(number, len(ledger)), *rest), fork.one.signature)
        if mine is not None and self.owner:
            branch = Stretch(number, theirs.encoded[parted:], theirs.signature)
            self.accept_fork(Fork.of(stream, ledger.head_at(number), mine, branch))
        raise EquivocationError(f"stream {stream} published two different messages under number {number}")
