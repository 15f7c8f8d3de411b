"""Weights from base and log: all of it, up to a round, and without a peer."""

from __future__ import annotations

import copy
import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_seed import history, replay
from shared_seed.errors import RecipeError
from shared_seed.log import Contents
from shared_seed.manifest import Aggregation
from shared_seed.messages import Message, Stream
from shared_seed.selection import Selection, full_name
from shared_seed.signed import Signed
from test_aggregation import histories, replica_of
from test_update import Layers, layers

NOTHING_FROZEN = "e3b0c44298fc1c14"
"""The hash of nothing: replay compares what is not trained too."""

WRITER = Stream(b"w" * 12)
rules = st.sampled_from([Aggregation(), Aggregation(kind="clip"), Aggregation(kind="trimmed")])


def contents_of(model: Layers, rule: Aggregation, messages: list[Message]) -> Contents:
    """A private run's log with these messages, one a round of a stream."""
    manifest = replica_of(copy.deepcopy(model), rule).manifest
    manifest = manifest.model_copy(update={"frozen_digest": NOTHING_FROZEN})
    return Contents(manifest, [Signed(dataclasses.replace(m, round=m.number)) for m in messages])


def holding(contents: Contents, messages: list[Message]) -> Contents:
    return dataclasses.replace(contents, signed=list(map(Signed, messages)))


@given(rule=rules, model=layers(), messages=histories(), draw=st.randoms(use_true_random=False))
def test_leaving_peers_out_gives_the_bits_of_a_log_that_lacks_them(
    rule: Aggregation, model: Layers, messages: list[Message], draw: random.Random
) -> None:
    whole = contents_of(model, rule, messages)
    streams = list(dict.fromkeys(m.stream for m in messages))
    gone = draw.sample(streams, draw.randint(0, len(streams)))
    lacking = holding(whole, [m for m in whole.messages if m.stream not in gone])
    expected = replay.rebuild(copy.deepcopy(model), lacking)
    found = replay.rebuild(model, whole, selection=Selection(without=tuple(map(full_name, gone))))
    assert found.digest() == expected.digest()
    assert (found.messages, found.gradients) == (expected.messages, expected.gradients)


@given(rule=rules, model=layers(), messages=histories(), until=st.integers(0, 4))
def test_until_gives_the_bits_of_a_log_that_ends_there(
    rule: Aggregation, model: Layers, messages: list[Message], until: int
) -> None:
    whole = contents_of(model, rule, messages)
    cut = holding(whole, [m for m in whole.messages if m.round < until])
    found = replay.rebuild(copy.deepcopy(model), whole, selection=Selection(until=until))
    assert found.digest() == replay.rebuild(model, cut).digest()


def test_progress_is_told_up_to_the_number_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "BATCH", 2)
    model = Layers(3, 4, 5, 0)
    contents = contents_of(model, Aggregation(), [Message(WRITER, n, n, 0.25, b"\x38") for n in range(5)])
    told: list[tuple[int, int]] = []
    replay.rebuild(model, contents, lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_a_name_of_nobody_is_refused_before_the_model_is_touched() -> None:
    model = Layers(3, 4, 5, 0)
    contents = contents_of(model, Aggregation(), [Message(WRITER, 0, 0, 0.25, b"\x38")])
    assert len(history.archive_of(contents)) == 1
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RecipeError, match="stands for nobody"):
        replay.rebuild(model, contents, selection=Selection(without=("ffff",)))
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
