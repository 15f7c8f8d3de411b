"""What neighbours do about what gets lost, without waiting for heartbeats, which are rare in a crowd."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.errors import MessageError
from shared_seed.identity import Key, curve_public
from shared_seed.messages import Message, Stream
from shared_seed.proofs import Order
from shared_seed.swarm import wire
from shared_seed.swarm.author import Author
from shared_seed.swarm.catchup import LOOKED_AT, MOST_AT_ONCE, CatchUp
from shared_seed.swarm.heartbeats import CROWD
from shared_seed.swarm.output import Link, Output, Publish, Send
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.roster import PATIENCE, Roster
from shared_seed.swarm.wire import State
from swarms import MANIFEST, OWNER, TERMS

UP: Link = ("dialled", "relay")
DOWN: Link = ("accepted", b"peer")


def protocol(number: int, incarnation: int = 0) -> Protocol:
    key = Key(bytes([number]) * 32)
    introduction = Introduction(key.public, bytes([number]) * 8)
    stream = Stream(introduction.peer(MANIFEST.run_bytes), incarnation)
    return Protocol(Author(stream, f"peer{number}", key, introduction), TERMS, Archive(MANIFEST))


def publish(writer: Protocol, now: float) -> bytes:
    """The writer's next message, as it is published."""
    number = writer.archive.count(writer.author.stream)
    (output,) = writer.publish(Message(writer.author.stream, number, number, 0.25, b"\x38"), now)
    return output.frame


def beat(peer: Protocol, state: State, now: float) -> bytes:
    (output,) = peer.enter(state, peer.round, now)
    return output.frame


def frames(outputs: Iterable[Output], kind: type) -> list[wire.AnyFrame]:
    """What goes over links, or is published, of one kind."""
    said = [wire.decode(o.frame, MANIFEST.seal) for o in outputs if isinstance(o, Publish | Send)]
    return [frame for frame in said if isinstance(frame, kind)]


class Pair:
    """A relay and a peer that has dialled it; of what they publish, heartbeats alone arrive."""

    def __init__(self) -> None:
        self.relay, self.peer = protocol(1), protocol(2)
        self.relay.enter(State.RELAYING, 0, 0.0)
        self.peer.dialled(UP)
        self.published: list[bytes] = []
        self.carried: list[wire.AnyFrame] = []
        self.step(0.0)

    def step(self, now: float) -> None:
        """Let both look at the clock, and answer each other until nobody says anything more."""
        out = [(self.peer, output) for output in self.peer.tick(now)]
        out += [(self.relay, output) for output in self.relay.tick(now)]
        while out:
            sender, output = out.pop(0)
            if isinstance(output, Publish):
                self.published.append(output.frame)
                if output.frame[0] == wire.HEARTBEAT:
                    hear(self.peer if sender is self.relay else self.relay, output.frame, now)
            elif isinstance(output, Send):
                self.carried += frames([output], object)
                receiver, link = (self.relay, DOWN) if sender is self.peer else (self.peer, UP)
                out += [(receiver, answer) for answer in receiver.receive(link, output.frame, now)]

    def run(self, start: float, seconds: float, done: Callable[[], bool]) -> float:
        """Let time pass until ``done()``; the seconds that took, at most ``seconds``."""
        for tick in range(1, int(10 * seconds) + 1):
            self.step(start + tick / 10)
            if done():
                return tick / 10
        return seconds

    def count(self, kind: type) -> int:
        """How many frames of a kind the link has carried."""
        return sum(isinstance(frame, kind) for frame in self.carried)


def hear(listener: Protocol, data: bytes, now: float) -> None:
    listener.hear(data, now, forward=True)


def crowd(*listeners: Protocol) -> None:
    """Have peers hear of so many others that their heartbeats come once in 20 seconds."""
    for number in range(10 * CROWD):
        key = Key(number.to_bytes(32, "big"))
        introduction = Introduction(key.public, bytes(8))
        stream = Stream(introduction.peer(MANIFEST.run_bytes))
        other = Protocol(Author(stream, "one of many", key, introduction), TERMS, Archive(MANIFEST))
        frame = beat(other, State.READY, 0.0)
        for listener in listeners:
            hear(listener, frame, 0.0)


