"""The protocol without sockets: peers on a network of this file's, which loses, doubles and reorders."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

from shared_seed.errors import EquivocationError, MessageError
from shared_seed.messages import MOST_STREAMS, Message, MessageSet, Stream, as_float32
from shared_seed.swarm import wire
from shared_seed.swarm.protocol import Link, Output, Protocol, Publish, Send, Terms, Timing
from shared_seed.swarm.wire import Chunk, Heartbeat, Hello, Refusal, Request, State, Welcome

TERMS = Terms(digest=bytes(range(32)), packed=b"the packed manifest", most_samples=4, most_learning_rate=0.5)
TIMING = Timing()


def stream(name: str) -> Stream:
    return Stream(name.encode().ljust(12, b"."))


def message(name: str, number: int, round_: int | None = None, code: int = 0x38) -> Message:
    return Message(stream(name), number, number if round_ is None else round_, 0.25, bytes([code]))


def messages(name: str, count: int) -> list[Message]:
    return [message(name, number) for number in range(count)]


def protocol(name: str, held: Iterable[Message] = (), terms: Terms = TERMS) -> Protocol:
    return Protocol(stream(name), name, terms, MessageSet(held))


def beat(
    name: str, number: int, state: State = State.TRAINING, round_: int = 0, has: dict[str, int] | None = None
) -> bytes:
    version = {stream(n): count for n, count in (has or {}).items()}
    packed = wire.pack_version(version)
    return wire.encode(Heartbeat(stream(name).to_bytes(), number, name, state, round_, packed))


def decoded(outputs: Iterable[Output]) -> list[object]:
    return [wire.decode(output.frame) for output in outputs]


def requests(outputs: Iterable[Output]) -> list[tuple[Link, Request]]:
    sent = [(output.link, wire.decode(output.frame)) for output in outputs if isinstance(output, Send)]
    return [(link, frame) for link, frame in sent if isinstance(frame, Request)]


# A network


@dataclass
class Network:
    """Carries outputs from peer to peer; ``dials`` holds (who dials, who listens)."""

    peers: dict[str, Protocol]
    dials: list[tuple[str, str]]
    seed: int = 0
    loss: float = 0.0
    doubling: float = 0.0
    delay: float = 0.05
    now: float = 100.0
    dead: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    carried: list[tuple[str, str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._order = itertools.count()
        self._flying: list[tuple[float, int, str, Link | None, bytes]] = []
        for dialler, listener in self.dials:
            self.peers[dialler].dialled(("dialled", listener))

    def neighbours(self, name: str) -> set[str]:
        return {b if a == name else a for a, b in self.dials if name in (a, b)}

    def carry(self, sender: str, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, Publish):
                for receiver in sorted(self.neighbours(sender)):
                    self._throw(sender, receiver, None, output.frame)
                continue
            kind, end = output.link
            receiver = end if isinstance(end, str) else end.decode()
            arrives: Link = ("accepted", sender.encode()) if kind == "dialled" else ("dialled", sender)
            self._throw(sender, receiver, arrives, output.frame)

    def _throw(self, sender: str, receiver: str, link: Link | None, frame: bytes) -> None:
        self.carried.append((sender, receiver, frame))
        assert len(self.carried) < 200_000, "a flood that does not end"
        if self.dead & {sender, receiver} or self._random.random() < self.loss:
            return
        for _ in range(2 if self._random.random() < self.doubling else 1):
            due = self.now + self._random.uniform(0, self.delay)
            heapq.heappush(self._flying, (due, next(self._order), receiver, link, frame))

    def _deliver(self, receiver: str, link: Link | None, frame: bytes) -> None:
        if receiver in self.dead:
            return
        peer = self.peers[receiver]
        listens = any(receiver == listener for _, listener in self.dials)
        try:
            if link is None:
                self.carry(receiver, peer.hear(frame, self.now, forward=listens))
            else:
                self.carry(receiver, peer.receive(link, frame, self.now))
        except MessageError as error:
            self.refused.append(str(error))

    def run(self, seconds: float, act: Callable[[], None] = lambda: None, step: float = 0.1) -> None:
        """Let time pass; ``act`` is called at every step."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            while self._flying and self._flying[0][0] <= self.now:
                _, _, receiver, link, frame = heapq.heappop(self._flying)
                self._deliver(receiver, link, frame)
            act()
            for name in sorted(self.peers.keys() - self.dead):
                self.carry(name, self.peers[name].tick(self.now))

    def count(self, kind: type) -> int:
        return sum(isinstance(wire.decode(frame), kind) for _, _, frame in self.carried)


def star(names: list[str]) -> list[tuple[str, str]]:
    return [(name, names[0]) for name in names[1:]]


