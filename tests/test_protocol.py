"""The protocol without sockets: greetings, publications, orders and forks."""

from __future__ import annotations

import random

import pytest

from network import (
    AGREED,
    TIMING,
    Network,
    Shape,
    beat,
    chain,
    decoded,
    greeted,
    hear,
    hello,
    key_of,
    mesh,
    message,
    messages,
    protocol,
    said,
    sent,
    star,
    stream,
    swarm,
)
from shared_seed import identity
from shared_seed.archive import Archive
from shared_seed.errors import MessageError
from shared_seed.messages import Message, as_float32
from shared_seed.signed import Signed
from shared_seed.swarm import wire
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.output import Join, Publish, Send
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import Chunk, Guest, Heartbeat, Hello, Refusal, Request, State, Welcome
from swarming import OWNER, TERMS, ban, introduction, invite, manifest

SHAPES = pytest.mark.parametrize("shape", [star, chain, mesh], ids=["star", "chain", "mesh"])


@SHAPES
@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", [1, 2])
def test_after_quiet_time_all_have_the_same_set_in_spite_of_loss(shape: Shape, count: int, seed: int) -> None:
    network = swarm(count, shape, seed=seed, loss=0.25, doubling=0.25, delay=2.0)
    left = {name: messages(name, 25) for name in network.peers}
    chance = random.Random(seed)

    def publish_sometimes() -> None:
        for name, peer in network.peers.items():
            if left[name] and chance.random() < 0.2:
                network.carry(name, peer.publish(left[name].pop(0), network.now))

    network.run(30, publish_sometimes)
    assert not any(left.values())
    network.run(60)
    expected = {m for name in network.peers for m in messages(name, 25)}
    for peer in network.peers.values():
        assert set(peer.archive) == expected
        assert peer.has_all(network.now)
        assert peer.all_equal(network.now)
        taken = peer.take().fresh
        assert len(taken) == len(expected)
        assert set(taken) == expected
        assert peer.take().fresh == []
    # Introductions and welcomes that are lost leave what comes after them unread until the next.
    assert all("without a greeting" in r or "nobody has introduced" in r for r in network.refused)


@SHAPES
def test_a_quiet_swarm_sends_heartbeats_and_greetings_alone(shape: Shape) -> None:
    network = swarm(4, shape)
    network.run(20)
    network.carried.clear()
    network.run(20)
    assert network.count(wire.SignedHeartbeat) > 0
    assert network.count(Request) == network.count(Chunk) == network.count(Signed) == 0


@SHAPES
def test_a_calm_swarm_needs_no_catch_up(shape: Shape) -> None:
    network = swarm(4, shape)
    network.run(10)
    for number in range(10):
        for name, peer in network.peers.items():
            network.carry(name, peer.publish(message(name, number), network.now))
        network.run(1)
    assert all(len(peer.archive) == 40 for peer in network.peers.values())
    assert network.count(Request) == 0


@SHAPES
def test_a_flood_ends(shape: Shape) -> None:
    network = swarm(5, shape)
    network.run(10)
    network.carried.clear()
    network.carry("peer3", network.peers["peer3"].publish(message("peer3", 0), network.now))
    network.run(5)
    copies = network.count(Signed)
    assert all(len(peer.archive) == 1 for peer in network.peers.values())
    # Each of the peers that passes it on does so once, to all of its neighbours.
    assert copies <= 2 * len(network.dials)


# Greeting


def test_who_asks_without_a_digest_gets_the_manifest_and_its_signature() -> None:
    answer = decoded(protocol("a").receive(("accepted", b"b"), hello("b", b""), 0.0))
    guest = Guest.of(introduction(key_of("a")))
    assert answer == [Welcome(stream("a").to_bytes(), "a", guest, AGREED.packed, AGREED.signature)]


def test_who_has_the_right_digest_is_welcome_and_hears_at_once_what_we_have() -> None:
    peer = protocol("a", said("a", 2))
    welcome, heartbeat = decoded(peer.receive(("accepted", b"b"), hello("b"), 0.0))
    assert welcome == Welcome(stream("a").to_bytes(), "a", Guest.of(introduction(key_of("a"))))
    assert isinstance(heartbeat, wire.SignedHeartbeat)
    assert (heartbeat.beat.messages, heartbeat.beat.held) == (2, peer.archive.digest())


