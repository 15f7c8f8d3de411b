"""Pulses: what a chain reveals, who believes it, and what is noticed by them."""

from __future__ import annotations

import pytest

from network import (
    TIMING,
    Network,
    beat,
    decoded,
    greeted,
    hear,
    key_of,
    message,
    protocol,
    pulse,
    pulses,
    said,
    sent,
)
from shared_seed.errors import MessageError
from shared_seed.identity import Key
from shared_seed.messages import Stream
from shared_seed.swarm import wire
from shared_seed.swarm.budget import BURST
from shared_seed.swarm.heartbeats import RARELY
from shared_seed.swarm.output import Output, Publish
from shared_seed.swarm.protocol import MOST_ASTRAY, Protocol
from shared_seed.swarm.pulses import DEPTH, LENGTH, PULSE_SIZE, Pulses, following, steps
from shared_seed.swarm.wire import Request, State
from swarming import TERMS, introduction


def published(outputs: list[Output]) -> list[wire.AnyFrame]:
    return decoded([output for output in outputs if isinstance(output, Publish)])


def listener(chain: Pulses, name: str = "b", state: State = State.TRAINING) -> Protocol:
    """A peer that has heard another's heartbeat and its first pulse."""
    peer = protocol("a", said(name, 0))
    peer.hear(beat(name, 1, state), 0.0, forward=False)
    peer.hear(pulse(chain), 0.0, forward=False)
    return peer


# The chain


def test_numbers_are_those_that_docs_format_md_describes() -> None:
    assert following(bytes(16), bytes(8)).hex() == "958a680d7ee95624"
    assert Pulses(Key(bytes(32)), Stream(bytes(12)), bytes(16), 1).last.hex() == "a97d51766a53e478"


def test_each_number_leads_to_those_before_it_and_to_no_other_stream_s() -> None:
    chain, name = pulses("b"), pulses("b").stream.to_bytes()
    known = chain.last
    assert steps(name, chain.beat(False), known) == 1
    assert steps(name, chain.beat(True), known) == 3
    assert steps(pulses("c").stream.to_bytes(), chain.last, known) == 0
    assert steps(name, known, known) == 0
    for _ in range(DEPTH - 3):
        chain.beat(False)
    assert steps(name, chain.last, known) == DEPTH
    assert steps(name, chain.beat(False), known) == 0


def test_a_chain_ends() -> None:
    chain = pulses("b")
    numbers = {chain.last, *(chain.beat(False) for _ in range(LENGTH))}
    assert len(chain) == 0
    assert len(numbers) == LENGTH + 1
    assert {len(number) for number in numbers} == {PULSE_SIZE}
    with pytest.raises(IndexError):
        chain.beat(False)


def test_chains_of_one_stream_differ() -> None:
    ends = {
        Pulses(key_of("b"), pulses("b").stream, seal, number).last
        for seal in (TERMS.seal, bytes(16))
        for number in (1, 2)
    }
    assert len(ends) == 4


# What is heard


def test_a_pulse_is_a_sign_of_life_that_is_forwarded_untouched_and_only_when_new() -> None:
    chain = pulses("b")
    peer = listener(chain)
    frame = pulse(chain)
    assert peer.hear(frame, TIMING.timeout - 1, forward=True) == [Publish(frame)]
    assert peer.hear(frame, TIMING.timeout - 1, forward=True) == []
    assert [view.name for view in peer.live(2 * TIMING.timeout - 1.1)] == ["b"]
    assert peer.live(2 * TIMING.timeout - 1) == []


def test_nobody_is_kept_alive_by_others() -> None:
    chain = pulses("b")
    peer = listener(chain)
    known = chain.last
    for number in (known, bytes(PULSE_SIZE), following(chain.stream.to_bytes(), known), pulses("c").beat(False)):
        frame = wire.encode_pulse(wire.Pulse(chain.stream.to_bytes(), number))
        assert peer.hear(frame, TIMING.timeout - 1, forward=True) == []
    assert peer.live(TIMING.timeout) == []