def chain(names: list[str]) -> list[tuple[str, str]]:
    return [(later, earlier) for earlier, later in itertools.pairwise(names)]


def mesh(names: list[str]) -> list[tuple[str, str]]:
    return [(later, earlier) for earlier, later in itertools.combinations(names, 2)]


SHAPES = pytest.mark.parametrize("shape", [star, chain, mesh], ids=["star", "chain", "mesh"])
Shape = Callable[[list[str]], list[tuple[str, str]]]


def swarm(count: int, shape: Shape, **network: float) -> Network:
    names = [f"peer{n}" for n in range(count)]
    return Network({name: protocol(name) for name in names}, shape(names), **network)  # type: ignore[arg-type]


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
        assert set(peer.messages) == expected
        assert peer.has_all(network.now)
        assert peer.others_have_all(network.now)
        taken = peer.take()
        assert len(taken) == len(expected)
        assert set(taken) == expected
        assert peer.take() == []
    # A welcome that is lost leaves the other side's requests unanswered until the next greeting.
    assert all("not said hello" in reason for reason in network.refused)


@SHAPES
def test_a_quiet_swarm_sends_heartbeats_and_greetings_alone(shape: Shape) -> None:
    network = swarm(4, shape)
    network.run(20)
    network.carried.clear()
    network.run(20)
    assert network.count(Heartbeat) > 0
    assert network.count(Request) == network.count(Chunk) == network.count(Message) == 0


@SHAPES
def test_a_calm_swarm_needs_no_catch_up(shape: Shape) -> None:
    network = swarm(4, shape)
    network.run(10)
    for number in range(10):
        for name, peer in network.peers.items():
            network.carry(name, peer.publish(message(name, number), network.now))
        network.run(1)
    assert all(len(peer.messages) == 40 for peer in network.peers.values())
    assert network.count(Request) == 0


@SHAPES
def test_a_flood_ends(shape: Shape) -> None:
    network = swarm(5, shape)
    network.run(10)
    network.carried.clear()
    network.carry("peer3", network.peers["peer3"].publish(message("peer3", 0), network.now))
    network.run(5)
    copies = network.count(Message)
    assert all(len(peer.messages) == 1 for peer in network.peers.values())
    # Each of the peers that passes it on does so once, to all of its neighbours.
    assert copies <= 2 * len(network.dials)


# Catching up


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_a_late_joiner_fetches_all_streams_in_chunks(loss: float) -> None:
    held = [*messages("gone", 1300), *messages("peer0", 700), *messages("short", 1)]
    peers = {"peer0": protocol("peer0", held), "peer1": protocol("peer1")}
    network = Network(peers, [("peer1", "peer0")], loss=loss, seed=3)
    network.run(60 if loss else 10)
    assert set(peers["peer1"].messages) == set(held)
    assert len(peers["peer1"].take()) == len(held)
    chunks = [wire.decode(frame) for _, _, frame in network.carried if frame[:2] == b"\x10\x92"]
    sizes = [len(chunk.messages) for chunk in chunks if isinstance(chunk, Chunk)]
    assert max(sizes) == wire.CHUNK
    assert loss or sum(sizes) == len(held)


def test_chunks_follow_one_another_without_waiting() -> None:
    peers = {"peer0": protocol("peer0", messages("peer0", 6 * wire.CHUNK)), "peer1": protocol("peer1")}
    network = Network(peers, [("peer1", "peer0")])
    network.run(3 * TIMING.retry)
    assert len(peers["peer1"].messages) == 6 * wire.CHUNK


def test_a_listener_fetches_from_the_one_that_dialled() -> None:
    peers = {"peer0": protocol("peer0"), "peer1": protocol("peer1", messages("peer1", 600))}
    network = Network(peers, [("peer1", "peer0")])
    network.run(10)
    assert set(peers["peer0"].messages) == set(messages("peer1", 600))


def test_a_joiner_catches_up_while_the_others_go_on() -> None:
    peers = {"peer0": protocol("peer0", messages("peer0", 2000)), "peer1": protocol("peer1")}
    network = Network(peers, [("peer1", "peer0")], delay=0.5)
    numbers = itertools.count(2000)
    network.run(
        15, lambda: network.carry("peer0", peers["peer0"].publish(message("peer0", next(numbers)), network.now))
    )
    network.run(10)
    assert len(peers["peer0"].messages) > 2100
    assert set(peers["peer1"].messages) == set(peers["peer0"].messages)


