"""One stream's chain: heads, signatures that are kept, and what can be proven to others."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_seed.ledger import BLOCK, Ledger, chained, first_head
from shared_seed.messages import Stream
from swarming import ANN, TERMS, Writer, stream_of, writer

LONG = writer(ANN, 3 * BLOCK + 5)


def ledger(of: Writer = LONG, count: int | None = None, signed: bool = True) -> Ledger:
    made = Ledger(TERMS.seal, of.stream)
    said(made, of, 0, len(of.signed) if count is None else count, signed)
    return made


def said(to: Ledger, of: Writer, start: int, stop: int, signed: bool = True) -> None:
    """Put messages in one by one, as they come live."""
    for number, each in enumerate(of.signed[start:stop], start):
        signature = each.signature if signed else b""
        to.extend([each.message.encode()], [of.heads[number + 1]], each.message.round, signature)


def test_heads_are_the_documented_hashes() -> None:
    stream, person = Stream(b"peer-number1", 7), b"shared-seed head"
    first = hashlib.blake2b(b"s" * 16 + b"peer-number1\x07\0\0\0", digest_size=32, person=person).digest()
    assert first_head(b"s" * 16, stream) == first
    second = hashlib.blake2b(first + b"message", digest_size=32, person=person).digest()
    assert chained(first, [b"message"]) == second
    assert chained(first, []) == first


def test_other_runs_and_streams_begin_with_other_heads() -> None:
    heads = {first_head(seal, stream_of(ANN, n)) for seal in (bytes(16), b"s" * 16) for n in (0, 1)}
    assert len(heads) == 4


@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, len(LONG.signed)])
def test_the_head_after_any_number_of_messages(count: int) -> None:
    assert ledger().head_at(count) == LONG.heads[count]
    assert ledger(count=count).head == LONG.heads[count]


def test_signatures_are_kept_at_the_ends_of_blocks_and_at_the_end() -> None:
    whole = ledger()
    kept = [count for count in range(len(whole) + 1) if whole.signature(count)]
    assert kept == [BLOCK, 2 * BLOCK, 3 * BLOCK, len(whole)]
    assert list(whole.marks) == LONG.heads[::BLOCK]


@pytest.mark.parametrize("start", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 7, 3 * BLOCK + 4])
def test_stretches_go_to_the_end_a_block_each(start: int) -> None:
    assert ledger().stretches(start, 10_000) == LONG.stretches(start)


@pytest.mark.parametrize(
    ("start", "most", "reached"),
    [
        (0, BLOCK, BLOCK),
        (0, BLOCK + 1, BLOCK),
        (5, BLOCK, BLOCK),
        (5, BLOCK - 6, 5),
        (BLOCK, 2 * BLOCK, 3 * BLOCK),
        (10**9, BLOCK, 10**9),
        (len(LONG.signed), BLOCK, len(LONG.signed)),
    ],
)
def test_stretches_end_with_the_last_signature_that_is_near_enough(start: int, most: int, reached: int) -> None:
    found = ledger().stretches(start, most)
    assert start + sum(len(stretch.encoded) for stretch in found) == reached
    assert all(stretch.signature for stretch in found)


def test_what_a_fork_has_left_without_a_signature_is_given_without() -> None:
    short = ledger()
    short.cut(BLOCK + 3)
    assert [bool(stretch.signature) for stretch in short.stretches(0, 10_000)] == [True, False]
    assert short.branch(BLOCK) is None


@pytest.mark.parametrize("start", [0, BLOCK - 1, BLOCK, 3 * BLOCK, 3 * BLOCK + 4])
def test_a_branch_goes_to_the_next_signature(start: int) -> None:
    end = min(len(LONG.signed), (start // BLOCK + 1) * BLOCK)
    assert ledger().branch(start) == LONG.stretch(start, end)


@given(cut=st.integers(0, len(LONG.signed)), again=st.integers(0, len(LONG.signed)))
def test_a_ledger_that_was_cut_is_one_that_never_had_more(cut: int, again: int) -> None:
    made = ledger()
    assert made.cut(cut) == LONG.messages[cut:]
    assert (len(made), made.head, made.round) == (cut, LONG.heads[cut], cut - 1)
    assert list(made.marks) == LONG.heads[: cut + 1 : BLOCK]
    said(made, LONG, cut, again)
    assert made.messages() == LONG.messages[: max(cut, again)]
    assert made.head == LONG.heads[max(cut, again)]


def test_what_is_proven_is_what_a_head_or_a_signature_reaches() -> None:
    made = ledger(count=BLOCK + 9)
    assert made.proven(BLOCK + 4, LONG.heads[BLOCK + 4]) == BLOCK + 4
    assert made.proven(BLOCK + 4, bytes(32)) == BLOCK
    assert made.proven(BLOCK - 1, bytes(32)) == 0
    assert made.proven(10**6, bytes(32)) == BLOCK + 9
    assert ledger(count=9, signed=False).proven(9, bytes(32)) == 0


@given(start=st.integers(0, 3 * BLOCK), stop=st.integers(0, len(LONG.signed)))
def test_many_messages_at_once_are_the_same_as_one_by_one(start: int, stop: int) -> None:
    made = ledger(count=start)
    if start < stop:
        some, heads = LONG.messages[start:stop], LONG.heads[start + 1 : stop + 1]
        made.extend([m.encode() for m in some], heads, some[-1].round, LONG.signed[stop - 1].signature)
    assert list(made.marks) == LONG.heads[: max(start, stop) + 1 : BLOCK]
    assert (made.head, made.round) == (LONG.heads[max(start, stop)], max(start, stop) - 1)
    assert made.messages() == LONG.messages[: max(start, stop)]