def test_who_sends_many_pulses_that_lead_nowhere_is_not_looked_into_for_a_while() -> None:
    chain = pulses("b")
    peer = listener(chain)
    name = chain.stream.to_bytes()
    for number in range(int(BURST * MOST_ASTRAY)):
        astray = wire.encode_pulse(wire.Pulse(name, number.to_bytes(PULSE_SIZE, "big")))
        assert peer.hear(astray, 0.0, forward=True, sender=b"m") == []
    frame = pulse(chain)
    assert peer.hear(frame, 0.0, forward=True, sender=b"m") == [], "its budget of futile hashes is used up"
    assert peer.hear(frame, 0.0, forward=True, sender=b"n") == [Publish(frame)], "another's is not"
    frame = pulse(chain)
    assert peer.hear(frame, 1.0, forward=True, sender=b"m") == [Publish(frame)]


def test_who_copies_the_end_of_another_s_chain_cannot_go_on_from_there() -> None:
    chain = pulses("b")
    peer = listener(chain)
    said = wire.decode(beat("c", 1), TERMS.seal)
    assert isinstance(said, wire.SignedHeartbeat)
    fields = {name: getattr(said.beat, name) for name in said.beat.__struct_fields__}
    copied = wire.Heartbeat(**{**fields, "pulse": chain.last})
    peer.hear(wire.encode_beat(copied, key_of("c").sign(wire.text_of(copied, TERMS.seal))), 0.0, forward=False)
    number = chain.beat(False)
    stolen = wire.encode_pulse(wire.Pulse(pulses("c").stream.to_bytes(), number))
    assert peer.hear(stolen, 5.0, forward=True) == []
    assert peer.hear(wire.encode_pulse(wire.Pulse(chain.stream.to_bytes(), number)), 5.0, forward=True)
    assert [view.name for view in peer.live(TIMING.timeout)] == ["b"]


def test_pulses_of_unknown_peers_and_our_own_are_passed_over() -> None:
    peer = protocol("a")
    for name in ("a", "b"):
        assert peer.hear(pulse(pulses(name)), 0.0, forward=True) == []
    assert peer.roster.peers == {}


def test_pulses_are_refused_on_links() -> None:
    peer = protocol("a")
    with pytest.raises(MessageError, match="publications"):
        peer.receive(greeted(peer, "b"), pulse(pulses("b")), 0.0)


def test_a_later_heartbeat_goes_on_from_the_number_that_it_states() -> None:
    chain = pulses("b")
    peer = listener(chain)
    for _ in range(DEPTH + 1):
        chain.beat(False)
    lost = chain.last
    assert peer.hear(pulse(chain), 1.0, forward=True) == []
    said = wire.decode(beat("b", 2), TERMS.seal)
    assert isinstance(said, wire.SignedHeartbeat)
    fields = {name: getattr(said.beat, name) for name in said.beat.__struct_fields__}
    stated = wire.Heartbeat(**{**fields, "pulse": lost})
    peer.hear(wire.encode_beat(stated, key_of("b").sign(wire.text_of(stated, TERMS.seal))), 2.0, forward=False)
    assert peer.hear(pulse(chain), 3.0, forward=True)


# What is noticed


def requests(peer: Protocol, now: float) -> list[Request]:
    return [frame for _, frame in sent(peer.tick(now), Request) if isinstance(frame, Request)]


@pytest.mark.parametrize("lost", ["nothing", "the message", "the message and a pulse"])
def test_a_message_that_got_lost_is_asked_for_after_its_sender_s_next_pulse(lost: str) -> None:
    chain = pulses("b")
    peer = listener(chain)
    greeted(peer, "c")
    if lost == "nothing":
        hear(peer, said("b", 1).signed[0], 1.0)
    if lost == "the message and a pulse":
        chain.beat(True)
        peer.hear(pulse(chain), 5.0, forward=False)
    else:
        peer.hear(pulse(chain, has_published=True), 3.0, forward=False)
    asked = requests(peer, 5.1)
    assert [(each.stream, each.start) for each in asked] == (
        [] if lost == "nothing" else [(chain.stream.to_bytes(), 0)]
    )


def test_who_makes_no_messages_is_not_asked_for_any() -> None:
    chain = pulses("b")
    peer = listener(chain, state=State.RELAYING)
    greeted(peer, "c")
    chain.beat(False)
    peer.hear(pulse(chain), 5.0, forward=False)
    assert requests(peer, 5.1) == []


# What is said


def kinds(peer: Protocol, seconds: int, publish: bool = False) -> list[tuple[int, str]]:
    """What a peer gives of itself, second by second."""
    out = []
    for now in range(seconds):
        if publish and now:
            peer.publish(message("a", now - 1), float(now))
        out += [(now, type(frame).__name__) for frame in published(peer.tick(float(now)))]
    return out