def test_two_halves_that_were_parted_exchange_what_each_has() -> None:
    peers = {"peer0": protocol("peer0", messages("peer0", 30)), "peer1": protocol("peer1", messages("peer1", 20))}
    network = Network(peers, [("peer1", "peer0")])
    network.run(10)
    assert set(peers["peer0"].messages) == set(peers["peer1"].messages)
    assert peers["peer0"].messages.version() == {stream("peer0"): 30, stream("peer1"): 20}


def greeted(peer: Protocol, link: Link, name: str) -> None:
    peer.receive(link, wire.encode(Hello(stream(name).to_bytes(), name, TERMS.digest)), 0.0)


def links_asked(peer: Protocol, heard: dict[str, dict[str, int]], seconds: int) -> set[Link]:
    """The links over which a peer asks while others state again and again what they have, and nobody answers."""
    asked = set()
    for second in range(seconds):
        for name, has in heard.items():
            peer.hear(beat(name, second + 1, has=has), float(second), forward=False)
        asked |= {link for link, _ in requests(peer.tick(float(second)))}
    return asked


def test_a_request_that_goes_unanswered_is_repeated() -> None:
    peer = protocol("a")
    greeted(peer, ("accepted", b"b"), "b")
    peer.hear(beat("b", 1, has={"b": 3}), 1.0, forward=False)
    times = [now / 4 for now in range(4, 21) if requests(peer.tick(now / 4))]
    assert times == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_peer_that_connected_again_is_asked_over_its_new_link() -> None:
    peer = protocol("a")
    greeted(peer, ("accepted", b"old"), "b")
    greeted(peer, ("accepted", b"new"), "b")
    assert ("accepted", b"new") in links_asked(peer, {"b": {"b": 3}}, 20)


def test_a_peer_that_does_not_answer_keeps_no_other_from_being_asked() -> None:
    peer = protocol("a")
    greeted(peer, ("accepted", b"b"), "b")
    greeted(peer, ("accepted", b"c"), "c")
    has = {"s": 3}
    assert links_asked(peer, {"b": has, "c": has}, 20) == {("accepted", b"b"), ("accepted", b"c")}


def test_a_peer_that_does_not_answer_costs_one_wait_and_not_one_a_chunk() -> None:
    peer, held = protocol("a"), messages("s", 4 * wire.CHUNK)
    greeted(peer, ("accepted", b"b"), "b")
    greeted(peer, ("accepted", b"c"), "c")
    unanswered = 0
    for tenth in range(10, 80):
        now = tenth / 10
        for name in ("b", "c"):
            peer.hear(beat(name, tenth, has={"s": len(held)}), now, forward=False)
        asked = requests(peer.tick(now))
        while asked:
            link, request = asked.pop()
            if link == ("accepted", b"c"):
                chunk = Chunk([m.encode() for m in held[request.start : request.stop]])
                asked += requests(peer.receive(link, wire.encode(chunk), now))
            else:
                unanswered += 1
    assert len(peer.messages) == len(held)
    assert unanswered <= 1


def test_a_peer_that_fell_silent_is_not_asked() -> None:
    peer = protocol("a")
    greeted(peer, ("accepted", b"b"), "b")
    peer.hear(beat("b", 1, has={"b": 3}), 1.0, forward=False)
    assert requests(peer.tick(1.0 + TIMING.timeout - 0.1))
    assert not requests(peer.tick(1.0 + TIMING.timeout + 2))


def test_a_request_asks_for_one_chunk_from_the_first_gap_on() -> None:
    peer = protocol("a", [*messages("b", 7), message("b", 9)])
    greeted(peer, ("accepted", b"b"), "b")
    peer.hear(beat("b", 1, has={"b": 5000}), 1.0, forward=False)
    assert requests(peer.tick(1.0)) == [(("accepted", b"b"), Request(stream("b").to_bytes(), 7, 7 + wire.CHUNK))]


@pytest.mark.parametrize(
    ("start", "stop", "numbers"),
    [(0, 3, range(3)), (2, 2000, range(2, 514)), (5, 2, ()), (9000, 9001, ()), (0, 2**32 - 1, range(512))],
)
def test_a_request_is_answered_with_one_chunk(start: int, stop: int, numbers: Iterable[int]) -> None:
    peer = protocol("a", messages("a", 1000))
    greeted(peer, ("accepted", b"b"), "b")
    request = wire.encode(Request(stream("a").to_bytes(), start, stop))
    answer = peer.receive(("accepted", b"b"), request, 0.0)
    assert decoded(answer) == [Chunk([message("a", n).encode() for n in numbers])]


# Greeting


def test_who_asks_without_a_digest_gets_the_manifest() -> None:
    hello = wire.encode(Hello(stream("b").to_bytes(), "", b""))
    answer = decoded(protocol("a").receive(("accepted", b"b"), hello, 0.0))
    assert answer[0] == Welcome(stream("a").to_bytes(), "a", TERMS.packed)


