"""Unions of logs: whatever the order and however often, the same bytes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_seed import history, log
from shared_seed.errors import LogError
from shared_seed.ledger import BLOCK
from shared_seed.log import Contents
from shared_seed.merging import merge
from shared_seed.messages import Message
from shared_seed.proofs import Order
from shared_seed.signed import Signed
from swarming import ANN, BEN, CLO, OWNER, PRIVATE, TERMS, Writer, archive, ban, manifest, writer

SIGNATURE = TERMS.sign(OWNER)
LONG = BLOCK + 20
STORIES: dict[str, list[Writer]] = {
    "ann": [
        writer(ANN, LONG),
        writer(ANN, 7).more(LONG, code=1),
        writer(ANN, BLOCK + 3).more(5, code=2),
    ],
    "ben": [writer(BEN, LONG)],
    "clo": [writer(CLO, LONG), writer(CLO, 0).more(9, code=3)],
}
"""Each peer's stream, and what else it signs for others under the same numbers."""


def log_of(said: Sequence[Sequence[Signed]], orders: Sequence[Order] = ()) -> Contents:
    """The log of a peer that has heard so much."""
    held = archive(*said)
    for order in orders:
        held.accept_order(order)
    return history.contents_of(held, TERMS, SIGNATURE)


@st.composite
def logs(draw: st.DrawFn) -> Contents:
    said = []
    for stories in STORIES.values():
        one = draw(st.sampled_from(stories))
        said.append(one.signed[: draw(st.integers(0, len(one.signed)))])
    orders = draw(
        st.lists(st.builds(ban, st.sampled_from([ANN, BEN]), st.integers(1, 3), st.booleans()), max_size=2)
    )
    return log_of(said, orders)


@given(first=logs(), second=logs(), third=logs())
def test_the_order_and_doubles_make_no_difference(first: Contents, second: Contents, third: Contents) -> None:
    found = {log.encode(merge(each)) for each in itertools.permutations([first, second, third])}
    assert len(found) == 1
    assert log.encode(merge([first, second])) == log.encode(merge([second, first, second]))
    assert log.encode(merge([first, first])) == log.encode(merge([first])) == log.encode(first)


@given(first=logs(), second=logs())
def test_a_union_contains_what_it_is_of_and_adds_nothing(first: Contents, second: Contents) -> None:
    union = merge([first, second])
    held = history.archive_of(union)
    parts = [history.archive_of(each) for each in (first, second)]
    for stream in {s for part in parts for s in part.streams}:
        fork = held.forks.get(stream)
        longest = max(part.count(stream) for part in parts)
        assert held.count(stream) == (longest if fork is None else fork.number)
    assert set(union.messages) <= {*first.messages, *second.messages}
    assert {key: order.rank for key, order in held.orders.items()} == {
        key: max(part.orders[key].rank for part in parts if key in part.orders)
        for key in {key for part in parts for key in part.orders}
    }
    assert log.encode(merge([union, first])) == log.encode(union)
    assert log.encode(history.contents_of(held, TERMS, SIGNATURE)) == log.encode(union), "canonical"


def test_branches_in_two_logs_prove_the_fork_and_the_stream_ends_there() -> None:
    one, other = (log_of([story.signed]) for story in STORIES["ann"][:2])
    union = merge([one, other])
    (fork,) = history.archive_of(union).forks.values()
    assert fork.number == 7
    assert union.messages == STORIES["ann"][0].messages[:7]


def test_a_ban_that_one_log_knows_takes_out_what_the_other_has_heard_since() -> None:
    early = log_of([STORIES["ben"][0].signed[:3], STORIES["ann"][0].signed[:3]], [ban(BEN)])
    late = log_of([STORIES["ben"][0].signed[:9]])
    union = merge([early, late])
    assert len(union.messages) == 12
    assert history.archive_of(union).effective() == STORIES["ann"][0].messages[:3]


def test_a_finished_log_states_its_digest_again_where_nothing_is_added() -> None:
    part, whole = log_of([STORIES["ben"][0].signed[:5]]), log_of([STORIES["ben"][0].signed])
    whole = replace(whole, digest=(LONG, b"d" * 32))
    assert log.encode(merge([whole, part, whole])) == log.encode(whole)
    part = replace(part, digest=(5, b"e" * 32))
    assert merge([part, whole]).digest == whole.digest
    assert merge([part, log_of([STORIES["ann"][0].signed])]).digest is None


def test_equal_logs_that_state_different_digests_are_refused() -> None:
    held = log_of([STORIES["ben"][0].signed[:5]])
    with pytest.raises(LogError, match=r"state different digests, 6464.* and 6565"):
        merge([replace(held, digest=(5, value * 32)) for value in (b"d", b"e")])


def test_a_log_cut_off_in_its_last_message_is_united_as_far_as_it_is_proven() -> None:
    data = log.encode(log_of([STORIES["ben"][0].signed]))
    torn = log.parse(data[:-3], "torn")
    assert log.encode(merge([torn])) == log.encode(log_of([STORIES["ben"][0].signed[:BLOCK]]))
    assert log.encode(merge([torn, log.parse(data, "whole")])) == data


def test_logs_of_different_runs_are_refused_and_what_differs_is_named() -> None:
    terms = manifest(nonce=2)
    other = Contents(terms, signature=terms.sign(OWNER))
    with pytest.raises(LogError, match="different runs, which have no union: field 'nonce'"):
        merge([log_of([]), other])


def test_a_run_that_was_made_longer_is_the_same_run() -> None:
    longer = manifest(rounds=TERMS.rounds + 7)
    one = log_of([STORIES["ben"][0].signed[:5]])
    other = replace(log_of([STORIES["ben"][0].signed[:9]]), manifest=longer, signature=longer.sign(OWNER))
    for order in ([one, other], [other, one]):
        union = merge(order)
        assert union.manifest == longer
        assert union.messages == STORIES["ben"][0].messages[:9]
        assert log.parse(log.encode(union), "it").manifest.rounds == TERMS.rounds + 7


def unsigned(code: int, count: int) -> Contents:
    stream = STORIES["ben"][0].stream
    messages = [Message(stream, n, n, 0.25, bytes([code if n > 1 else 0x38])) for n in range(count)]
    return Contents(PRIVATE, list(map(Signed, messages)))


def test_private_runs_unite_where_they_agree_and_are_refused_where_they_part() -> None:
    assert merge([unsigned(1, 5), unsigned(1, 9)]).messages == unsigned(1, 9).messages
    assert merge([unsigned(1, 2), unsigned(2, 9)]).messages == unsigned(2, 9).messages
    for pair in ((unsigned(1, 5), unsigned(2, 9)), (unsigned(2, 9), unsigned(1, 5))):
        with pytest.raises(LogError, match="say different things in stream"):
            merge(pair)