@pytest.mark.parametrize("state", [State.TRAINING, State.RELAYING])
def test_signs_of_life_come_at_their_interval_and_heartbeats_ever_more_rarely(state: State) -> None:
    peer = protocol("a")
    peer.enter(state, 0, 0.0)
    given = kinds(peer, 600)
    assert [now for now, _ in given] == list(range(2, 600, 2))
    assert [now for now, kind in given if kind == "SignedHeartbeat"] == [2, 6, 14, 30, 62, 126, 254, 382, 510]
    assert RARELY * TIMING.heartbeat == 382 - 254


def test_who_publishes_all_the_time_only_repeats_what_it_has_said() -> None:
    peer = protocol("a")
    peer.enter(State.TRAINING, 0, 0.0)
    assert kinds(peer, 70, publish=True) == [(now, "SignedHeartbeat") for now in (2, 6, 14, 30, 62)]


@pytest.mark.parametrize("state", [State.LOADING, State.READY, State.FINISHED])
def test_where_it_counts_what_is_held_there_are_heartbeats_alone(state: State) -> None:
    peer = protocol("a")
    peer.enter(state, 0, 0.0)
    assert kinds(peer, 20) == [(now, "SignedHeartbeat") for now in range(2, 20, 2)]


def test_a_chain_that_is_used_up_is_followed_by_another_which_is_said_anew() -> None:
    peer, other = protocol("a"), protocol("b")
    beats = []
    for now in range(2 * LENGTH + 100):
        outputs = peer.enter(State.TRAINING, 0, 0.0) if now == 0 else peer.tick(float(now))
        for output in outputs:
            assert isinstance(output, Publish)
            assert other.hear(output.frame, float(now), forward=True), "a pulse that is not understood"
            frame = wire.decode(output.frame, TERMS.seal)
            beats += [(now, frame.beat.pulse)] if isinstance(frame, wire.SignedHeartbeat) else []
    chains = Pulses(key_of("a"), pulses("a").stream, TERMS.seal, 1)
    first = {chains.last, *(chains.beat(False) for _ in range(LENGTH))}
    times = [now for now, number in beats if number not in first]
    assert [later - times[0] for later in times[:3]] == [0, 2, 6]


def test_who_is_asked_to_compare_says_sooner_what_it_holds() -> None:
    peer = protocol("a")
    peer.enter(State.TRAINING, 0, 0.0)
    kinds(peer, 100)
    link = greeted(peer, "b", 100.0)
    summaries = [(bucket.messages, bucket.digest) for bucket in peer.archive.buckets()]
    peer.receive(link, wire.encode(wire.Compare(True, summaries)), 100.0)
    frames = [(now, published(peer.tick(float(now)))) for now in range(100, 110)]
    said = [now for now, each in frames if any(isinstance(frame, wire.SignedHeartbeat) for frame in each)]
    assert said == [102, 104, 108]


@pytest.mark.parametrize("seconds", [15, 100, 600])
def test_after_a_cut_of_any_length_peers_know_within_seconds_that_the_others_are_there(seconds: int) -> None:
    names = [f"peer{n}" for n in range(4)]
    network = Network(
        {name: protocol(name) for name in names},
        [(names[1], names[0]), (names[2], names[0]), (names[3], names[1])],
    )
    for name, peer in network.peers.items():
        network.carry(name, peer.enter(State.TRAINING, 0, network.now))
    network.run(70)
    cut = {True}
    network.drop = lambda sender, receiver, frame: bool(cut) and {sender, receiver} == {names[0], names[1]}
    network.run(seconds)
    assert [len(peer.live(network.now)) for peer in network.peers.values()] == [1, 1, 1, 1]
    cut.clear()
    network.run(4 * TIMING.heartbeat)
    assert [len(peer.live(network.now)) for peer in network.peers.values()] == [3, 3, 3, 3]


def test_a_message_that_was_fetched_says_how_far_its_writer_is() -> None:
    one = said("b", 3)
    peer = protocol("a", said("b", 2))
    peer.hear(beat("b", 1, round_=2), 0.0, forward=False)
    link = greeted(peer, "c")
    chunk = wire.Chunk.of(one.stream.to_bytes(), wire.Guest.of(introduction(key_of("b"))), 2, one.stretches(2))
    assert [view.name for view in peer.waits_for(2, 1.0)] == ["b"]
    peer.receive(link, wire.encode(chunk), 1.0)
    assert peer.waits_for(2, 1.0) == []