def test_who_is_welcome_joins_once_it_hears_so() -> None:
    peer = protocol("b")
    peer.dialled(("dialled", "a"), key_of("a").public)
    welcome = Welcome(stream("a").to_bytes(), "a", Guest.of(introduction(key_of("a"))))
    out = peer.receive(("dialled", "a"), wire.encode(welcome), 0.0)
    assert out[0] == Join(("dialled", "a"))
    with pytest.raises(MessageError, match="did not dial"):
        peer.receive(("accepted", b"a"), wire.encode(welcome), 0.0)


@pytest.mark.parametrize("digest", [bytes(32), AGREED.digest[:31], b"x"])
def test_who_has_another_digest_is_refused(digest: bytes) -> None:
    (answer,) = decoded(protocol("a").receive(("accepted", b"b"), hello("b", digest), 0.0))
    assert isinstance(answer, Refusal)
    assert "manifest" in answer.reason


@pytest.mark.parametrize("digest", [b"", bytes(32)], ids=["none", "another"])
def test_requests_are_answered_only_after_a_greeting_with_the_run_s_digest(digest: bytes) -> None:
    peer, link = protocol("a", said("a", 3)), ("accepted", b"b")
    peer.receive(link, hello("b", digest), 0.0)
    with pytest.raises(MessageError, match="without a greeting"):
        peer.receive(link, wire.encode(Request(stream("a").to_bytes(), 0, 3)), 0.0)


def test_nobody_greets_in_another_s_name() -> None:
    peer = protocol("a")
    victim = greeted(peer, "b")
    liar = Hello(stream("b").to_bytes(), "b", Guest.of(introduction(key_of("c"))), AGREED.digest)
    with pytest.raises(MessageError, match="not of the peer"):
        peer.receive(("accepted", b"c"), wire.encode(liar), 0.0)
    curve = identity.curve_public(key_of("c").public)
    assert curve is not None
    with pytest.raises(MessageError, match="another key than the link's"):
        peer.receive(("accepted", b"c"), hello("b"), 0.0, curve)
    assert peer.receive(victim, wire.encode(Request(stream("a").to_bytes(), 0)), 0.0), "the victim lost its link"


def test_a_peer_of_another_run_learns_the_reason_and_gets_nothing() -> None:
    stranger = protocol("b", terms=manifest(nonce=2))
    network = Network({"a": protocol("a", said("a", 3)), "b": stranger}, [("b", "a")])
    network.run(20)
    assert stranger.standing.refusal is not None
    assert "manifest" in stranger.standing.refusal
    assert len(stranger.archive) == 0
    assert network.count(Chunk) == 0


def test_greetings_are_repeated_since_the_other_side_may_restart() -> None:
    peer = protocol("a")
    peer.dialled(("dialled", "b"))
    times = [now for now in range(20) if sent(peer.tick(float(now)), Hello)]
    assert times == [0, 5, 10, 15]


def test_heartbeats_come_at_their_interval() -> None:
    peer = protocol("a")
    beats = [(now, frame) for now in range(10) for frame in decoded(peer.tick(float(now)))]
    assert [now for now, _ in beats] == [0, 2, 4, 6, 8]
    assert [frame.beat.beat for _, frame in beats if isinstance(frame, wire.SignedHeartbeat)] == [1, 2, 3, 4, 5]


def test_a_change_of_state_is_published_at_once() -> None:
    peer = protocol("a", said("a", 1))
    (frame,) = decoded(peer.enter(State.FINISHED, 9, 0.0, b"digest"))
    assert isinstance(frame, wire.SignedHeartbeat)
    assert (frame.beat.state, frame.beat.round, frame.beat.digest) == (State.FINISHED, 9, b"digest")
    assert identity.verify(key_of("a").public, frame.text, frame.signature)


# What is heard


def test_a_message_is_forwarded_untouched_and_only_when_new() -> None:
    peer, one = protocol("a", said("b", 0)), said("b", 1).signed[0]
    assert hear(peer, one, forward=True) == [Publish(one.encode())]
    assert hear(peer, one, forward=True) == []
    assert peer.take().fresh == [message("b", 0)]


def test_a_heartbeat_is_forwarded_untouched_and_only_when_new() -> None:
    peer = protocol("a")
    assert peer.hear(beat("b", 4), 0.0, forward=True) == [Publish(beat("b", 4))]
    assert peer.hear(beat("b", 4), 0.0, forward=True) == []
    assert peer.hear(beat("b", 3), 0.0, forward=True) == []
    assert peer.hear(beat("b", 5), 0.0, forward=True) == [Publish(beat("b", 5))]


