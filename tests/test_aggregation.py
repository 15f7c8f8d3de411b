"""Clipped and trimmed rounds: steps of the set of messages alone, whatever came when, and what they bear."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import random
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

import models
from shared_seed import aggregation, codec, log, replay
from shared_seed.aggregation import Rounds, Steps
from shared_seed.errors import HeadroomError, RecipeError
from shared_seed.folder import LOG_NAME
from shared_seed.log import Contents
from shared_seed.manifest import Aggregation, Manifest
from shared_seed.messages import Message, Stream, as_float32, directions_of
from shared_seed.noise import Purpose, Sample, reference, stream_key
from shared_seed.replica import Replica
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.signed import Signed
from shared_seed.training import Training
from test_update import Layers, in_units, layers, slow_direction

RUN = bytes.fromhex("00112233445566778899aabbccddeeff")
CLIP = Aggregation(kind="clip")
TRIMMED = Aggregation(kind="trimmed")


def peer(number: int, incarnation: int = 0) -> Stream:
    return Stream(bytes([number]) * 12, incarnation)


def said(writer: int, codes: bytes, *, round_: int = 0, rate: float = 0.5, number: int = 0) -> Message:
    return Message(peer(writer), number, round_, as_float32(rate), codes)


def replica_of(model: nn.Module, rule: Aggregation) -> Replica:
    plain = models.replica_of(model)
    return Replica(plain.weights, plain.manifest.model_copy(update={"aggregation": rule}))


def slow_steps(rule: Aggregation, messages: Sequence[Message], scale_exponent: int = 0) -> Steps:
    """One round's steps in rational numbers, rounded where the definition does, from the module's words."""
    unique = sorted({m.encode(): m for m in messages}.values(), key=lambda m: (m.stream, m.number))
    peers = {m.stream.peer for m in unique}

    def coefficient(message: Message, code: int) -> Fraction:
        return Fraction(message.learning_rate) * Fraction(codec.decode(code, scale_exponent))

    out: Steps = {}
    if rule.kind == "trimmed":
        for index in range(max(len(m.codes) for m in unique)):
            values = []
            for one in peers:
                codes = [(m, m.codes[index]) for m in unique if m.stream.peer == one and index < len(m.codes)]
                if not codes:
                    values.append(Fraction(0))
                elif codes[0][1] & 0x7F != 0x7F:
                    values.append(coefficient(*codes[0]))
            values.sort()
            drop = min(math.ceil(rule.trim * len(values)), (len(values) - 1) // 2) if values else 0
            kept = values[drop : len(values) - drop]
            if sum(kept) != 0:
                out[Sample(stream_key(RUN, b""), unique[0].round, index)] = -len(values) * (
                    float(sum(kept)) / len(kept)
                )
        return out
    found: dict[bytes, dict[Sample, Fraction]] = {one: {} for one in peers}
    for message in unique:
        for index, code in enumerate(message.codes):
            if code & 0x7F not in (0x00, 0x7F) and message.learning_rate:
                key = stream_key(RUN, message.stream.to_bytes())
                found[message.stream.peer][Sample(key, message.number, index)] = coefficient(message, code)
    totals = sorted(float(sum(map(abs, of.values()))) for of in found.values() if of)
    for of in found.values():
        for sample, value in of.items():
            limit = rule.factor * totals[(len(totals) - 1) // 2]
            out[sample] = -float(value) * min(1.0, limit / float(sum(map(abs, of.values()))))
    return out


def slow_units(replica: Replica, messages: Sequence[Message]) -> list[list[int]]:
    """What the weights are after messages, in Python integers of grid units."""
    by_round: dict[int, list[Message]] = {}
    for message in messages:
        by_round.setdefault(message.round, []).append(message)
    out = in_units(replica)
    for some in by_round.values():
        for sample, step in slow_steps(replica.manifest.aggregation, some).items():
            for tensor, values in zip(replica.weights, out, strict=True):
                units = tensor.grid.units(step, reference.block(sample, tensor.index, Purpose.ROUNDING)[0])
                shape = tuple(tensor.parameter.shape)
                for e, sign in enumerate(slow_direction(tensor.family, sample, tensor.index, shape)):
                    values[e] += units * sign
    return out


rules = st.one_of(
    st.builds(lambda factor: Aggregation(kind="clip", factor=factor), st.floats(0.1, 10)),
    st.builds(lambda trim: Aggregation(kind="trimmed", trim=trim), st.floats(0, 0.49)),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """Messages of up to five peers, some restarted, some with several messages in one round."""
    codes = st.one_of(st.integers(0, 0x58), st.integers(0x80, 0xD8), st.sampled_from([0x7F, 0xFF]))
    rates = st.one_of(st.sampled_from([0.0, 2.0**-20]), st.floats(1e-7, 1e-2)).map(as_float32)
    streams = st.builds(peer, st.integers(1, 5), st.integers(0, 1))
    out = []
    for stream in draw(st.lists(streams, min_size=1, max_size=7, unique=True)):
        for number in range(draw(st.integers(1, 3))):
            found = bytes(draw(st.lists(codes, min_size=1, max_size=3)))
            out.append(Message(stream, number, draw(st.integers(0, 2)), draw(rates), found))
    return out


@given(rule=rules, messages=histories(), shuffler=st.randoms(use_true_random=False))
def test_steps_are_those_of_slow_rational_arithmetic_in_any_order_and_with_duplicates(
    rule: Aggregation, messages: list[Message], shuffler: random.Random
) -> None:
    one_round = [m for m in messages if m.round == messages[0].round]
    expected = slow_steps(rule, one_round)
    again = one_round + shuffler.sample(one_round, len(one_round) // 2)
    assert aggregation.steps(rule, shuffler.sample(again, len(again)), RUN, 0) == expected


@given(rule=rules, model=layers(), messages=histories(), shuffler=st.randoms(use_true_random=False))
def test_any_order_grouping_and_duplicates_give_the_bits_of_slow_arithmetic(
    rule: Aggregation, model: Layers, messages: list[Message], shuffler: random.Random
) -> None:
    together = replica_of(copy.deepcopy(model), rule)
    expected = slow_units(together, messages)
    together.apply(messages)
    assert in_units(together) == expected

    in_groups = replica_of(copy.deepcopy(model), rule)
    arrivals = shuffler.sample(messages * 2, 2 * len(messages))
    while arrivals:
        count = shuffler.randint(1, len(arrivals))
        in_groups.apply(arrivals[:count])
        arrivals = arrivals[count:]
    assert in_groups.digest() == together.digest()
    assert in_groups.messages == len(messages)
    assert in_groups.gradients == sum(len(m.codes) for m in messages)


@given(rule=rules, model=layers(), messages=histories(), shuffler=st.randoms(use_true_random=False))
def test_taking_messages_back_leaves_the_bits_of_a_run_without_them(
    rule: Aggregation, model: Layers, messages: list[Message], shuffler: random.Random
) -> None:
    gone = shuffler.sample(messages, shuffler.randint(0, len(messages)))
    stayed = [m for m in messages if m not in gone]
    without = replica_of(copy.deepcopy(model), rule)
    without.apply(stayed)
    replica = replica_of(model, rule)
    replica.apply(messages)
    for start in range(0, len(gone), 2):
        replica.apply(gone[start : start + 2], sign=-1)
    replica.apply(gone, sign=-1)  # what is not there is passed over
    assert replica.digest() == without.digest()
    assert (replica.messages, replica.gradients) == (without.messages, without.gradients)


@given(rule=rules, model=layers(), messages=histories())
def test_replay_gives_the_same_bits(rule: Aggregation, model: Layers, messages: list[Message]) -> None:
    base = copy.deepcopy(model)
    replica = replica_of(model, rule)
    messages = [dataclasses.replace(m, round=m.number) for m in messages]  # A log holds one a round of a stream.
    replica.apply(messages)
    # The hash of nothing: replay compares what is not trained too.
    manifest = replica.manifest.model_copy(update={"frozen_digest": "e3b0c44298fc1c14"})
    latest_stream_first = sorted(messages, key=lambda m: (m.stream, -m.number), reverse=True)
    again = replay.rebuild(base, Contents(manifest, list(map(Signed, latest_stream_first))))
    assert again.digest() == replica.digest()


def test_weights_that_hold_messages_already_take_back_what_a_round_came_to() -> None:
    """As after a checkpoint."""
    rule, model = TRIMMED, nn.Linear(4, 3)
    first = [said(w, b"\x38", rate=0.01) for w in range(3)]
    replica = replica_of(copy.deepcopy(model), rule)
    replica.apply([*first, said(3, b"\x48", rate=0.01)])
    before = replica_of(model, rule)
    before.apply(first)
    resumed = Replica(before.weights, before.manifest)
    resumed.hold(first)
    resumed.apply([said(3, b"\x48", rate=0.01)])
    assert resumed.digest() == replica.digest()
    assert resumed.messages == 4


def test_a_step_beyond_the_grid_changes_neither_weights_nor_rounds() -> None:
    model = nn.Linear(4, 3)
    replica = replica_of(model, CLIP)
    replica.apply([said(1, b"\x38", rate=0.01)])
    before, counts = models.bits(model), (replica.messages, replica.gradients)
    far = [said(2, bytes([0x7E] * 40), rate=1.0, number=n) for n in range(60)]
    with pytest.raises(HeadroomError):
        replica.apply([*far, *(said(3, bytes([0x7E] * 40), rate=1.0, number=n) for n in range(60))])
    assert models.bits(model) == before
    assert (replica.messages, replica.gradients) == counts
    replica.apply([said(1, b"\x38", rate=0.01)], sign=-1)
    fresh = nn.Linear(4, 3)
    fresh.load_state_dict(model.state_dict())
    assert replica.digest() == models.replica_of(fresh).digest()
    assert replica.messages == 0


# The default


def test_a_plain_sum_gives_the_digests_that_it_gave_before_there_was_anything_else() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5))
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).view(parameter.shape) / 16 + i)
    replica = models.replica_of(model)
    replica.apply(
        [
            Message(models.stream(w), n, n, as_float32(0.01 * (w + 1)), bytes([16 * w + n, 0x7F, 0x80 + n]))
            for w in range(3)
            for n in range(4)
        ]
    )
    assert replica.digest().hex() == "aecc7fb952bdd8384644bb2b00f5c050cd94d3034139f5a9002b7afd9d990302"


def test_a_manifest_says_nothing_of_a_plain_sum_and_says_all_of_another_rule() -> None:
    plain = models.replica_of(nn.Linear(2, 2)).manifest
    assert b"aggregation" not in plain.canonical()
    other = plain.model_copy(update={"aggregation": Aggregation(kind="trimmed", trim=0.125)})
    assert b'"aggregation":{"factor":3.0,"kind":"trimmed","trim":0.125}' in other.canonical()
    assert Manifest.unpack(other.pack()) == other
    assert Manifest.unpack(plain.pack()) == plain
    assert other.digest() != plain.digest()


@pytest.mark.parametrize(
    "wrong", [{"kind": "median"}, {"factor": 0}, {"factor": math.inf}, {"trim": 0.5}, {"trim": -0.1}, {"more": 1}]
)
def test_a_manifest_refuses_other_rules(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Aggregation.model_validate(wrong)


# What the rules bear


def at(steps: Steps, message: Message, rule: Aggregation, index: int = 0) -> float:
    key, number = directions_of(RUN, message.stream, message.number, message.round, rule.shared)
    return steps[Sample(key, number, index)]


def test_clip_leaves_alike_peers_alone_and_cuts_the_loud_one() -> None:
    quiet = [said(w, bytes([code])) for w, code in enumerate((0x38, 0xB8, 0x40))]  # 1, -1, 2
    loud = said(9, b"\x7e")
    steps = aggregation.steps(CLIP, [*quiet, loud], RUN, 0)
    assert [at(steps, m, CLIP) for m in quiet] == [-0.5, 0.5, -1.0]
    assert at(steps, loud, CLIP) == -3 * 0.5


@pytest.mark.parametrize(
    "loud",
    [
        [said(9, b"\x7e" * 255)],
        [said(9, b"\x38", rate=1e6)],
        [said(9, b"\x38", number=n) for n in range(100)],
        [Message(peer(9, n), 0, 0, 0.5, b"\x38") for n in range(100)],
    ],
    ids=["codes", "learning rate", "messages", "streams"],
)
def test_clip_bounds_what_a_peer_adds_up_to_however_it_says_it(loud: list[Message]) -> None:
    quiet = [said(w, b"\x38") for w in range(3)]
    steps = aggregation.steps(CLIP, [*quiet, *loud], RUN, 0)
    total = math.fsum(abs(step) for step in steps.values())
    assert total == pytest.approx(3 * 0.5 + 3 * 0.5, rel=1e-12)


def test_clip_of_two_peers_takes_the_quieter_ones_measure() -> None:
    quiet, loud = said(1, b"\x38"), said(2, b"\x7e")
    steps = aggregation.steps(CLIP, [quiet, loud], RUN, 0)
    assert (at(steps, quiet, CLIP), at(steps, loud, CLIP)) == (-0.5, -1.5)


def test_trimmed_is_as_long_as_the_sum_of_alike_ones() -> None:
    alike = [said(w, b"\x38") for w in range(10)]
    assert list(aggregation.steps(TRIMMED, alike, RUN, 0).values()) == [-10 * 0.5]


@pytest.mark.parametrize("hostile", [b"\x7e", b"\xfe"])
def test_trimmed_stays_among_honest_coefficients_while_the_hostile_are_no_more_than_it_drops(
    hostile: bytes,
) -> None:
    honest = [said(w, bytes([0x30 + w])) for w in range(7)]
    steps = aggregation.steps(TRIMMED, [*honest, *(said(w, hostile) for w in (20, 21, 22))], RUN, 0)
    (step,) = steps.values()
    assert 0.5 * codec.decode(0x30) <= -step / 10 <= 0.5 * codec.decode(0x36)


def test_trimmed_gives_a_peer_one_vote_and_nothing_along_directions_of_the_hostile_alone() -> None:
    honest = [said(w, b"\x38") for w in range(4)]
    votes = [said(9, b"\x7e" * 255, number=n) for n in range(50)]
    assert list(aggregation.steps(TRIMMED, [*honest, *votes], RUN, 0).values()) == [-5 * 0.5]


def test_trimmed_leaves_out_who_abstains() -> None:
    steps = aggregation.steps(TRIMMED, [said(1, b"\x38"), said(2, b"\x38"), said(3, b"\x7f")], RUN, 0)
    assert list(steps.values()) == [-2 * 0.5]
    assert aggregation.steps(TRIMMED, [said(3, b"\xff")], RUN, 0) == {}


def test_streams_share_directions_of_one_round_and_index_only_where_the_rule_says_so() -> None:
    def directions(shared: bool) -> set[tuple[int, int]]:
        return {
            directions_of(RUN, peer(w), number, round_, shared)
            for w in (1, 2)
            for number, round_ in ((0, 5), (1, 6))
        }

    assert len(directions(False)) == 4
    assert directions(True) == {(stream_key(RUN, b""), 5), (stream_key(RUN, b""), 6)}


def test_only_steps_that_differ_are_taken_back() -> None:
    rounds = Rounds(CLIP, RUN, 0)
    first = [said(w, b"\x38") for w in range(3)]
    rounds.note(first, 1)
    assert [move.sign for move in rounds.moves([said(4, b"\x7e")], 1)] == [1]
    assert rounds.fresh([*first, *first], 1) == []
    assert rounds.fresh([*first, *first], -1) == first


# In sessions


@pytest.mark.parametrize("kind", ["clip", "trimmed"])
def test_a_session_probes_and_moves_along_the_same_direction(tmp_path: Path, kind: Any) -> None:
    """One step lowers the loss that it probed: along another direction than probed, it would not every time."""
    torch.manual_seed(3)
    inputs, model = torch.randn(16, 6), nn.Linear(6, 1)
    base = copy.deepcopy(model)
    session = Session.open(model, Settings(folder=tmp_path, aggregation=kind), Training(rounds=20))

    def loss() -> torch.Tensor:
        return model(inputs).square().mean()

    session.begin()
    losses = [loss().item()]
    for _ in range(20):
        session.measure(loss)
        session.step(2.0**-7)
        losses.append(loss().item())
    outcome = session.finish()
    assert all(after < before for before, after in itertools.pairwise(losses))
    contents = log.read(tmp_path / LOG_NAME)
    assert contents.manifest.aggregation.kind == kind
    assert replay.rebuild(base, contents).digest().hex() == outcome.digest
    assert len(set(contents.messages)) == 20


@pytest.mark.parametrize(
    ("field", "value"), [("aggregation", "median"), ("factor", 0.0), ("factor", math.inf), ("trim", 0.5)]
)
def test_settings_refuse_what_is_no_rule(field: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=f"{field} is {value!r}"):
        Settings(**{field: value})
