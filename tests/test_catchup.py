"""How a peer gets what it lacks, from neighbours that may be slow, forgetful or lying."""

from __future__ import annotations

import itertools

import pytest

from network import (
    TIMING,
    Network,
    beat,
    decoded,
    greeted,
    hello,
    holding,
    message,
    protocol,
    said,
    sent,
    stream,
)
from shared_seed.archive import Archive
from shared_seed.errors import MessageError
from shared_seed.ledger import BLOCK
from shared_seed.messages import Stream
from shared_seed.swarm import catchup, wire
from shared_seed.swarm.output import Link, Output
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import Chunk, Compare, Guest, Levels, Request, State
from swarming import TERMS, Writer, introduction, manifest

FALSE_HEAD = bytes(8)


def levels(peer: Protocol, link: Link, now: float, *claims: tuple[Stream, int]) -> list[Output]:
    """A neighbour says what it has."""
    frame = Levels([(name.to_bytes(), count, FALSE_HEAD) for name, count in claims])
    return peer.receive(link, wire.encode(frame), now)


def chunk(of: Writer, start: int = 0, stop: int | None = None) -> bytes:
    """What answers a request; empty where there is nothing."""
    stretches = [
        s for s in (of.stretches(start) if start < len(of.signed) else []) if stop is None or s.start < stop
    ]
    return wire.encode(Chunk.of(of.stream.to_bytes(), Guest.of(introduction(of.key)), start, stretches))


def goes_on(peer: Protocol, names: str, now: float) -> list[Output]:
    """A second of neighbours' heartbeats, which say that they hold something else, and what we ask then."""
    other = holding(Archive(TERMS), said("other", 3))
    for name in names:
        peer.hear(beat(name, int(now) + 1, has=other), now, forward=False)
    return peer.tick(now)


# Fetching


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_a_late_joiner_fetches_all_streams_in_chunks(loss: float) -> None:
    held = [said("gone", 2 * wire.CHUNK + 1300), said("peer0", 700), said("short", 1)]
    peers = {"peer0": protocol("peer0", *held), "peer1": protocol("peer1")}
    network = Network(peers, [("peer1", "peer0")], loss=loss, seed=3)
    network.run(60 if loss else 10)
    expected = {m for one in held for m in one.messages}
    assert set(peers["peer1"].archive) == expected
    assert len(peers["peer1"].take().fresh) == len(expected)
    assert peers["peer1"].archive.digest() == peers["peer0"].archive.digest()
    frames = [wire.decode(frame, TERMS.seal) for _, _, frame in network.carried]
    sizes = [len(frame.bodies) for frame in frames if isinstance(frame, Chunk)]
    assert max(sizes) == wire.CHUNK
    assert loss or sum(sizes) == len(expected)


def test_a_listener_fetches_from_the_one_that_dialled_and_two_halves_exchange_what_each_has() -> None:
    peers = {"peer0": protocol("peer0", said("peer0", 30)), "peer1": protocol("peer1", said("peer1", 200))}
    network = Network(peers, [("peer1", "peer0")])
    network.run(10)
    assert len(peers["peer0"].archive) == 230
    assert peers["peer0"].archive.digest() == peers["peer1"].archive.digest()


def test_a_joiner_catches_up_while_the_others_go_on() -> None:
    peers = {"peer0": protocol("peer0", said("peer0", 2000)), "peer1": protocol("peer1")}
    network = Network(peers, [("peer1", "peer0")], delay=0.5)
    numbers = itertools.count(2000)
    network.run(
        15, lambda: network.carry("peer0", peers["peer0"].publish(message("peer0", next(numbers)), network.now))
    )
    network.run(10)
    assert len(peers["peer0"].archive) > 2100
    assert set(peers["peer1"].archive) == set(peers["peer0"].archive)