def test_in_a_crowd_a_lost_message_is_fetched_long_before_the_next_heartbeat() -> None:
    pair, writer = Pair(), protocol(3)
    crowd(pair.relay, pair.peer)
    pair.run(0.0, 4, lambda: False)
    hear(pair.relay, beat(writer, State.TRAINING, 4.0), 4.0)
    hear(pair.relay, publish(writer, 4.0), 4.0)
    pair.published.clear()
    assert pair.run(4.0, 10, lambda: len(pair.peer.archive) == 1) < 4
    assert not any(frame[0] == wire.HEARTBEAT for frame in pair.published)


def test_a_single_message_that_was_missed_is_passed_on_to_others_who_may_have_missed_it_too() -> None:
    pair, writer = Pair(), protocol(3)
    hear(pair.relay, beat(writer, State.TRAINING, 1.0), 1.0)
    lost = publish(writer, 1.0)
    hear(pair.relay, lost, 1.0)
    pair.run(1.0, 5, lambda: len(pair.peer.archive) == 1)
    assert pair.published.count(lost) == 1


def test_a_stream_that_was_missed_is_not_passed_on_message_by_message() -> None:
    pair, writer = Pair(), protocol(3)
    hear(pair.relay, beat(writer, State.TRAINING, 1.0), 1.0)
    for _ in range(3):
        hear(pair.relay, publish(writer, 1.0), 1.0)
    pair.published.clear()
    pair.run(1.0, 5, lambda: len(pair.peer.archive) == 3)
    assert len(pair.peer.archive) == 3
    assert not any(frame[0] == 0x04 for frame in pair.published)


def test_what_comes_within_a_second_is_not_asked_for() -> None:
    pair, writer = Pair(), protocol(3)
    pair.run(0.0, 10, lambda: False)
    before, held = pair.count(wire.Compare), pair.count(wire.Holding)
    said = [beat(writer, State.TRAINING, 10.0), publish(writer, 10.0)]
    for frame in said:
        hear(pair.relay, frame, 10.0)
    pair.run(10.0, 3, lambda: pair.count(wire.Holding) > held)
    assert pair.count(wire.Holding) > held
    for frame in said:
        hear(pair.peer, frame, 13.0)
    pair.run(13.0, 1.5, lambda: False)
    assert pair.count(wire.Compare) == before


def test_sets_of_equal_size_that_differ_are_compared_too() -> None:
    pair, writers = Pair(), (protocol(3), protocol(4))
    pair.run(0.0, 10, lambda: False)
    for listener, writer in zip((pair.relay, pair.peer), writers, strict=True):
        hear(listener, beat(writer, State.TRAINING, 10.0), 10.0)
        hear(listener, publish(writer, 10.0), 10.0)
    took = pair.run(10.0, 10, lambda: pair.relay.archive.digest() == pair.peer.archive.digest())
    assert took < 5
    assert len(pair.peer.archive) == 2


def test_who_holds_the_same_as_before_does_not_say_so_again_and_again() -> None:
    pair, writer = Pair(), protocol(3)
    pair.run(0.0, 20, lambda: False)
    before = pair.count(wire.Holding)
    assert before == 2, "who holds the same is told once"
    hear(pair.relay, beat(writer, State.TRAINING, 20.0), 20.0)
    hear(pair.relay, publish(writer, 20.0), 20.0)
    pair.run(20.0, 20, lambda: False)
    assert pair.count(wire.Holding) == before + 2


def test_a_holding_on_a_link_without_a_greeting_is_refused() -> None:
    frame = wire.encode(wire.Holding(1, bytes(16), bytes(8)))
    with pytest.raises(MessageError, match="without a greeting"):
        protocol(1).receive(DOWN, frame, 0.0)