def test_who_has_the_right_digest_is_welcome_and_hears_at_once_what_we_have() -> None:
    hello = wire.encode(Hello(stream("b").to_bytes(), "b", TERMS.digest))
    welcome, heartbeat = decoded(protocol("a", messages("a", 2)).receive(("accepted", b"b"), hello, 0.0))
    assert welcome == Welcome(stream("a").to_bytes(), "a", b"")
    assert isinstance(heartbeat, Heartbeat)
    assert heartbeat.version == {stream("a").to_bytes(): 2}


def test_a_greeting_that_is_repeated_is_not_compared_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    # Everybody greets again whenever somebody is new: a thousand peers do so tens of thousands of times.
    peer, names = protocol("a"), [f"p{n}" for n in range(50)]
    for name in names:
        greeted(peer, ("accepted", name.encode()), name)
    compared: list[object] = []
    equal = Stream.__eq__
    monkeypatch.setattr(Stream, "__eq__", lambda self, other: compared.append(other) or equal(self, other))
    greeted(peer, ("accepted", b"p7"), "p7")
    assert len(compared) < 5


@pytest.mark.parametrize("digest", [bytes(32), TERMS.digest[:31], b"x"])
def test_who_has_another_digest_is_refused(digest: bytes) -> None:
    hello = wire.encode(Hello(stream("b").to_bytes(), "b", digest))
    (answer,) = decoded(protocol("a").receive(("accepted", b"b"), hello, 0.0))
    assert isinstance(answer, Refusal)
    assert "manifest" in answer.reason


@pytest.mark.parametrize("digest", [b"", bytes(32)], ids=["none", "another"])
def test_requests_are_answered_only_after_a_greeting_with_the_run_s_digest(digest: bytes) -> None:
    peer, link = protocol("a", messages("a", 3)), ("accepted", b"b")
    peer.receive(link, wire.encode(Hello(stream("b").to_bytes(), "b", digest)), 0.0)
    with pytest.raises(MessageError, match="hello"):
        peer.receive(link, wire.encode(Request(stream("a").to_bytes(), 0, 3)), 0.0)


def test_a_peer_of_another_run_learns_the_reason_and_gets_nothing() -> None:
    stranger = protocol("b", terms=Terms(bytes(32), b"", 4, 0.5))
    network = Network({"a": protocol("a", messages("a", 3)), "b": stranger}, [("b", "a")])
    network.run(20)
    assert stranger.refusal is not None
    assert "manifest" in stranger.refusal
    assert len(stranger.messages) == 0
    assert network.count(Chunk) == 0


def test_greetings_are_repeated_since_the_other_side_may_restart() -> None:
    peer = protocol("a")
    peer.dialled(("dialled", "b"))
    times = [now for now in range(20) if any(isinstance(f, Hello) for f in decoded(peer.tick(float(now))))]
    assert times == [0, 5, 10, 15]


def test_heartbeats_come_at_their_interval() -> None:
    peer = protocol("a")
    beats = [(now, frame) for now in range(10) for frame in decoded(peer.tick(float(now)))]
    assert [now for now, _ in beats] == [0, 2, 4, 6, 8]
    assert [frame.beat for _, frame in beats if isinstance(frame, Heartbeat)] == [1, 2, 3, 4, 5]


def test_a_change_of_state_is_published_at_once() -> None:
    peer = protocol("a", messages("a", 1))
    (frame,) = decoded(peer.enter(State.FINISHED, 9, 0.0, b"digest"))
    assert frame == Heartbeat(
        stream("a").to_bytes(), 1, "a", State.FINISHED, 9, {stream("a").to_bytes(): 1}, b"digest"
    )


# What is heard


def test_a_message_is_forwarded_untouched_and_only_when_new() -> None:
    peer, data = protocol("a"), message("b", 0).encode()
    assert peer.hear(data, 0.0, forward=True) == [Publish(data)]
    assert peer.hear(data, 0.0, forward=True) == []
    assert peer.take() == [message("b", 0)]


def test_a_heartbeat_is_forwarded_untouched_and_only_when_new() -> None:
    peer = protocol("a")
    assert peer.hear(beat("b", 4), 0.0, forward=True) == [Publish(beat("b", 4))]
    assert peer.hear(beat("b", 4), 0.0, forward=True) == []
    assert peer.hear(beat("b", 3), 0.0, forward=True) == []
    assert peer.hear(beat("b", 5), 0.0, forward=True) == [Publish(beat("b", 5))]


@pytest.mark.parametrize("data", [message("b", 0).encode(), beat("b", 1)], ids=["message", "heartbeat"])
def test_who_only_dials_forwards_nothing(data: bytes) -> None:
    assert protocol("a").hear(data, 0.0, forward=False) == []