@pytest.mark.parametrize("then", ["a later message", "a heartbeat alone"])
def test_a_lost_message_is_fetched(then: str) -> None:
    peers = {"peer0": protocol("peer0"), "peer1": protocol("peer1")}
    network = Network(peers, [("peer1", "peer0")])
    network.run(10)
    network.drop = lambda sender, receiver, frame: frame[:1] == b"\x04"
    network.carry("peer0", peers["peer0"].publish(message("peer0", 0), network.now))
    network.drop = None
    if then == "a later message":
        network.carry("peer0", peers["peer0"].publish(message("peer0", 1), network.now))
        network.run(0.5)
    else:
        network.run(2 * TIMING.heartbeat + 1)
    assert list(peers["peer1"].archive) == list(peers["peer0"].archive)


def test_a_quiet_pair_compares_no_more_once_equal() -> None:
    peers = {"peer0": protocol("peer0", said("peer0", 9)), "peer1": protocol("peer1")}
    network = Network(peers, [("peer1", "peer0")])
    network.run(10)
    network.carried.clear()
    network.run(20)
    assert network.count(Compare) == network.count(Levels) == network.count(Request) == network.count(Chunk) == 0
    assert all(peer.has_all(network.now) for peer in peers.values())


@pytest.mark.parametrize(
    ("start", "most", "stop"),
    [(0, 4096, 300), (2, 4096, 300), (0, 64, 64), (70, 64, 128), (299, 9, 300), (300, 9, 300), (9000, 9, 9000)],
)
def test_a_request_is_answered_as_far_as_it_asks_and_signatures_reach(start: int, most: int, stop: int) -> None:
    peer = protocol("a", said("a", 300))
    link = greeted(peer, "b")
    (answer,) = decoded(peer.receive(link, wire.encode(Request(stream("a").to_bytes(), start, most)), 0.0))
    assert isinstance(answer, Chunk)
    assert (answer.start, answer.start + len(answer.bodies)) == (start, stop)
    theirs = Archive(TERMS)
    theirs.introduce(answer.guest.introduction())
    assert sum(len(stretch.encoded) for stretch in answer.stretches()) == stop - start


# Neighbours that do not do their part


def test_a_request_that_goes_unanswered_is_repeated_a_few_times() -> None:
    peer = protocol("a")
    link = greeted(peer, "b")
    times = [0.0] if sent(levels(peer, link, 0.0, (stream("b"), 3)), Request) else []
    times += [now / 4 for now in range(1, 41) if sent(peer.tick(now / 4), Request)]
    assert times == [n * TIMING.retry for n in range(catchup.ATTEMPTS)]


def test_a_peer_that_connected_again_is_asked_over_its_new_link() -> None:
    peer = protocol("a")
    greeted(peer, "b", end=b"old")
    new = greeted(peer, "b", end=b"new")
    assert [link for link, _ in sent(levels(peer, new, 0.0, (stream("b"), 3)), Request)] == [new]
    with pytest.raises(MessageError, match="without a greeting"):
        levels(peer, ("accepted", b"old"), 0.0, (stream("b"), 3))


def test_a_neighbour_that_answers_nothing_does_not_keep_us_from_another() -> None:
    peer, one = protocol("a"), said("s", 4 * wire.CHUNK + 5)
    silent, honest = greeted(peer, "b"), greeted(peer, "c")
    unanswered = 0
    asked = sent(levels(peer, silent, 0.0, (one.stream, len(one.signed))), Request)
    asked += sent(levels(peer, honest, 0.0, (one.stream, len(one.signed))), Request)
    for tenth in range(1, 80):
        while asked:
            link, request = asked.pop()
            assert isinstance(request, Request)
            if link == honest:
                stop = request.start // BLOCK * BLOCK + wire.CHUNK
                asked += sent(peer.receive(link, chunk(one, request.start, stop), tenth / 10), Request)
            else:
                unanswered += 1
        asked += sent(peer.tick(tenth / 10), Request)
    assert len(peer.archive) == len(one.signed)
    assert unanswered == 1, "it cost a wait for every chunk"