@pytest.mark.parametrize(
    "data",
    [said("b", 1).signed[0].encode(), beat("b", 1), ban(key_of("c")).encode()],
    ids=["message", "beat", "order"],
)
def test_who_only_dials_forwards_nothing(data: bytes) -> None:
    assert protocol("a", said("b", 0)).hear(data, 0.0, forward=False) == []


def test_our_own_frames_that_come_back_are_not_new() -> None:
    peer = protocol("a")
    (one,) = peer.publish(message("a", 0), 0.0)
    (stated,) = peer.enter(State.TRAINING, 0, 0.0)
    for output in (one, stated):
        assert isinstance(output, Publish)
        assert peer.hear(output.frame, 0.0, forward=True) == []
    assert peer.take().fresh == [message("a", 0)]
    assert peer.roster.peers == {}


OTHER_GUEST = Guest.of(introduction(key_of("c")))
FORGED = {
    "unsigned": beat("b", 1)[:-64] + bytes(64),
    "signed by another": beat("b", 1, by=key_of("c")),
    "signed in another run": beat("b", 1, seal=bytes(16)),
    "signature of another heartbeat": beat("b", 1)[:-64] + beat("b", 2)[-64:],
    "cut off": beat("b", 1)[:-1],
}


@pytest.mark.parametrize("data", FORGED.values(), ids=FORGED.keys())
def test_heartbeats_that_are_not_their_sender_s_are_refused(data: bytes) -> None:
    peer = protocol("a")
    with pytest.raises(MessageError):
        peer.hear(data, 0.0, forward=True)
    assert peer.roster.peers == {}


def test_a_heartbeat_of_a_stream_that_is_another_key_s_is_refused() -> None:
    frame = Heartbeat(
        stream("b").to_bytes(), OTHER_GUEST, 1, "b", State.TRAINING, 0, 1000, 0, 0, bytes(16), bytes(8), bytes(8)
    )
    signature = key_of("c").sign(wire.text_of(frame, TERMS.seal))
    with pytest.raises(MessageError, match="not of the peer"):
        protocol("a").hear(wire.encode_beat(frame, signature), 0.0, forward=True)


OVER_THE_LIMITS = {
    "samples": Message(stream("b"), 0, 0, 0.25, bytes(5)),
    "learning rate": Message(stream("b"), 0, 0, 0.5000000596046448, bytes(1)),
    "round": Message(stream("b"), 0, TERMS.rounds, 0.25, bytes(1)),
}
over_the_limits = pytest.mark.parametrize("bad", OVER_THE_LIMITS.values(), ids=OVER_THE_LIMITS.keys())


@over_the_limits
def test_a_message_over_the_limits_is_refused_live_and_in_chunks(bad: Message) -> None:
    one = said("b", 0)
    signed = one.extend(bad)
    peer = protocol("a", said("b", 0))
    with pytest.raises(MessageError, match=r"manifest allows|round"):
        hear(peer, signed, forward=True)
    link = greeted(peer, "b")
    chunk = Chunk.of(stream("b").to_bytes(), Guest.of(introduction(key_of("b"))), 0, one.stretches())
    peer.receive(link, wire.encode(chunk), 0.0)
    assert len(peer.archive) == 0
    assert peer.take().fresh == []


@over_the_limits
def test_our_own_message_over_the_limits_is_refused(bad: Message) -> None:
    # Everybody else would refuse it, and our weights would part from theirs.
    peer = protocol("b")
    with pytest.raises(MessageError, match=r"manifest allows|round"):
        peer.publish(bad, 0.0)
    assert len(peer.archive) == 0


@pytest.mark.parametrize("limit", [0.5, 0.1, 0.3, 1e-3])
def test_a_message_at_the_limits_is_taken(limit: float) -> None:
    # float32(0.1) is above 0.1: a peer that uses exactly the rate that the manifest allows must be heard.
    limits = TERMS.limits.model_copy(update={"learning_rate": limit})
    terms = TERMS.model_copy(update={"limits": limits})
    whole = Message(stream("b"), 0, 0, as_float32(limit), bytes(4))
    hearer, writer = protocol("a", terms=terms), protocol("b", terms=terms)
    hearer.archive.introduce(introduction(key_of("b")))
    (output,) = writer.publish(whole, 0.0)
    assert isinstance(output, Publish)
    hearer.hear(output.frame, 0.0, forward=True)
    assert list(hearer.archive) == list(writer.archive) == [whole]


PUBLISHED_WRONGLY = [
    Hello(bytes(16), "", OTHER_GUEST, b""),
    Welcome(bytes(16), "", OTHER_GUEST),
    Refusal(""),
    Request(bytes(16), 0, 1),
    wire.Consult(),
]


