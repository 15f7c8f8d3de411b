"""What tells two logs apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from shared_seed import history
from shared_seed.compare import StreamDifference, as_dict, compare
from shared_seed.log import Contents
from shared_seed.merging import merge
from shared_seed.proofs import Order
from shared_seed.selection import full_name
from shared_seed.signed import Signed
from swarming import ANN, BEN, OWNER, TERMS, archive, ban, manifest, writer

ONE, OTHER = writer(ANN, 9), writer(BEN, 6)
BRANCH = ONE.branched(4).more(3, code=1)


def log_of(*said: Sequence[Signed], orders: Sequence[Order] = ()) -> Contents:
    held = archive(*said)
    for order in orders:
        held.accept_order(order)
    return history.contents_of(held, TERMS, TERMS.sign(OWNER))


def test_a_log_is_equal_to_itself_whatever_order_it_came_in_and_whether_it_states_a_digest() -> None:
    one = log_of(ONE.signed, OTHER.signed)
    shuffled = replace(one, signed=[*OTHER.signed, *ONE.signed])
    found = compare(one, shuffled)
    assert found.is_equal
    assert found.same_run
    assert [each.both for each in found.streams] == [each.both for each in found.streams if each.is_equal]
    assert sum(each.both for each in found.streams) == 15
    stated = replace(one, digest=(15, b"d" * 32))
    assert compare(one, stated).is_equal
    assert not compare(replace(one, digest=(15, b"e" * 32)), stated).is_equal


def test_messages_that_one_log_lacks_are_counted_by_stream() -> None:
    found = compare(log_of(ONE.signed[:5], OTHER.signed), log_of(ONE.signed))
    by_stream = {each.stream: each for each in found.streams}
    assert by_stream[ONE.stream] == StreamDifference(ONE.stream, 5, 0, 4, None)
    assert by_stream[OTHER.stream] == StreamDifference(OTHER.stream, 0, 6, 0, None)
    assert not found.is_equal
    assert found.guests == {BEN.public.hex(): ("takes part", None)}


def test_two_stories_of_one_stream_are_told_with_the_number_they_part_at() -> None:
    found = compare(log_of(ONE.signed), log_of(BRANCH.signed))
    assert found.streams == (StreamDifference(ONE.stream, 4, 5, 3, 4),)


def test_a_fork_that_one_log_proves() -> None:
    one, both = log_of(ONE.signed), merge([log_of(ONE.signed), log_of(BRANCH.signed)])
    found = compare(one, both)
    assert found.streams == (StreamDifference(ONE.stream, 4, 5, 0, None),)
    assert found.forks == {full_name(ONE.stream): (None, "ends at 4, where it forks")}
    assert not found.is_equal


def test_orders_that_differ_make_logs_differ() -> None:
    one = log_of(ONE.signed, orders=[ban(ANN, 1)])
    other = log_of(ONE.signed, orders=[ban(ANN, 2, banned=False)])
    key = ANN.public.hex()
    found = compare(one, other)
    assert found.orders == {key: ("banned by order 1", "not banned by order 2")}
    assert found.guests == {key: ("left out", "takes part")}
    assert not found.is_equal
    assert compare(one, log_of(ONE.signed)).orders == {key: ("banned by order 1", None)}


def test_other_runs_are_told_by_their_terms() -> None:
    terms = manifest(nonce=2)
    found = compare(log_of(ONE.signed), Contents(terms, signature=terms.sign(OWNER)))
    assert not found.same_run
    assert found.terms == {"nonce": (f'"{1:032x}"', f'"{2:032x}"')}
    longer = manifest(rounds=7)
    found = compare(Contents(longer, signature=longer.sign(OWNER)), Contents(TERMS, signature=TERMS.sign(OWNER)))
    assert found.same_run
    assert found.terms == {"rounds": ("7", str(TERMS.rounds))}
    assert not found.is_equal


def test_long_terms_are_cut() -> None:
    more = TERMS.model_copy(update={"recipe": {"title": "x" * 500}})
    found = compare(Contents(more, signature=more.sign(OWNER)), Contents(TERMS, signature=TERMS.sign(OWNER)))
    shown = found.terms["recipe"][0]
    assert shown is not None
    assert shown.endswith("…")
    assert len(shown) == 80


def test_json_has_all_of_it() -> None:
    found = as_dict(compare(log_of(ONE.signed, orders=[ban(BEN)]), log_of(BRANCH.signed)))
    again = json.loads(json.dumps(found))
    assert again["equal"] is False
    assert again["same_run"] is True
    assert again["streams"] == [
        {
            "peer": ONE.stream.peer.hex(),
            "incarnation": 0,
            "both": 4,
            "only_first": 5,
            "only_second": 3,
            "parts_at": 4,
        }
    ]
    assert again["orders"] == {BEN.public.hex(): ["banned by order 1", None]}
    assert again["digests"] == [None, None]