@pytest.mark.parametrize("answer", ["nothing", "empty chunks", "garbage"])
def test_a_neighbour_that_claims_more_than_it_has_is_not_waited_for_ever(answer: str) -> None:
    peer = protocol("a")
    link = greeted(peer, "b")
    liar, now, free = said("liar", 1), 0.0, 0
    for second in range(120):
        now = float(second)
        asked = sent(levels(peer, link, now, (liar.stream, 10**6)), Request)
        asked += sent(goes_on(peer, "b", now), Request)
        for _, request in asked:
            assert isinstance(request, Request)
            if answer == "empty chunks":
                peer.receive(link, chunk(liar, 10**6), now)
            elif answer == "garbage":
                one = said("liar", request.start + 1, code=second)
                one.signed[-1] = type(one.signed[-1])(one.signed[-1].message, bytes(64))
                peer.receive(link, chunk(one, request.start), now)
        free += peer.has_all(now)
    assert peer.has_all(now)
    assert free > 60


def test_a_neighbour_that_never_compares_is_not_waited_for_ever() -> None:
    peer = protocol("a")
    greeted(peer, "b")
    waited = 0
    for now in range(30):
        goes_on(peer, "b", float(now))
        waited += not peer.has_all(float(now))
    assert peer.has_all(29.0)
    assert waited == catchup.SILENT * TIMING.retry


def test_a_neighbour_that_greets_and_is_never_heard_of_is_forgotten() -> None:
    peer = protocol("a")
    link = greeted(peer, "b")
    assert not peer.has_all(0.0)
    peer.tick(TIMING.timeout)
    assert peer.has_all(TIMING.timeout)
    with pytest.raises(MessageError, match="without a greeting"):
        levels(peer, link, TIMING.timeout)


def test_an_honest_neighbour_is_waited_for_while_a_liar_is_not() -> None:
    peer, one = protocol("a"), said("s", 9)
    liar, honest = greeted(peer, "b"), greeted(peer, "c")
    for second in range(60):
        levels(peer, liar, float(second), (stream("b"), 10**6))
        goes_on(peer, "bc", float(second))
        levels(peer, honest, float(second))
    assert peer.has_all(59.0)
    levels(peer, honest, 59.0, (one.stream, 9))
    assert not peer.has_all(59.0)
    peer.receive(honest, chunk(one), 59.0)
    assert peer.has_all(59.0)


def test_a_chunk_whose_end_is_not_signed_leaves_what_is_before() -> None:
    peer, one = protocol("a"), said("b", BLOCK + 5)
    link = greeted(peer, "b")
    one.signed[-1] = type(one.signed[-1])(one.signed[-1].message, bytes(64))
    peer.receive(link, chunk(one), 0.0)
    assert list(peer.archive) == one.messages[:BLOCK]


def test_a_chunk_of_a_peer_that_is_not_admitted_is_refused() -> None:
    terms = manifest("keys")
    peer, link = protocol("owner", terms=terms), ("accepted", b"b")
    peer.receive(link, hello("owner", terms.digest()), 0.0)
    with pytest.raises(MessageError, match="admits listed keys alone"):
        peer.receive(link, chunk(said("b", 1)), 0.0)
    assert len(peer.archive) == 0


def test_what_a_crowd_has_missed_is_asked_of_the_writer_and_then_of_those_who_say_they_have_it() -> None:
    peer, far = protocol("a"), said("far", 1)
    links = {name: greeted(peer, name) for name in [*(f"n{i}" for i in range(20)), "w", "z"]}
    written = said("w", 3)
    peer.hear(written.signed[2].encode(), 0.0, forward=False)  # The first two were lost, to all of us.
    peer.hear(far.signed[0].encode(), 0.0, forward=False)  # Nobody here has heard of its writer yet.
    asked = sent(peer.tick(0.1), Request)
    by_stream = {getattr(request, "stream", b""): link for link, request in asked}
    assert by_stream[written.stream.to_bytes()] == links["w"]
    assert by_stream[far.stream.to_bytes()] == links["n0"]
    levels(peer, links["z"], 0.2, (far.stream, 1))
    asked = sent(peer.tick(0.1 + TIMING.retry), Request)
    assert (links["z"], Request(far.stream.to_bytes(), 0)) in asked