@pytest.mark.parametrize("frame", PUBLISHED_WRONGLY, ids=lambda frame: type(frame).__name__)
def test_what_belongs_on_links_is_refused_among_publications(frame: wire.ControlFrame) -> None:
    peer = protocol("a")
    with pytest.raises(MessageError, match=type(frame).__name__):
        peer.hear(wire.encode(frame), 0.0, forward=True)
    assert peer.standing.refusal is None


def test_messages_are_refused_on_links() -> None:
    peer = protocol("a", said("b", 0))
    link = greeted(peer, "b")
    with pytest.raises(MessageError, match="publications"):
        peer.receive(link, said("b", 1).signed[0].encode(), 0.0)
    assert len(peer.archive) == 0


@pytest.mark.parametrize("data", [b"", b"\x10", b"\x01", b"\x00" * 40, b"\x10\x92\x02\xa1\xff", b"\x11", b"\x07"])
def test_bytes_that_are_no_frame_are_refused_on_both_ways(data: bytes) -> None:
    peer = protocol("a")
    link = greeted(peer, "b")
    with pytest.raises(MessageError):
        peer.hear(data, 0.0, forward=True)
    with pytest.raises(MessageError):
        peer.receive(link, data, 0.0)


def test_who_hears_nobody_any_more_is_cut_off_unless_the_last_one_heard_took_leave() -> None:
    peer = protocol("a")
    assert not peer.cut_off(0.0)
    peer.dialled(("dialled", "b"))
    assert peer.cut_off(0.0)
    # That one peer left long ago says nothing about the others, who may be waiting for us on the other side.
    peer.hear(beat("c", 1, State.LEAVING), 0.0, forward=False)
    peer.hear(beat("b", 1, State.TRAINING), 1.0, forward=False)
    assert not peer.cut_off(1.0)
    assert peer.cut_off(1.0 + TIMING.timeout)
    peer.hear(beat("b", 2, State.LEAVING), 2.0, forward=False)
    assert not peer.cut_off(2.0 + TIMING.timeout)


def test_a_relay_is_no_one_s_peer_but_one_that_we_talk_to_must_have_all_before_the_end() -> None:
    peer = protocol("a", said("a", 1))
    peer.hear(beat("relay", 1, State.RELAYING), 0.0, forward=False)
    assert peer.all_equal(0.0)
    greeted(peer, "relay")
    assert not peer.all_equal(0.0)
    peer.hear(beat("relay", 2, State.RELAYING, has=peer.archive), 0.0, forward=False)
    assert peer.all_equal(0.0)


# Orders


@SHAPES
def test_an_order_reaches_everybody_and_takes_back_what_its_subject_wrote(shape: Shape) -> None:
    network = swarm(4, shape)
    network.run(10)
    for number in range(3):
        for name, peer in network.peers.items():
            network.carry(name, peer.publish(message(name, number), network.now))
        network.run(1)
    before = [peer.take() for peer in network.peers.values()]
    assert all(len(news.fresh) == 12 for news in before)
    network.carry("peer0", network.peers["peer0"].order(ban(key_of("peer3"))))
    network.run(10)
    for name in ("peer0", "peer1", "peer2"):
        peer = network.peers[name]
        assert set(peer.take().withdrawn) == set(messages("peer3", 3))
        assert stream("peer3") not in peer.roster.peers, "nobody waits for who is out"
        assert peer.archive.digest() == network.peers["peer0"].archive.digest()
    told = network.peers["peer3"].standing.refusal
    assert told is not None
    assert "banned" in told


def test_who_missed_an_order_gets_it_from_a_neighbour() -> None:
    network = Network({name: protocol(name) for name in ("a", "b", "c")}, [("b", "a"), ("c", "b")])
    network.run(5)
    network.peers["a"].archive.accept_order(ban(key_of("gone")))
    network.run(10)
    assert all(peer.archive.is_out(key_of("gone").public) for peer in network.peers.values())


def test_who_is_banned_is_refused_and_told_when_it_comes_back() -> None:
    network = Network({"a": protocol("a"), "b": protocol("b")}, [("b", "a")])
    network.peers["a"].order(ban(key_of("b")))
    network.run(5)
    refusal = network.peers["b"].standing.refusal
    assert refusal is not None
    assert "banned" in refusal
    assert network.joined == set()
    curve = identity.curve_public(key_of("b").public) or b""
    with pytest.raises(MessageError, match="out of the run"):
        network.peers["a"].hear(beat("c", 1), 0.0, True, curve)


