"""Clocks that jump: a date that goes back between two starts, and hours that a suspended machine has missed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from fuzzing import world
from fuzzing.world import ALICE, BOB, MANIFEST, OURS, OWNERS, PACKED
from shared_seed import history, log
from shared_seed.archive import Archive
from shared_seed.errors import MessageError
from shared_seed.identity import Key
from shared_seed.messages import Message
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.budget import Budget
from shared_seed.swarm.output import Join, Link, Output, Publish
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import State

TODAY = 1_790_000_000
"""What the date says at first, in seconds since 1970."""


def peer(key: Key, date: int, held: Archive | None = None) -> Protocol:
    author = Author(world.stream(key), "a peer", key, world.introduction(key))
    terms = Terms(MANIFEST.digest(), PACKED, OWNERS)
    return Protocol(author, terms, held or Archive(MANIFEST), first_beat=date)


def resumed(before: Protocol, key: Key, date: int) -> Protocol:
    """The next process of a peer that goes on in the same stream, with what its log holds."""
    contents = history.contents_of(before.archive, MANIFEST, OWNERS)
    return peer(key, date, history.archive_of(log.parse(log.encode(contents), "its log")))


@dataclass
class Star:
    """Peers that dial one in the middle, each with a clock of its own; nothing is lost on the way."""

    middle: Protocol
    outer: dict[str, Protocol]
    now: float = 100.0
    ahead: dict[str, float] = field(default_factory=dict)
    """Seconds that the clocks of some are ahead of ``now``; "middle" is the one in the middle."""
    joined: set[str] = field(default_factory=set)

    def dial(self, name: str) -> None:
        self.outer[name].dialled(("dialled", "middle"))

    def time(self, name: str) -> float:
        return self.now + self.ahead.get(name, 0.0)

    def carry(self, sender: str, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Join):
                self.joined.add(sender)
            elif sender == "middle":
                self._from_middle(output)
            elif isinstance(output, Publish):
                if sender in self.joined:
                    self.carry("middle", self.middle.hear(output.frame, self.time("middle"), True))
            else:
                link: Link = ("accepted", sender.encode())
                with suppress(MessageError):  # It may have lost us, and we not have noticed yet.
                    self.carry("middle", self.middle.receive(link, output.frame, self.time("middle")))

    def _from_middle(self, output: Output) -> None:
        if isinstance(output, Publish):
            for name in sorted(self.joined):
                self.carry(name, self.outer[name].hear(output.frame, self.time(name), False))
        elif not isinstance(output, Join):
            name = output.link[1]
            assert isinstance(name, bytes)
            receiver = name.decode()
            with suppress(MessageError):
                self.carry(
                    receiver,
                    self.outer[receiver].receive(("dialled", "middle"), output.frame, self.time(receiver)),
                )

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            self.now += 0.25
            self.carry("middle", self.middle.tick(self.time("middle")))
            for name, each in self.outer.items():
                self.carry(name, each.tick(self.time(name)))

    def say(self, name: str, key: Key) -> None:
        at = self.outer[name]
        number = at.archive.count(world.stream(key))
        self.carry(name, at.publish(Message(world.stream(key), number, number, 0.25, b"\x38"), self.time(name)))

    def finish(self) -> None:
        """While they train peers do not tell everybody again and again what they hold."""
        for name, each in self.outer.items():
            self.carry(name, each.enter(State.FINISHED, each.round, self.time(name)))
        self.run(5)

    def sees(self, one: str, key: Key) -> bool:
        at = self.middle if one == "middle" else self.outer[one]
        seen = at.roster.peers.get(world.stream(key))
        return seen is not None and seen in at.live(self.time(one))


def star() -> Star:
    drawn = Star(peer(OURS, TODAY), {"alice": peer(ALICE, TODAY), "bob": peer(BOB, TODAY)})
    for name in drawn.outer:
        drawn.dial(name)
        drawn.outer[name].enter(State.TRAINING, 0, drawn.now)
    drawn.run(10)
    return drawn


def test_a_peer_that_resumes_with_an_earlier_date_is_heard_by_everybody() -> None:
    drawn = star()
    drawn.say("alice", ALICE)
    drawn.run(5)
    assert all(drawn.sees(one, ALICE) for one in ("middle", "bob"))
    before = drawn.outer["bob"].roster.peers[world.stream(ALICE)].beat
    drawn.joined.discard("alice")
    drawn.outer["alice"] = resumed(drawn.outer["alice"], ALICE, TODAY - 365 * 86400)
    drawn.dial("alice")
    drawn.outer["alice"].enter(State.TRAINING, 1, drawn.now)
    drawn.run(20)
    assert all(drawn.sees(one, ALICE) for one in ("middle", "bob"))
    assert drawn.outer["bob"].roster.peers[world.stream(ALICE)].beat > before
    drawn.say("alice", ALICE)
    drawn.run(5)
    assert len({each.archive.digest() for each in (drawn.middle, *drawn.outer.values())}) == 1
    drawn.finish()
    assert drawn.middle.all_equal(drawn.now)


def test_a_peer_that_left_in_good_order_and_resumes_with_an_earlier_date_is_heard() -> None:
    drawn = star()
    drawn.carry("alice", drawn.outer["alice"].enter(State.LEAVING, 0, drawn.now))
    assert not drawn.sees("bob", ALICE)
    drawn.joined.discard("alice")
    drawn.outer["alice"] = resumed(drawn.outer["alice"], ALICE, 5)
    drawn.dial("alice")
    drawn.outer["alice"].enter(State.TRAINING, 0, drawn.now)
    drawn.run(10)
    assert all(drawn.sees(one, ALICE) for one in ("middle", "bob"))


def test_nobody_but_a_peer_itself_moves_the_number_of_its_heartbeats() -> None:
    drawn = star()
    alice = drawn.outer["alice"]
    before = alice._heartbeats.number
    forged = world.signed_beat(BOB, before + 1000, stream=world.stream(ALICE).to_bytes())
    alice.receive(("dialled", "middle"), forged, drawn.now)
    assert alice._heartbeats.number == before
    alice.receive(("dialled", "middle"), world.signed_beat(ALICE, before + 1000), drawn.now)
    assert alice._heartbeats.number == before + 1000


def test_a_peer_whose_clock_has_jumped_by_hours_finds_everybody_again() -> None:
    for jumper in ("alice", "middle"):
        drawn = star()
        drawn.say("alice", ALICE)
        drawn.say("bob", BOB)
        drawn.run(2)
        drawn.ahead[jumper] = 5 * 3600.0
        jumped = drawn.middle if jumper == "middle" else drawn.outer[jumper]
        assert not jumped.live(drawn.time(jumper)), "all its timeouts are over at once"
        for _ in range(5):
            drawn.say("bob", BOB)
            drawn.run(1)
        drawn.run(25)
        assert all(drawn.sees(one, key) for one, key in (("alice", BOB), ("bob", ALICE), ("middle", ALICE)))
        drawn.say("alice", ALICE)
        drawn.run(10)
        assert {len(each.archive) for each in (drawn.middle, *drawn.outer.values())} == {8}
        drawn.finish()
        for name, each in (("middle", drawn.middle), *drawn.outer.items()):
            assert each.has_all(drawn.time(name))
            assert each.all_equal(drawn.time(name))
            assert not each.standing.faults


def test_a_budget_is_full_after_a_jump_and_no_fuller() -> None:
    budget = Budget(1000, burst=4.0)
    assert budget.takes(b"a", 4000, 0.0)
    assert budget.takes(b"a", 4000, 5 * 3600.0)
    assert not budget.takes(b"a", 1, 5 * 3600.0)
    budget.charge(b"a", 8000, 5 * 3600.0)
    assert not budget.takes(b"a", 0, 5 * 3600.0 + 7.0)
    assert budget.takes(b"a", 0, 5 * 3600.0 + 9.0)
    assert not budget.takes(b"a", 2000, 0.0), "a clock that goes back fills nothing"