def test_our_own_frames_that_come_back_are_not_new() -> None:
    peer = protocol("a")
    (sent,) = peer.publish(message("a", 0), 0.0)
    (stated,) = peer.enter(State.TRAINING, 0, 0.0)
    assert peer.hear(sent.frame, 0.0, forward=True) == []
    assert peer.hear(stated.frame, 0.0, forward=True) == []
    assert peer.take() == [message("a", 0)]
    assert peer.peers == {}


def test_an_old_heartbeat_does_not_turn_back_what_a_newer_one_said() -> None:
    peer = protocol("a")
    peer.hear(beat("b", 2, State.FINISHED, 7, {"b": 7}), 0.0, forward=False)
    peer.hear(beat("b", 1, State.TRAINING, 3, {"b": 3}), 0.0, forward=False)
    view = peer.peers[stream("b")]
    assert (view.state, view.round, view.version) == (State.FINISHED, 7, {stream("b"): 7})


OVER_THE_LIMITS = {
    "samples": Message(stream("b"), 0, 0, 0.25, bytes(5)),
    "learning rate": Message(stream("b"), 0, 0, 0.5000000596046448, bytes(1)),
}
over_the_limits = pytest.mark.parametrize("bad", OVER_THE_LIMITS.values(), ids=OVER_THE_LIMITS.keys())


@over_the_limits
def test_a_message_over_the_limits_is_refused_wherever_it_comes_from(bad: Message) -> None:
    peer = protocol("a")
    with pytest.raises(MessageError, match="manifest allows"):
        peer.hear(bad.encode(), 0.0, forward=True)
    with pytest.raises(MessageError, match="manifest allows"):
        peer.receive(("accepted", b"b"), wire.encode(Chunk([bad.encode()])), 0.0)
    assert len(peer.messages) == 0
    assert peer.take() == []


@over_the_limits
def test_our_own_message_over_the_limits_is_refused(bad: Message) -> None:
    # Everybody else would refuse it, and our weights would part from theirs.
    peer = protocol("b")
    with pytest.raises(MessageError, match="manifest allows"):
        peer.publish(bad, 0.0)
    assert len(peer.messages) == 0


@pytest.mark.parametrize("limit", [0.5, 0.1, 0.3, 1e-3])
def test_a_message_at_the_limits_is_taken(limit: float) -> None:
    # float32(0.1) is above 0.1: a peer that uses exactly the rate that the manifest allows must be heard.
    terms = Terms(TERMS.digest, TERMS.packed, 4, limit)
    whole = Message(stream("b"), 0, 0, as_float32(limit), bytes(4))
    hearer, writer = protocol("a", terms=terms), protocol("b", terms=terms)
    hearer.hear(whole.encode(), 0.0, forward=True)
    writer.publish(whole, 0.0)
    assert list(hearer.messages) == list(writer.messages) == [whole]


def test_a_bad_message_in_a_chunk_changes_nothing() -> None:
    peer = protocol("a")
    chunk = Chunk([message("b", 0).encode(), OVER_THE_LIMITS["samples"].encode()])
    with pytest.raises(MessageError):
        peer.receive(("accepted", b"b"), wire.encode(chunk), 0.0)
    assert (len(peer.messages), peer.take()) == (0, [])


def test_a_chunk_with_bytes_that_are_no_message_changes_nothing() -> None:
    peer = protocol("a")
    with pytest.raises(MessageError):
        peer.receive(("accepted", b"b"), wire.encode(Chunk([message("b", 0).encode(), b"\x01"])), 0.0)
    assert (len(peer.messages), peer.take()) == (0, [])


def test_an_equivocation_is_refused_and_noted_once() -> None:
    peer = protocol("a")
    peer.hear(message("b", 0, code=1).encode(), 0.0, forward=True)
    for _ in range(3):
        with pytest.raises(EquivocationError):
            peer.hear(message("b", 0, code=2).encode(), 0.0, forward=True)
    assert list(peer.messages) == [message("b", 0, code=1)]
    assert len(peer.faults) == 1


PUBLISHED_WRONGLY = [
    Hello(bytes(16), "", b""),
    Welcome(bytes(16), ""),
    Refusal(""),
    Request(bytes(16), 0, 1),
    Chunk([]),
]


@pytest.mark.parametrize("frame", PUBLISHED_WRONGLY, ids=lambda frame: type(frame).__name__)
def test_what_belongs_on_links_is_refused_among_publications(frame: wire.AnyFrame) -> None:
    peer = protocol("a")
    with pytest.raises(MessageError, match=type(frame).__name__):
        peer.hear(wire.encode(frame), 0.0, forward=True)
    assert peer.refusal is None