def test_heartbeats_of_who_is_banned_are_refused_whoever_passes_them_on() -> None:
    peer = protocol("a")
    peer.hear(beat("b", 1), 0.0, forward=False)
    peer.order(ban(key_of("b")))
    assert peer.live(0.0) == []
    with pytest.raises(MessageError, match="out of the run"):
        peer.hear(beat("b", 2), 0.0, forward=True)


def test_an_order_that_the_owner_has_not_signed_is_refused() -> None:
    peer = protocol("a")
    with pytest.raises(MessageError, match="not signed"):
        peer.hear(ban(key_of("b"), by=key_of("c")).encode(), 0.0, forward=True)
    assert peer.archive.orders == {}


# Forks


@pytest.mark.parametrize("parts_at", [0, 3, 64, 70])
def test_a_liar_s_branches_end_in_the_same_cut_though_neither_side_heard_the_other_s(parts_at: int) -> None:
    one = said("liar", 80)
    other = one.branched(parts_at).more(80 - parts_at, code=1)
    network = Network(
        {"a": protocol("a", one), "b": protocol("b", other), "c": protocol("c")}, [("b", "a"), ("c", "b")]
    )
    network.run(30)
    a, b, c = network.peers.values()
    assert a.archive.forks[one.stream].number == parts_at
    assert set(a.archive.effective()) == set(b.archive.effective()) == set(c.archive.effective())
    assert set(a.archive.effective()) == set(one.messages[:parts_at])
    assert a.archive.statements_digest() == b.archive.statements_digest() == c.archive.statements_digest()
    assert a.all_equal(network.now)
    assert any("two different messages" in fault for fault in b.standing.faults)


def test_a_liar_that_goes_on_with_both_branches_is_found_out_live() -> None:
    network = Network({name: protocol(name, said("liar", 0)) for name in ("a", "b")}, [("b", "a")])
    network.run(5)
    one = said("liar", 3)
    other = one.branched(2).more(1, code=1)
    for name, branch in (("a", one), ("b", other)):
        for signed in branch.signed:
            hear(network.peers[name], signed, network.now)
    network.carry("a", hear(network.peers["a"], other.signed[2], network.now, forward=True))
    network.run(5)
    assert [list(peer.archive) for peer in network.peers.values()] == [one.messages[:2]] * 2


def test_an_equivocation_is_told_once_to_all_and_noted() -> None:
    peer = protocol("a", said("b", 0))
    one, other = said("b", 1), said("b", 1, code=1)
    hear(peer, one.signed[0])
    (accusation,) = decoded(hear(peer, other.signed[0]))
    assert isinstance(accusation, wire.Accusation)
    assert accusation.fork.number == 0
    for signed in (*one.signed, *other.signed):
        with pytest.raises(MessageError, match="ends at 0"):
            hear(peer, signed)
    assert len(peer.standing.faults) == 1
    third = protocol("c")
    frame = wire.encode_accusation(accusation)
    assert third.hear(frame, 0.0, forward=True) == [Publish(frame)]
    assert third.hear(frame, 0.0, forward=True) == []


# Invites

INVITING = manifest("invite")


def invited(name: str, number: int) -> Protocol:
    key = key_of(name)
    ours = introduction(key, 0, invite(number, INVITING).admit(key, INVITING.seal))
    author = Author(stream(name), name, key, ours)
    return Protocol(author, Terms.of(INVITING, INVITING.sign(OWNER)), Archive(INVITING))


def test_of_two_that_share_an_invite_the_same_one_ends_excluded_everywhere() -> None:
    peers = {name: invited(name, number) for name, number in (("a", 1), ("b", 2), ("c", 3), ("d", 3))}
    # c and d are at the two ends and never meet; their introductions do.
    network = Network(peers, [("b", "a"), ("c", "a"), ("d", "b")])
    network.run(20)
    larger = max(key_of("c").public, key_of("d").public)
    for name in ("a", "b"):
        assert peers[name].archive.out == {larger}
    assert peers["a"].archive.statements_digest() == peers["b"].archive.statements_digest()


def test_consulting_is_answered_with_all_statements() -> None:
    peer = protocol("a", said("b", 0))
    link = greeted(peer, "c")
    peer.order(ban(key_of("d")))
    for branch in (said("b", 1), said("b", 1, code=1)):
        hear(peer, branch.signed[0])
    answer = peer.receive(link, wire.encode(wire.Consult()), 0.0)
    assert all(isinstance(output, Send) for output in answer)
    assert [type(frame).__name__ for frame in decoded(answer)] == ["Order", "Accusation"]