# Bounds


def wants(peer: Protocol) -> int:
    return len(peer._catch_up._wants)


def test_hints_about_made_up_streams_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catchup, "MOST_HINTS", 20)
    peer = protocol("a", said("b", 0))
    greeted(peer, "b")
    nine = said("b", 9).signed[8]
    for n in range(100):
        far = type(nine.message)(Stream(stream("b").peer, n), 8, 8, 0.25, b"\x38")
        peer.hear(type(nine)(far, nine.signature).encode(), 0.0, forward=False)
    assert wants(peer) == 20
    for now in range(200):
        peer.tick(float(now))
    assert wants(peer) == 0
    assert peer.has_all(200.0)


def test_a_liar_s_many_claims_and_hints_leave_others_their_turn() -> None:
    peer, one = protocol("a"), said("s", 3)
    liar, honest = greeted(peer, "b"), greeted(peer, "c")
    levels(peer, liar, 0.0, *((Stream(bytes(12), n), 9) for n in range(catchup.MOST_CLAIMS)))
    for n in range(catchup.MOST_HINTS):
        peer.hear(
            said("s", 9).signed[8].encode().replace(one.stream.to_bytes(), b"hint" * 3 + n.to_bytes(4)), 0.0, False
        )
    asked = sent(levels(peer, honest, 0.0, (one.stream, 3)), Request)
    for tenth in range(1, 30):
        asked += sent(peer.tick(tenth / 10), Request)
    wanted = [link for link, request in asked if getattr(request, "stream", b"") == one.stream.to_bytes()]
    assert honest in wanted


def test_claims_of_one_neighbour_stay_bounded_and_the_rest_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catchup, "MOST_CLAIMS", 20)
    many = [said(f"s{n}", 2) for n in range(50)]
    peers = {"a": protocol("a", *many), "b": protocol("b")}
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, wants(peers["b"]))

    network = Network(peers, [("b", "a")])
    network.run(20, look)
    assert 0 < most <= 20
    assert len(peers["b"].archive) == 100
    assert peers["b"].has_all(network.now)


def test_frames_that_nobody_asked_for_do_nothing_or_little() -> None:
    peer = protocol("a", said("a", 9))
    link = greeted(peer, "b")
    marks = wire.encode(wire.Marks(stream("a").to_bytes(), [bytes(8)] * 100))
    unknown = wire.encode(wire.Marks(bytes(16), [bytes(8)] * 100))
    assert peer.receive(link, marks, 0.0) == peer.receive(link, unknown, 0.0) == []
    assert decoded(peer.receive(link, wire.encode(wire.Trace(bytes(16))), 0.0)) == [wire.Marks(bytes(16), [])]
    assert peer.receive(link, wire.encode(Request(bytes(16), 0)), 0.0) == []


def test_levels_that_tell_of_a_stream_twice_are_refused() -> None:
    peer = protocol("a", said("a", 9))
    link = greeted(peer, "b")
    with pytest.raises(MessageError, match="a stream twice"):
        levels(peer, link, 0.0, (stream("a"), 5), (stream("a"), 5))


def test_heads_are_compared_only_with_who_was_asked() -> None:
    peer = protocol("a", said("other", 9))
    link = greeted(peer, "b")
    parted = (said("other", 0).stream, 5)
    other = holding(Archive(TERMS), said("other", 5, code=0x39))
    peer.hear(beat("b", 1, has=other), 1.0, forward=False)
    assert sent(peer.tick(1.0), Compare)
    assert sent(levels(peer, link, 1.0, parted), wire.Trace)
    assert levels(peer, link, 1.0 + TIMING.heartbeat, parted) == []


def test_a_peer_that_fell_silent_is_not_asked() -> None:
    peer = protocol("a")
    greeted(peer, "b")
    other = holding(Archive(TERMS), said("other", 3))
    peer.hear(beat("b", 1, State.TRAINING, has=other), 1.0, forward=False)
    assert sent(peer.tick(1.0), Compare)
    assert not sent(peer.tick(1.0 + TIMING.timeout), Compare)