@pytest.mark.parametrize("data", [message("b", 0).encode(), beat("b", 1)], ids=["message", "heartbeat"])
def test_what_belongs_among_publications_is_refused_on_links(data: bytes) -> None:
    peer = protocol("a")
    with pytest.raises(MessageError, match="publications"):
        peer.receive(("accepted", b"b"), data, 0.0)
    assert len(peer.messages) == 0
    assert peer.peers == {}


@pytest.mark.parametrize("data", [b"", b"\x10", b"\x01", b"\x00" * 40, b"\x10\x92\x02\xa1\xff"])
def test_bytes_that_are_no_frame_are_refused_on_both_ways(data: bytes) -> None:
    peer = protocol("a")
    with pytest.raises(MessageError):
        peer.hear(data, 0.0, forward=True)
    with pytest.raises(MessageError):
        peer.receive(("accepted", b"b"), data, 0.0)


def test_made_up_peers_do_not_fill_the_memory() -> None:
    peer = protocol("a")
    refused = 0
    for n in range(MOST_STREAMS + 100):
        try:
            peer.hear(beat(f"made-up{n}", 1), 0.0, forward=False)
        except MessageError:
            refused += 1
    assert len(peer.peers) <= MOST_STREAMS


def test_a_made_up_round_leaves_us_able_to_state_ours() -> None:
    peer = protocol("a")
    peer.hear(beat("b", 1), 0.0, forward=False)
    last = message("b", 0, round_=2**32 - 1).encode()
    try:
        peer.hear(last, 0.0, forward=False)
    except MessageError:
        assert len(peer.messages) == 0
    (frame,) = decoded(peer.enter(State.TRAINING, peer.swarm_round(0.0), 0.0))
    assert isinstance(frame, Heartbeat)


# Lockstep


def at_round(round_: int, **others: int) -> Protocol:
    """A training peer about to finish a round, and others that have said which round they are at."""
    peer = protocol("a")
    peer.enter(State.TRAINING, round_, 0.0)
    for name, theirs in others.items():
        peer.hear(beat(name, 1, State.TRAINING, theirs), 0.0, forward=False)
    peer.publish(message("a", 0, round_), 0.0)
    return peer


def names(views: Iterable[object]) -> list[str]:
    return [getattr(view, "name") for view in views]  # noqa: B009


def test_we_wait_for_those_whose_message_is_still_to_come() -> None:
    peer = at_round(5, behind=4, equal=5, ahead=6)
    assert names(peer.waits_for(5, 1.0)) == ["behind", "equal"]
    peer.hear(message("equal", 0, round_=5).encode(), 1.0, forward=False)
    assert names(peer.waits_for(5, 1.0)) == ["behind"]
    peer.hear(message("behind", 0, round_=4).encode(), 1.0, forward=False)
    assert names(peer.waits_for(5, 1.0)) == ["behind"]
    peer.hear(message("behind", 1, round_=5).encode(), 1.0, forward=False)
    assert peer.waits_for(5, 1.0) == []


@pytest.mark.parametrize(
    ("state", "waited"),
    [
        (State.LOADING, False),
        (State.READY, True),
        (State.TRAINING, True),
        (State.FINISHED, False),
        (State.LEAVING, False),
        (State.RELAYING, False),
    ],
)
def test_we_wait_only_for_those_that_take_part(state: State, waited: bool) -> None:
    peer = at_round(3, b=3)
    peer.hear(beat("b", 2, state, 3), 0.5, forward=False)
    assert bool(peer.waits_for(3, 1.0)) == waited


def test_who_was_not_heard_of_within_the_timeout_is_not_waited_for() -> None:
    peer = at_round(3, b=3)
    assert names(peer.waits_for(3, TIMING.timeout - 0.1)) == ["b"]
    assert peer.waits_for(3, TIMING.timeout) == []
    assert peer.live(TIMING.timeout) == []


def test_a_message_is_a_sign_of_life() -> None:
    peer = at_round(3, b=3)
    peer.hear(message("b", 0, round_=2).encode(), TIMING.timeout - 1, forward=False)
    assert names(peer.live(TIMING.timeout + 1)) == ["b"]


def test_who_is_late_costs_one_deadline() -> None:
    peer = at_round(5, b=5, c=5)
    peer.hear(message("c", 0, round_=5).encode(), 1.0, forward=False)
    assert names(peer.give_up_on(5, 1.0)) == ["b"]
    peer.publish(message("a", 1, 6), 1.0)
    assert names(peer.waits_for(6, 1.0)) == ["c"]
    assert names(peer.give_up_on(6, 1.0)) == ["c"]
    assert peer.give_up_on(6, 1.0) == []


