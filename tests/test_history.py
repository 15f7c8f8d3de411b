"""Between logs and archives: the one log of a set, and logs as sessions leave them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from shared_seed import history, log
from shared_seed.archive import Archive
from shared_seed.errors import EquivocationError, LogError
from shared_seed.ledger import BLOCK
from shared_seed.log import Contents
from shared_seed.proofs import Fork
from shared_seed.signed import Signed, Statement
from swarming import ANN, BEN, CLO, OWNER, TERMS, archive, ban, introduction, manifest, writer

SIGNATURE = TERMS.sign(OWNER)
ONE = writer(ANN, 2 * BLOCK + 9)
BRANCH = ONE.branched(BLOCK + 5).more(BLOCK, code=1)
FORK = ONE.fork(BRANCH, BLOCK + 5)
GUESTS = [introduction(key) for key in (OWNER, ANN, BEN, CLO)]


def contents(signed: Iterable[Signed], statements: Iterable[Statement] = ()) -> Contents:
    return Contents(TERMS, list(signed), signature=SIGNATURE, statements=[*GUESTS, *statements])


def last_signed(count: int) -> list[Signed]:
    """As catch-up brings a stream's first messages: signatures at the ends of blocks and at the end."""
    signed = ONE.signed[:count]
    return [each if n % BLOCK == 0 or n == count else Signed(each.message) for n, each in enumerate(signed, 1)]


def test_live_and_caught_up_archives_give_the_same_log_whatever_the_order() -> None:
    live = archive(ONE.signed, writer(BEN, 5).signed)
    fetched = archive(writer(BEN, 5).signed)
    for stretch in ONE.stretches():
        fetched.accept_stretch(ONE.stream, stretch)
    logs = [log.encode(history.contents_of(each, TERMS, SIGNATURE)) for each in (live, fetched)]
    assert logs[0] == logs[1]
    assert (
        log.encode(history.contents_of(history.archive_of(log.parse(logs[0], "it")), TERMS, SIGNATURE)) == logs[0]
    )


def test_messages_come_by_round_and_stream_and_the_needless_is_left_out() -> None:
    kept = archive(ONE.signed[: BLOCK + 2], writer(BEN, 3).signed)
    kept.accept_order(ban(CLO))
    found = history.contents_of(kept, TERMS, SIGNATURE)
    places = [(m.round, m.stream) for m in found.messages]
    assert places == sorted(places)
    assert [s.message.number for s in found.signed if s.signature] == [2, BLOCK - 1, BLOCK + 1]
    writers = sorted((introduction(ANN), introduction(BEN)), key=lambda each: each.peer(TERMS.run_bytes))
    assert found.statements == [*writers, ban(CLO)]


def test_a_cut_stream_needs_no_signature_but_the_fork_s() -> None:
    kept = archive(ONE.signed)
    kept.accept_fork(FORK)
    found = history.contents_of(kept, TERMS, SIGNATURE)
    assert [s.message.number for s in found.signed if s.signature] == [BLOCK - 1]
    assert history.archive_of(found).effective() == ONE.messages[: BLOCK + 5]


@pytest.mark.parametrize("kept", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_what_a_crash_has_cut_off_before_its_signature_is_left_to_the_peers(kept: int) -> None:
    count = len(ONE.signed)
    restored = history.archive_of(contents(last_signed(count)[:kept]))
    assert len(restored) == kept // BLOCK * BLOCK
    news_log = contents([*last_signed(count)[:kept], *last_signed(count)[len(restored) :]])
    assert len(history.archive_of(news_log)) == count


def test_a_log_that_lacks_the_signature_of_a_block_is_refused() -> None:
    signed = last_signed(2 * BLOCK)
    signed[BLOCK - 1] = Signed(signed[BLOCK - 1].message)
    with pytest.raises(LogError, match="not signed"):
        history.archive_of(contents(signed))


def test_a_log_with_another_s_signature_is_refused() -> None:
    with pytest.raises(LogError, match="not signed"):
        history.archive_of(contents([replace(ONE.signed[0], signature=bytes(64))]))


@pytest.mark.parametrize("order", [[1], [0, 2], [0, 1, 3]])
def test_a_log_with_a_gap_is_refused(order: list[int]) -> None:
    with pytest.raises(LogError, match="lacks messages before some that it holds"):
        history.archive_of(contents(ONE.signed[n] for n in order))


def test_what_was_heard_again_after_it_was_taken_out_counts() -> None:
    first, second = ONE.branched(0).more(3, code=1), ONE.branched(0).more(4, code=2)
    restored = history.archive_of(contents([*first.signed, *second.signed]))
    assert restored.effective() == second.messages


def test_a_fork_counts_wherever_in_the_log_it_stands() -> None:
    for said in (ONE.signed, last_signed(len(ONE.signed)), BRANCH.signed):
        restored = history.archive_of(contents(said, [FORK]))
        assert restored.effective() == ONE.messages[: BLOCK + 5]


def test_logs_of_both_branches_prove_the_fork() -> None:
    both = Archive(TERMS)
    history.restore(both, contents(ONE.signed))
    history.restore(both, contents(BRANCH.signed))
    assert both.forks[ONE.stream].number == BLOCK + 5
    assert isinstance(both.forks[ONE.stream], Fork)


def test_streams_that_are_too_many_are_left_out() -> None:
    terms = manifest(streams_per_key=1)
    many = sorted((writer(ANN, 2, label, terms=terms) for label in range(3)), key=lambda each: each.stream)
    guests = [introduction(ANN, label) for label in range(3)]
    for order in (many, many[::-1]):
        signed = [each for one in order for each in one.signed]
        found = history.archive_of(Contents(terms, signed, signature=terms.sign(OWNER), statements=[*guests]))
        assert found.effective() == many[0].messages


def test_a_log_of_somebody_who_is_not_admitted_is_refused() -> None:
    terms = manifest("keys")
    with pytest.raises(LogError, match="admits listed keys alone"):
        history.archive_of(Contents(terms, statements=[introduction(ANN)]))


def test_a_branch_that_came_live_is_an_equivocation() -> None:
    kept = archive(ONE.signed)
    with pytest.raises(EquivocationError):
        kept.accept(BRANCH.signed[BLOCK + 5])
