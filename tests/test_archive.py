"""The archive: the same statements give the same archive, in whatever order and parts they come."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from shared_seed import history, log
from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.errors import EquivocationError, MessageError, RefusedError
from shared_seed.identity import Key
from shared_seed.ledger import BLOCK, Stretch, chained
from shared_seed.log import Contents
from shared_seed.manifest import Manifest
from shared_seed.messages import Message, Stream
from shared_seed.proofs import Fork, Order, sign_head
from shared_seed.signed import Signed
from swarming import (
    ANN,
    BEN,
    CLO,
    OWNER,
    PRIVATE,
    TERMS,
    Writer,
    archive,
    ban,
    introduction,
    invite,
    manifest,
    stream_of,
    writer,
)

Part = Introduction | Order | Fork | Signed | tuple[Stream, Stretch]
INVITING = manifest("invite", streams_per_key=2)
SIGNATURE = OWNER.sign(b"")


def give(to: Archive, part: Part) -> bool:
    """Deliver a statement; whether it was taken in, or led to a proof."""
    try:
        if isinstance(part, Introduction):
            return to.introduce(part)
        if isinstance(part, Order):
            return to.accept_order(part)
        if isinstance(part, Fork):
            return to.accept_fork(part)
        if isinstance(part, Signed):
            return to.accept(part)
        return to.accept_stretch(*part) > 0
    except EquivocationError:
        return True
    except (MessageError, RefusedError):
        return False


class Replica:
    """What a session does with an archive: the multiset of applied messages, and a log that grows."""

    def __init__(self, archive: Archive, terms: Manifest) -> None:
        self.archive, self.terms = archive, terms
        self.applied: Counter[Message] = Counter()
        self.logged = Contents(terms, signature=SIGNATURE)

    def take(self) -> None:
        news = self.archive.take()
        assert not set(news.fresh) & set(news.withdrawn)
        self.applied.update(news.fresh)
        self.applied.subtract(news.withdrawn)
        self.logged.statements.extend(news.statements)
        self.logged.signed.extend(news.heard)
        assert set(self.applied.values()) <= {0, 1}
        assert +self.applied == Counter(self.archive.effective())

    def deliver(self, parts: Sequence[Part], taking: Callable[[], bool]) -> None:
        """Again and again, until nothing is new: what comes before its predecessor is not kept."""
        guests = {part.peer(self.archive.run): part for part in parts if isinstance(part, Introduction)}
        before: object = None
        while before != (now := (self.archive.digest(), self.archive.statements_digest())):
            before = now
            for part in parts:
                stream = stream_in(part)
                if stream is not None and stream.peer in guests:
                    give(self.archive, guests[stream.peer])  # which may have been forgotten, as in any chunk
                give(self.archive, part)
                if taking():
                    self.take()
        self.take()


def stream_in(part: Part) -> Stream | None:
    """The stream that a statement is about, if it is about one."""
    if isinstance(part, tuple):
        return part[0]
    if isinstance(part, Signed):
        return part.message.stream
    return Stream.from_bytes(part.stream) if isinstance(part, Fork) else None


def state(of: Archive, terms: Manifest = INVITING) -> tuple[object, ...]:
    """All that must be equal."""
    contents = history.contents_of(of, terms, SIGNATURE)
    return (
        {stream: of.count(stream) for stream in of.streams},
        sorted(of.effective(), key=lambda m: (m.stream, m.number)),
        {stream: fork.encode() for stream, fork in of.forks.items()},
        of.digest(),
        of.statements_digest(),
        of.out,
        log.encode(contents),
    )


def reconciled(*archives: Archive) -> None:
    """Tell each the others' proofs, as consulting does."""
    while len({each.statements_digest() for each in archives}) > 1:
        before = [each.statements_digest() for each in archives]
        for one in archives:
            for statement in (*one.guests(), *one.orders.values(), *one.forks.values()):
                for other in archives:
                    stream = stream_in(statement)
                    known = one.introduction(stream) if stream else None
                    if known is not None:
                        give(other, known)
                    give(other, statement)
        assert before != [each.statements_digest() for each in archives]


def _guests() -> list[Introduction]:
    """Of ANN and BEN, who share an invite, and have one each besides; of CLO, who has her own."""
    shown = [(ANN, 1), (BEN, 1), (ANN, 2), (BEN, 3), (CLO, 4)]
    # Label 0 is also what stands for no label.
    tickets = [(key, invite(number, INVITING).admit(key, INVITING.seal)) for key, number in shown]
    return [introduction(key, label, ticket) for key, ticket in tickets for label in range(1, 5)]