def test_who_is_late_stays_so_while_behind_and_is_waited_for_again_once_level() -> None:
    peer = at_round(5, b=4)
    peer.give_up_on(5, 1.0)
    peer.hear(message("b", 0, round_=4).encode(), 1.0, forward=False)
    peer.hear(beat("b", 2, State.TRAINING, 5), 1.0, forward=False)
    assert peer.waits_for(5, 1.0) == []
    peer.hear(message("b", 1, round_=5).encode(), 1.0, forward=False)
    peer.publish(message("a", 1, 6), 1.0)
    assert names(peer.waits_for(6, 1.0)) == ["b"]


def test_the_swarm_s_round_is_that_of_the_furthest_live_peer() -> None:
    peer = at_round(0, b=3, c=9)
    assert peer.swarm_round(1.0) == 9
    peer.hear(beat("c", 2, State.LEAVING, 9), 1.0, forward=False)
    assert peer.swarm_round(1.0) == 3
    assert peer.swarm_round(100.0) == 0


def test_ready_counts_those_that_could_begin_and_us() -> None:
    peer = protocol("a")
    for n, state in enumerate(State):
        peer.hear(beat(f"b{n}", 1, state), 0.0, forward=False)
    assert peer.ready(1.0) == 3
    peer.enter(State.READY, 0, 1.0)
    assert peer.ready(1.0) == 4
    assert peer.ready(100.0) == 1


def test_has_all_compares_with_what_live_peers_state() -> None:
    peer = protocol("a", messages("b", 2))
    assert peer.has_all(0.0)
    peer.hear(beat("b", 1, has={"b": 3}), 0.0, forward=False)
    assert not peer.has_all(1.0)
    assert peer.has_all(TIMING.timeout)
    peer.hear(message("b", 2).encode(), 1.0, forward=False)
    assert peer.has_all(1.0)


def test_others_have_all_compares_what_they_state_with_ours() -> None:
    peer = protocol("a", messages("a", 2))
    assert peer.others_have_all(0.0)
    peer.hear(beat("b", 1, has={"a": 1}), 0.0, forward=False)
    peer.hear(beat("c", 1, has={"a": 5}), 0.0, forward=False)
    assert not peer.others_have_all(1.0)
    peer.hear(beat("b", 2, has={"a": 2}), 0.0, forward=False)
    assert peer.others_have_all(1.0)


def test_others_have_all_looks_again_once_our_set_has_grown() -> None:
    peer = protocol("a", messages("a", 2))
    peer.hear(beat("b", 1, has={"a": 2}), 0.0, forward=False)
    assert peer.others_have_all(1.0)
    peer.publish(message("a", 2), 1.0)
    assert not peer.others_have_all(1.0)
    peer.hear(beat("b", 2, has={"a": 3}), 1.0, forward=False)
    assert peer.others_have_all(1.0)


def test_a_version_vector_is_gone_through_once_and_not_at_every_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    # With a thousand peers, a thousand vectors of a thousand entries at every tick would take a second each time.
    names = [f"p{n}" for n in range(20)]
    peer, has = protocol("a", [m for name in names for m in messages(name, 2)]), dict.fromkeys(names, 2)
    for name in names:
        greeted(peer, ("accepted", name.encode()), name)
        peer.hear(beat(name, 1, has=has), 0.0, forward=False)
    looked: list[int] = []
    lacks = MessageSet.lacks
    monkeypatch.setattr(MessageSet, "lacks", lambda self, v: looked.append(len(v)) or lacks(self, v))
    for tick in range(10):
        assert requests(peer.tick(tick / 10)) == []
        assert peer.has_all(tick / 10)
    assert sum(looked) == len(names) ** 2
    looked.clear()
    peer.hear(beat("p3", 2, has={**has, "p4": 3}), 1.0, forward=False)
    assert not peer.has_all(1.0)
    assert [request.start for _, request in requests(peer.tick(1.0))] == [2]
    peer.hear(message("p4", 2).encode(), 1.0, forward=False)
    assert peer.has_all(1.0)
    assert sum(looked) <= len(names) + 3


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


def test_a_relay_is_no_one_s_peer_but_must_have_all_before_the_end() -> None:
    peer = protocol("a", messages("a", 1))
    peer.hear(beat("relay", 1, State.RELAYING, has={}), 0.0, forward=False)
    assert names(peer.live(0.0)) == ["relay"]
    assert not peer.others_have_all(0.0)
    peer.hear(beat("relay", 2, State.RELAYING, has={"a": 1}), 0.0, forward=False)
    assert peer.others_have_all(0.0)


