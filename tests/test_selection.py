"""Which messages of a run are replayed: names of peers, and rounds."""

from __future__ import annotations

import pytest

from shared_seed import identity
from shared_seed.archive import Archive
from shared_seed.errors import RecipeError
from shared_seed.messages import Message, Stream
from shared_seed.selection import WHOLE, Selection, full_name, named
from swarming import ANN, BEN, PRIVATE, archive, ban, introduction, writer

FIRST, AGAIN, OTHER = writer(ANN, 5), writer(ANN, 3, incarnation=1), writer(BEN, 4)


@pytest.fixture
def kept() -> Archive:
    return archive(FIRST.signed, AGAIN.signed, OTHER.signed)


def test_all_that_counts_is_the_default(kept: Archive) -> None:
    assert WHOLE.is_whole
    assert WHOLE.of(kept) == kept.effective()
    kept.accept_order(ban(BEN))
    assert set(WHOLE.of(kept)) == {*FIRST.messages, *AGAIN.messages}


@pytest.mark.parametrize(("until", "count"), [(0, 0), (1, 3), (3, 9), (4, 11), (5, 12), (1000, 12)])
def test_until_leaves_out_rounds_from_there_on(kept: Archive, until: int, count: int) -> None:
    chosen = Selection(until=until)
    assert len(chosen.of(kept)) == count
    assert not chosen.is_whole
    assert all(message.round < until for message in chosen.of(kept))


def test_a_negative_number_of_rounds_is_refused() -> None:
    with pytest.raises(RecipeError, match="until is -1"):
        Selection(until=-1)


def test_names_of_streams_peers_and_keys(kept: Archive) -> None:
    both = [FIRST.stream, AGAIN.stream]
    assert named(kept, str(FIRST.stream)) == [FIRST.stream]
    assert named(kept, full_name(AGAIN.stream)) == [AGAIN.stream]
    assert named(kept, FIRST.stream.peer.hex()[:6]) == both
    assert named(kept, FIRST.stream.peer.hex().upper()) == both
    assert named(kept, identity.show(ANN.public)) == both
    assert named(kept, f" {OTHER.stream} ") == [OTHER.stream]


def test_a_key_stands_for_all_of_its_peers() -> None:
    second = writer(ANN, 2, label=1)
    kept = archive(FIRST.signed)
    kept.introduce(introduction(ANN, 1))
    for signed in second.signed:
        kept.accept(signed)
    assert Selection(without=(identity.show(ANN.public),)).of(kept) == []
    assert Selection(without=(str(second.stream),)).of(kept) == FIRST.messages


@pytest.mark.parametrize("name", ["0123456789/0", "ab" * 32, f"{FIRST.stream.peer.hex()}/7"])
def test_a_name_of_nobody_lists_everybody(kept: Archive, name: str) -> None:
    with pytest.raises(RecipeError, match="stands for nobody in this run") as refusal:
        named(kept, name)
    for stream, key in ((FIRST.stream, ANN), (AGAIN.stream, ANN), (OTHER.stream, BEN)):
        assert f"{full_name(stream)} of key {identity.show(key.public)}" in str(refusal.value)


@pytest.mark.parametrize("name", ["", "peer 1", "xyz", "ab" * 13, "abcd/", "/0", "-1"])
def test_what_is_no_name_is_told_what_names_look_like(kept: Archive, name: str) -> None:
    with pytest.raises(RecipeError, match="names no peer; expected a stream as"):
        named(kept, name)


def test_a_name_of_several_peers_lists_these() -> None:
    alike = [Stream(bytes([0xAB, last]).ljust(12, b"\0")) for last in (1, 2)]
    stranger = Stream(bytes(12))
    kept = archive([], terms=PRIVATE)
    for stream in (*alike, stranger):
        kept.publish(Message(stream, 0, 0, 0.25, b"\x38"), None)
    with pytest.raises(RecipeError, match="'ab' stands for several peers; give more of its digits") as refusal:
        named(kept, "ab")
    assert all(full_name(stream) in str(refusal.value) for stream in alike)
    assert full_name(stranger) not in str(refusal.value)
    assert named(kept, "ab01") == alike[:1]