def _branches(key: Key, label: int, count: int, parts_at: Sequence[int]) -> list[Writer]:
    """A stream, and other branches of it."""
    main = writer(key, count, label, terms=INVITING)
    others = [main.branched(number).more(count - number, code=0x30 + i) for i, number in enumerate(parts_at)]
    return [main, *others]


GUESTS = _guests()
STREAMS = {
    "honest": [writer(OWNER, 5, terms=INVITING)],
    "long": _branches(CLO, 1, BLOCK + 6, [BLOCK + 2]),
    "early": _branches(CLO, 2, 6, [0, 3]),
    "surplus": [writer(ANN, 3, label, incarnation, INVITING) for label in range(1, 4) for incarnation in range(2)],
    "shared": _branches(BEN, 1, 7, [4, 2]),
}
ORDERS = [
    ban(key, serial, banned, INVITING)
    for key in (ANN, BEN, CLO)
    for serial, banned in ((1, True), (2, False), (3, True))
]
GUEST_OF_OWNER = introduction(OWNER)


def _proofs(branches: list[Writer]) -> list[Fork]:
    """Forks of a stream at several numbers, some with a head that the main branch does not have."""
    found = []
    for one in branches:
        for number in {len(one.signed) - 1, len(one.signed) // 2, 1}:
            liar = one.branched(number).more(len(one.signed) - number, code=0x11)
            found.append(one.fork(liar, number))
            if number % BLOCK:
                end = min(len(one.signed), (number // BLOCK + 1) * BLOCK)
                found.append(one.fork(liar, number, mine=end, theirs=end))
    return found


PROOFS = [
    fork
    for name, many in STREAMS.items()
    if name != "honest"
    for fork in _proofs(many if name != "surplus" else many[:2])
]


class Said(list[Part]):
    """Statements, shown by what they are called."""

    def __init__(self) -> None:
        super().__init__([GUEST_OF_OWNER])
        self.names: list[str] = []

    def __repr__(self) -> str:
        return ", ".join(self.names)

    def say(self, name: str, *parts: Part) -> None:
        self.names.append(name)
        self += parts


@st.composite
def deliveries(draw: st.DrawFn) -> Said:
    """Some of all that can be said."""
    said = Said()
    for what, known, most in (("guest", GUESTS, 20), ("order", ORDERS, 4), ("proof", PROOFS, 3)):
        for index in draw(st.lists(st.integers(0, len(known) - 1), unique=True, max_size=most)):
            said.say(f"{what} {index}", known[index])
    for name, branches in STREAMS.items():
        for index in draw(st.lists(st.integers(0, len(branches) - 1), unique=True)):
            branch, called = branches[index], f"{name} {index}"
            for start in {0, draw(st.integers(0, len(branch.signed)))} - {len(branch.signed)}:
                if draw(st.booleans()):
                    parts = [(branch.stream, stretch) for stretch in branch.stretches(start)]
                    said.say(f"{called} from {start}", *parts)
            stop = draw(st.integers(0, len(branch.signed)))
            said.say(f"{called} to {stop}", *branch.signed[:stop])
    return said


@settings(max_examples=100, phases=[Phase.generate])
@given(parts=deliveries(), seeds=st.tuples(st.integers(0, 2**16), st.integers(0, 2**16)))
def test_the_same_statements_give_the_same_archive_whatever_their_order(
    parts: Said, seeds: tuple[int, int]
) -> None:
    replicas = []
    for seed in seeds:
        draw = random.Random(seed)
        replica = Replica(Archive(INVITING), INVITING)
        order = draw.sample(parts, len(parts)) + draw.choices(parts, k=len(parts) // 3)
        often = draw.choice([0.0, 0.05, 0.5])
        replica.deliver(order, lambda draw=draw, often=often: draw.random() < often)
        replicas.append(replica)
    archives = [replica.archive for replica in replicas]
    reconciled(*archives)
    for replica in replicas:
        replica.deliver(parts, lambda: False)
    reconciled(*archives)
    for replica in replicas:
        replica.take()
    assert state(archives[0]) == state(archives[1])


@settings(max_examples=60, phases=[Phase.generate])
@given(parts=deliveries(), seed=st.integers(0, 2**16))
def test_both_logs_of_an_archive_restore_it(parts: Said, seed: int) -> None:
    draw = random.Random(seed)
    replica = Replica(Archive(INVITING), INVITING)
    for part in draw.sample(parts, len(parts)) + draw.sample(parts, len(parts)):
        give(replica.archive, part)
        if draw.random() < 0.3:
            replica.take()
    replica.take()
    canonical = history.contents_of(replica.archive, INVITING, SIGNATURE)
    assert state(history.archive_of(canonical)) == state(replica.archive)
    restored = history.archive_of(replica.logged)
    reconciled(restored, replica.archive)
    assert state(restored) == state(replica.archive)


@settings(max_examples=60, phases=[Phase.generate])
@given(parts=deliveries(), seed=st.integers(0, 2**16))
def test_a_log_that_a_crash_has_cut_off_restores_what_its_signatures_prove(parts: Said, seed: int) -> None:
    draw = random.Random(seed)
    replica = Replica(Archive(INVITING), INVITING)
    for part in draw.sample(parts, len(parts)) * 2:
        give(replica.archive, part)
        replica.take()
    logged = replica.logged
    cut = replace(logged, signed=logged.signed[: draw.randint(0, len(logged.signed))])
    restored = history.archive_of(cut)
    assert set(restored) <= {signed.message for signed in cut.signed}
    again = Replica(restored, INVITING)
    again.applied.update(restored.effective())
    again.deliver(parts, lambda: False)
    replica.deliver(parts, lambda: False)
    reconciled(restored, replica.archive)
    again.deliver(parts, lambda: False)
    replica.deliver(parts, lambda: False)
    reconciled(restored, replica.archive)
    assert state(restored) == state(replica.archive)


# What is refused changes nothing


def _message(number: int = 0, round_: int = 0, rate: float = 0.25, codes: bytes = b"\x38") -> Message:
    return Message(stream_of(ANN), number, round_, rate, codes)


def _signed(message: Message, key: Key = ANN, terms: Manifest = TERMS) -> Signed:
    """As the first, or the second after a usual one, of ANN's stream."""
    before = writer(ANN, message.number, terms=terms).heads[-1]
    return Signed(message, sign_head(key, chained(before, [message.encode()])))


def _alike(one: Writer) -> Fork:
    return Fork.of(one.stream, one.heads[0], one.stretch(0, 1), one.stretch(0, 2))


REFUSED: dict[str, Part] = {
    "unsigned": Signed(_message()),
    "signed by another": _signed(_message(), BEN),
    "signed in another run": _signed(_message(), terms=manifest(nonce=2)),
    "signature of other bytes": replace(writer(ANN, 2).signed[0], signature=writer(ANN, 2).signed[1].signature),
    "of a peer that nobody knows": writer(ANN, 1, label=7).signed[0],
    "after a gap": writer(ANN, 4).signed[3],
    "too early a round": _signed(_message(1, round_=0)),
    "beyond the last round": _signed(_message(round_=TERMS.rounds)),
    "too many samples": _signed(_message(codes=bytes(5))),
    "too large a learning rate": _signed(_message(rate=0.75)),
    "a stretch that is not signed": (stream_of(ANN), replace(writer(ANN, 9).stretch(0, 9), signature=b"")),
    "a stretch with a signature of less": (
        stream_of(ANN),
        replace(writer(ANN, 9).stretch(0, 9), signature=writer(ANN, 8).signed[7].signature),
    ),
    "a stretch beyond its block": (stream_of(ANN), writer(ANN, BLOCK + 1).stretch(1, BLOCK + 1)),
    "a stretch after a gap": (stream_of(ANN), writer(ANN, 9).stretch(3, 9)),
    "a stretch of another stream": (stream_of(BEN), writer(ANN, 3).stretch(0, 3)),
    "a stretch with a number left out": (
        stream_of(ANN),
        Stretch(0, tuple(m.encode() for m in writer(ANN, 3).messages[::2]), writer(ANN, 3).signed[2].signature),
    ),
    "an order that its subject gave": ban(BEN, by=BEN),
    "an order of another run": ban(BEN, terms=manifest(nonce=2)),
    "an order about the owner": ban(OWNER),
    "a fork whose branches are alike": _alike(writer(BEN, 2)),
    "a fork with a branch of another's": Fork.of(
        stream_of(BEN), writer(BEN).heads[0], writer(BEN, 1).stretch(0, 1), writer(ANN, 1).stretch(0, 1)
    ),
    "a fork of a peer that nobody knows": writer(ANN, 1, label=7).fork(writer(ANN, label=7).more(1, code=1), 0),
}


@pytest.mark.parametrize("part", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_changes_nothing(part: Part) -> None:
    kept = archive(writer(BEN, 2).signed)
    before = state(kept, TERMS)
    if isinstance(part, Signed) and part.message.number == 1:
        kept.accept(writer(ANN, 1).signed[0])
        kept.take()
        before = state(kept, TERMS)
    assert not give(kept, part)
    assert state(kept, TERMS) == before
    news = kept.take()
    assert (news.fresh, news.withdrawn, news.heard, news.statements) == ([], [], [], [])


def test_what_we_may_not_say_is_not_published() -> None:
    mine = archive()
    for bad in (_message(1), _message(round_=TERMS.rounds), _message(codes=bytes(5)), _message(rate=0.75)):
        with pytest.raises(MessageError):
            mine.publish(bad, ANN)
    one = writer(ANN, 2)
    mine.accept_fork(one.fork(one.branched(0).more(1, code=1), 0))
    with pytest.raises(MessageError, match="ends at 0"):
        mine.publish(_message(), ANN)
    assert len(mine) == 0


def test_what_is_published_is_what_others_accept() -> None:
    mine, theirs = archive(), archive()
    for message in writer(ANN, 3).messages:
        assert theirs.accept(mine.publish(message, ANN))
    assert state(mine, TERMS) == state(theirs, TERMS)


def test_a_private_run_needs_no_signatures_and_knows_no_forks() -> None:
    private = archive(terms=PRIVATE)
    private.publish(_message(), None)
    with pytest.raises(EquivocationError):
        private.accept(Signed(_message(codes=b"\x01")))
    assert private.effective() == [_message()]
    assert history.archive_of(history.contents_of(private, PRIVATE, b"")).digest() == private.digest()


# Forks


def test_both_sides_of_a_fork_find_the_same_proof_and_others_believe_it() -> None:
    one = writer(ANN, 5)
    other = one.branched(3).more(2, code=1)
    sides = archive(one.signed[:4]), archive(other.signed[:4])
    for side, theirs in zip(sides, (other, one), strict=True):
        with pytest.raises(EquivocationError, match="number 3"):
            side.accept(theirs.signed[3])
    third = archive(one.signed)
    assert third.accept_fork(sides[0].forks[one.stream])
    third.take()
    assert state(sides[0], TERMS) == state(sides[1], TERMS) == state(third, TERMS)
    assert third.effective() == one.messages[:3]


@pytest.mark.parametrize("parts_at", [0, 1, BLOCK - 1, BLOCK, BLOCK + 3, 2 * BLOCK + 1])
def test_a_fork_is_proven_though_neither_side_has_heard_the_other_s_messages_live(parts_at: int) -> None:
    one = writer(ANN, 3 * BLOCK)
    other = one.branched(parts_at).more(3 * BLOCK - parts_at, code=1)
    holds, third = archive(), archive(one.signed)
    for stretch in other.stretches():
        holds.accept_stretch(one.stream, stretch)
    theirs = next(stretch for stretch in one.stretches() if stretch.start + len(stretch.encoded) > parts_at)
    with pytest.raises(EquivocationError):
        holds.accept_stretch(one.stream, theirs)
    fork = holds.forks[one.stream]
    assert fork.number == parts_at
    assert Fork.decode(fork.encode()) == fork
    assert third.accept_fork(fork)
    assert third.effective() == one.messages[:parts_at] == holds.effective()


def test_an_earlier_fork_is_proven_though_the_later_one_has_taken_our_signatures() -> None:
    one = writer(ANN, 9)
    kept = archive(one.signed)
    kept.accept_fork(one.fork(one.branched(6).more(1, code=1), 6))
    with pytest.raises(EquivocationError):
        kept.accept(one.branched(2).more(1, code=2).signed[2])
    assert kept.forks[one.stream].number == 2
    assert archive(one.signed).accept_fork(kept.forks[one.stream])
    assert kept.effective() == one.messages[:2]


def test_of_two_proofs_of_the_same_end_all_keep_the_same() -> None:
    one = writer(ANN, 9)
    proofs = [one.fork(one.branched(4).more(1, code=code), 4) for code in (1, 2, 3)]
    kept = []
    for order in (proofs, proofs[::-1]):
        kept.append(archive(one.signed))
        for proof in order:
            kept[-1].accept_fork(proof)
    assert state(kept[0], TERMS) == state(kept[1], TERMS)


def test_what_comes_before_a_fork_of_another_branch_is_kept_only_as_far_as_it_is_signed() -> None:
    # Nobody else would believe the rest, and the swarm would stay split.
    one = writer(ANN, BLOCK + 9)
    other = one.branched(BLOCK + 1).more(8, code=1)
    kept = archive(one.signed)
    kept.accept_fork(other.fork(other.branched(BLOCK + 5).more(1, code=2), BLOCK + 5))
    assert kept.count(one.stream) == BLOCK
    for stretch in other.stretches():
        kept.accept_stretch(one.stream, stretch)
    assert kept.effective() == other.messages[: BLOCK + 5]


def test_a_signature_that_a_fork_makes_needless_is_not_kept_unread() -> None:
    one = writer(ANN, 6)
    kept = archive()
    kept.accept_fork(one.fork(one.branched(4).more(1, code=1), 4))
    assert kept.accept_stretch(one.stream, replace(one.stretch(0, 4), signature=b"\1" * 64)) == 4
    assert kept.signature(one.stream, 4) == b""


# Keys


@pytest.mark.parametrize("taking", [True, False], ids=["taken between", "not taken"])
def test_ban_and_unban_restore_exactly(taking: bool) -> None:
    one, other = writer(ANN, 3), writer(BEN, 2)
    replica = Replica(archive(), TERMS)
    for index, part in enumerate((*one.signed[:2], ban(ANN), one.signed[2], *other.signed, ban(ANN, 2, False))):
        assert give(replica.archive, part)
        if index == 2:
            assert not any(m.stream == one.stream for m in replica.archive.effective())
        if taking:
            replica.take()
    replica.take()
    assert Counter(replica.archive.effective()) == Counter(one.messages + other.messages)
    assert not give(replica.archive, ban(ANN, 1)), "an older order was obeyed"


def test_who_is_banned_and_then_excluded_does_not_come_back() -> None:
    keys = sorted((ANN, BEN), key=lambda key: key.public)
    small, large = (introduction(key, 1, invite(1, INVITING).admit(key, INVITING.seal)) for key in keys)
    replica = Replica(Archive(INVITING), INVITING)
    for part in (large, *writer(keys[1], 2, 1, terms=INVITING).signed, ban(keys[1], terms=INVITING), small):
        assert give(replica.archive, part)
        replica.take()
    give(replica.archive, ban(keys[1], 2, False, INVITING))
    replica.take()
    assert replica.archive.effective() == []


def test_a_second_ticket_of_a_peer_that_is_known_counts_too() -> None:
    small, large = sorted((ANN, BEN), key=lambda key: key.public)
    parts = [
        introduction(key, 1, invite(number, INVITING).admit(key, INVITING.seal))
        for key, number in ((large, 1), (large, 2), (small, 2))
    ]
    for order in (parts, parts[::-1], [parts[1], parts[0], parts[2]]):
        known = Archive(INVITING)
        for part in order:
            known.introduce(part)
        assert known.out == {large.public}
        assert known.statements_digest() == reference_digest(parts)


def reference_digest(parts: Iterable[Introduction]) -> bytes:
    known = Archive(INVITING)
    for part in parts:
        known.introduce(part)
    return known.statements_digest()


def test_a_ticket_that_nobody_asked_for_is_not_kept() -> None:
    # Made up in an open run, it would make archives differ, and each new one a statement to pass on.
    made_up = introduction(ANN, 0, bytes(224))
    known = Archive(TERMS)
    known.introduce(made_up)
    plain = Archive(TERMS)
    plain.introduce(introduction(ANN))
    assert known.guests() == []
    assert known.statements_digest() == plain.statements_digest()


def test_the_streams_with_the_smallest_names_stay_and_forked_ones_count() -> None:
    terms = manifest(streams_per_key=2)
    labels = sorted(range(5), key=lambda label: stream_of(ANN, label))
    many = [writer(ANN, 2, label, terms=terms) for label in labels]
    for order in (range(5), reversed(range(5))):
        kept = archive(terms=terms)
        for index in order:
            give(kept, introduction(ANN, labels[index]))
            for signed in many[index].signed:
                give(kept, signed)
        assert set(kept.streams) == {each.stream for each in many[:2]}
        assert len(kept) == 4
    assert kept.accept_fork(many[0].fork(many[0].branched(0).more(1, code=1), 0))
    assert kept.streams == (many[1].stream,)
    give(kept, introduction(ANN, labels[2]))
    assert not give(kept, many[2].signed[0]), "a forked stream gave its place away, which depends on order"


def test_peers_of_one_key_that_write_nothing_keep_nobody_out() -> None:
    terms = manifest(streams_per_key=3)
    kept = Archive(terms)
    for label in range(50):
        kept.introduce(introduction(ANN, label))
    one = writer(ANN, 1, label=99, terms=terms)
    kept.introduce(introduction(ANN, 99))
    assert kept.accept(one.signed[0])
    for label in range(50, 90):
        give(kept, introduction(ANN, label))
    assert kept.introduction(one.stream) is not None


def test_an_archive_that_is_full_takes_nothing_in_part() -> None:
    kept, one = archive(), writer(ANN, 9)
    kept.hold_at_most(5)
    assert not give(kept, (one.stream, one.stretch(0, 9)))
    assert len(kept) == 0