def test_a_chunk_makes_a_joiner_look_at_some_streams_and_not_at_all_that_it_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair()
    writers = [protocol(number) for number in range(10, 10 + 200)]
    pair.run(0.0, 3, lambda: False)
    for writer in writers:
        hear(pair.relay, beat(writer, State.TRAINING, 3.0), 3.0)
        hear(pair.relay, publish(writer, 3.0), 3.0)
    monkeypatch.setattr("shared_seed.swarm.catchup.LOOKED_AT", 10)
    looks: list[Stream] = []
    look = CatchUp._open

    def counted(self: CatchUp, stream: Stream, want: object) -> bool:
        looks.append(stream)
        return look(self, stream, want)  # type: ignore[arg-type]

    monkeypatch.setattr(CatchUp, "_open", counted)
    pair.run(3.0, 10, lambda: len(pair.peer.archive) == 200)
    assert len(pair.peer.archive) == 200
    assert len(looks) < 300 * (MOST_AT_ONCE + 10 + 2)
    assert LOOKED_AT > MOST_AT_ONCE


def test_the_sets_of_relays_far_away_are_not_waited_for_but_those_of_our_own() -> None:
    pair, far = Pair(), protocol(3)
    pair.run(0.0, 5, lambda: False)
    hear(far, beat(protocol(5), State.TRAINING, 5.0), 5.0)
    assert pair.peer.all_equal(5.0)
    message = publish(writer := protocol(4), 5.0)
    for listener in (pair.peer, pair.relay):
        hear(listener, beat(writer, State.FINISHED, 5.0), 5.0)
        hear(listener, message, 5.0)
    writer.enter(State.LEAVING, 0, 5.0)
    hear(pair.peer, beat(writer, State.LEAVING, 5.0), 5.0)
    hear(pair.peer, beat(far, State.RELAYING, 5.0), 5.0)
    assert not pair.peer.all_equal(5.0)
    pair.run(5.0, 3, lambda: pair.peer.all_equal(8.0))
    assert pair.peer.all_equal(8.0)
    hear(pair.peer, beat(far, State.FINISHED, 8.0), 8.0)
    assert not pair.peer.all_equal(8.0)


def test_links_of_a_banned_key_are_deaf_until_it_is_back_in() -> None:
    listener, banned = protocol(1), protocol(2)
    assert banned.author.key is not None
    public = banned.author.key.public
    sender = curve_public(public)
    assert sender is not None
    listener.hear(beat(banned, State.READY, 0.0), 0.0, False, sender)
    listener.order(Order.issue(OWNER, MANIFEST.seal, 1, public, True))
    with pytest.raises(MessageError, match="out of the run"):
        listener.hear(beat(banned, State.READY, 1.0), 1.0, False, sender)
    listener.order(Order.issue(OWNER, MANIFEST.seal, 2, public, False))
    listener.hear(beat(banned, State.READY, 2.0), 2.0, False, sender)


def test_waiting_and_whom_one_waits_for_are_one_question() -> None:
    listener, other = protocol(1), protocol(2)
    assert not listener.is_waiting(0, 0.0)
    hear(listener, beat(other, State.TRAINING, 0.0), 0.0)
    for now in (0.0, 9.0, 11.0):
        for round_ in (0, 1):
            assert listener.is_waiting(round_, now) == bool(listener.waits_for(round_, now))
    assert listener.is_waiting(0, 9.0)
    listener.give_up_on(0, 9.0)
    assert not listener.is_waiting(0, 9.0)


def test_an_earlier_process_of_a_peer_is_not_expected_back() -> None:
    roster = Roster(10.0)

    def note(peer: Protocol, state: State, now: float) -> None:
        frame = wire.decode(beat(peer, state, now), MANIFEST.seal)
        assert isinstance(frame, wire.SignedHeartbeat)
        roster.note(frame, now)

    note(protocol(1), State.TRAINING, 0.0)
    assert roster.is_expecting(PATIENCE * 10.0 - 1, 0.0)
    assert not roster.is_expecting(PATIENCE * 10.0, 0.0)
    assert roster.is_expecting(PATIENCE * 10.0, 5.0)
    note(protocol(1, incarnation=1), State.FINISHED, 1.0)
    assert not roster.is_expecting(2.0, 0.0)
