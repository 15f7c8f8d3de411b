"""Runs with an owner, keys, and what they sign: for tests of the archive and of the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared_seed.admission import Introduction, Invite
from shared_seed.archive import Archive
from shared_seed.identity import Key
from shared_seed.ledger import BLOCK, Stretch, chained, first_head
from shared_seed.manifest import Admission, Limits, Manifest, TensorSpec
from shared_seed.messages import Message, Stream
from shared_seed.noise import Family
from shared_seed.proofs import Fork, Order, sign_head
from shared_seed.signed import Signed

OWNER = Key(b"owner".ljust(32, b"."))
ANN, BEN, CLO = (Key(name.ljust(32, b".")) for name in (b"ann", b"ben", b"clo"))


def manifest(mode: str = "open", streams_per_key: int = 1024, rounds: int = 1 << 20, nonce: int = 1) -> Manifest:
    """The terms of a tiny run that OWNER began."""
    return Manifest(
        owner=OWNER.public.hex(),
        nonce=f"{nonce:032x}",
        admission=Admission(mode=mode),  # type: ignore[arg-type]
        run="0123456789abcdef0123456789abcdef",
        model="tiny",
        frozen_digest="c0ffee",
        tensors=(TensorSpec(name="w", shape=(3, 2), family=Family.DENSE, exponent=21, digest="ab"),),
        epsilon=2.0**-8,
        scale_exponent=0,
        rounds=rounds,
        start_with=1,
        limits=Limits(learning_rate=0.5, samples_per_message=4, streams_per_key=streams_per_key),
    )


TERMS = manifest()
PRIVATE = TERMS.model_copy(update={"owner": "", "nonce": ""})


def introduction(key: Key, label: int = 0, ticket: bytes = b"") -> Introduction:
    return Introduction(key.public, label.to_bytes(8, "little"), ticket)


def stream_of(key: Key, label: int = 0, incarnation: int = 0) -> Stream:
    return Stream(introduction(key, label).peer(TERMS.run_bytes), incarnation)


def invite(number: int, terms: Manifest) -> Invite:
    """The same invite every time."""
    ticket = Key(number.to_bytes(32, "little"))
    return Invite(terms.seal, ticket.seed, OWNER.sign(b"shared-seed invite" + terms.seal + ticket.public))


def ban(key: Key, serial: int = 1, banned: bool = True, terms: Manifest = TERMS, by: Key = OWNER) -> Order:
    return Order.issue(by, terms.seal, serial, key.public, banned)


class Writer:
    """Writes one stream, and remembers all that it has written and signed."""

    def __init__(self, key: Key, stream: Stream, terms: Manifest = TERMS) -> None:
        self.key, self.stream, self.terms = key, stream, terms
        self.signed: list[Signed] = []
        self.heads = [first_head(terms.seal, stream)]

    def branched(self, number: int) -> Writer:
        """The same writer, who has forgotten what it wrote from ``number`` on."""
        other = Writer(self.key, self.stream, self.terms)
        other.signed, other.heads = self.signed[:number], self.heads[: number + 1]
        return other

    def write(self, code: int = 0x38, round_: int | None = None) -> Signed:
        number = len(self.signed)
        return self.extend(Message(self.stream, number, number if round_ is None else round_, 0.25, bytes([code])))

    def extend(self, message: Message) -> Signed:
        self.heads.append(chained(self.heads[-1], [message.encode()]))
        self.signed.append(Signed(message, sign_head(self.key, self.heads[-1])))
        return self.signed[-1]

    def more(self, count: int, code: int = 0x38) -> Writer:
        for _ in range(count):
            self.write(code)
        return self

    @property
    def messages(self) -> list[Message]:
        return [signed.message for signed in self.signed]

    def stretch(self, start: int, stop: int) -> Stretch:
        encoded = tuple(message.encode() for message in self.messages[start:stop])
        return Stretch(start, encoded, self.signed[stop - 1].signature)

    def stretches(self, start: int = 0) -> list[Stretch]:
        """From ``start`` to the end, a stretch a block."""
        ends = [*range((start // BLOCK + 1) * BLOCK, len(self.signed), BLOCK), len(self.signed)]
        starts = [start, *ends[:-1]]
        return [self.stretch(*pair) for pair in zip(starts, ends, strict=True)]

    def fork(self, other: Writer, number: int, mine: int | None = None, theirs: int | None = None) -> Fork:
        """The proof that this writer and its other self part with a message; branches of 1 or so many messages."""
        one = self.stretch(number, mine or number + 1)
        return Fork.of(self.stream, self.heads[number], one, other.stretch(number, theirs or number + 1))


def writer(key: Key, count: int = 0, label: int = 0, incarnation: int = 0, terms: Manifest = TERMS) -> Writer:
    return Writer(key, stream_of(key, label, incarnation), terms).more(count)


def archive(
    *signed: Iterable[Signed], terms: Manifest = TERMS, keys: Sequence[Key] = (OWNER, ANN, BEN, CLO)
) -> Archive:
    """An archive that knows these keys' first peers, and these messages."""
    made = Archive(terms)
    if terms.owner:
        for key in keys:
            made.introduce(introduction(key))
    for each in (one for some in signed for one in some):
        assert made.accept(each)
    made.take()
    return made