def test_what_lies_beyond_a_gap_is_taken_only_once_the_gap_is_filled() -> None:
    peer = protocol("a")
    for number in (0, 2, 3):
        assert peer.hear(message("b", number).encode(), 0.0, forward=True)
    assert peer.take() == [message("b", 0)]
    peer.enter(State.FINISHED, 4, 0.0, b"digest")
    peer.hear(message("b", 5).encode(), 0.0, forward=True)
    assert (peer.untaken, peer.digest) == (0, b"digest")
    peer.hear(message("b", 1).encode(), 0.0, forward=True)
    assert peer.take() == messages("b", 4)[1:]
    assert peer.digest == b""


def test_replicas_agree_though_a_writer_died_whose_last_message_but_one_nobody_heard() -> None:
    peers = {name: protocol(name) for name in ("peer0", "peer1", "peer2")}
    network = Network(peers, star(list(peers)))
    for name, numbers in (("peer0", (0,)), ("peer1", (0, 2))):
        for number in numbers:
            peers[name].hear(message("died", number).encode(), network.now, forward=False)
    peers["peer1"].hear(message("unheard", 1).encode(), network.now, forward=False)
    network.run(30)
    taken = [peer.take() for peer in peers.values()]
    assert taken == [[message("died", 0)]] * 3
    assert peers["peer1"].messages.version() == peers["peer2"].messages.version()
    assert all(peer.has_all(network.now) and peer.others_have_all(network.now) for peer in peers.values())


@dataclass
class Trainers:
    """Training peers in lockstep, as a session drives them: publish, wait until a deadline, go on."""

    network: Network
    rounds: int
    deadline: float
    round: dict[str, int] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    given_up: dict[str, list[str]] = field(default_factory=dict)
    held_at_publish: list[tuple[str, int, int]] = field(default_factory=list)

    def act(self) -> None:
        network = self.network
        for name in sorted(network.peers.keys() - network.dead):
            peer, now = network.peers[name], network.now
            if name not in self.since:
                if peer.state is not State.READY:
                    network.carry(name, peer.enter(State.READY, 0, now))
                if peer.ready(now) == len(network.peers):
                    network.carry(name, peer.enter(State.TRAINING, 0, now))
                    self.round[name], self.given_up[name] = 0, []
                    self._publish(name)
                continue
            done = self.round[name]
            if done >= self.rounds:
                continue
            if peer.waits_for(done, now):
                if now - self.since[name] < self.deadline:
                    continue
                self.given_up[name] += names(peer.give_up_on(done, now))
            self.round[name] = done + 1
            if done + 1 < self.rounds:
                self._publish(name)
            else:
                network.carry(name, peer.enter(State.FINISHED, done + 1, now))

    def _publish(self, name: str) -> None:
        network, round_ = self.network, self.round[name]
        peer = network.peers[name]
        held = sum(m.round == round_ - 1 for m in peer.messages)
        self.held_at_publish.append((name, round_, held))
        network.carry(name, peer.publish(message(name, round_), network.now))
        self.since[name] = network.now


@SHAPES
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_calm_run_is_synchronous(shape: Shape, count: int) -> None:
    network = swarm(count, shape)
    trainers = Trainers(network, rounds=20, deadline=3.0)
    network.run(40, trainers.act)
    assert trainers.round == dict.fromkeys(network.peers, 20)
    assert all(given == [] for given in trainers.given_up.values())
    assert {held for _, round_, held in trainers.held_at_publish if round_ > 0} == {count}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_lossy_run_ends_with_equal_sets(seed: int) -> None:
    network = swarm(4, mesh, seed=seed, loss=0.2, doubling=0.2, delay=0.5)
    trainers = Trainers(network, rounds=20, deadline=3.0)
    network.run(150, trainers.act)
    assert trainers.round == dict.fromkeys(network.peers, 20)
    expected = {m for name in network.peers for m in messages(name, 20)}
    assert all(set(peer.messages) == expected for peer in network.peers.values())


@SHAPES
def test_a_peer_that_dies_costs_each_other_one_deadline_and_its_bytes_remain(shape: Shape) -> None:
    network = swarm(3, shape)
    trainers = Trainers(network, rounds=100, deadline=3.0)
    network.run(8, trainers.act)
    assert 0 < trainers.round["peer2"] < 90
    network.dead.add("peer2")
    network.run(60, trainers.act)
    for name in ("peer0", "peer1"):
        assert trainers.round[name] == 100
        assert trainers.given_up[name] == ["peer2"]
        assert network.peers[name].messages.version()[stream("peer2")] == trainers.round["peer2"] + 1


def test_a_restarted_peer_writes_another_stream() -> None:
    assert Stream(bytes(12), 6).restarted() == Stream(bytes(12), 7)
