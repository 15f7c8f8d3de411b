"""What a peer knows of the others: who is there, whom it waits for, which round the swarm is at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from network import (
    TIMING,
    Network,
    Shape,
    beat,
    chain,
    hear,
    mesh,
    message,
    messages,
    protocol,
    said,
    star,
    stream,
    swarm,
)
from shared_seed.errors import MessageError
from shared_seed.messages import Stream
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.roster import LONGEST_INTERVAL, MISSED, Roster
from shared_seed.swarm.wire import Guest, Heartbeat, SignedHeartbeat, State

SHAPES = pytest.mark.parametrize("shape", [star, chain, mesh], ids=["star", "chain", "mesh"])

# Lockstep


def at_round(round_: int, **others: int) -> Protocol:
    """A training peer about to finish a round, and others that have said which round they are at."""
    peer = protocol("a")
    peer.enter(State.TRAINING, round_, 0.0)
    for name, theirs in others.items():
        peer.hear(beat(name, 1, State.TRAINING, theirs), 0.0, forward=False)
    peer.publish(message("a", 0, round_), 0.0)
    return peer


def heard(of: Stream, beat: Heartbeat) -> SignedHeartbeat:
    return SignedHeartbeat(beat, of, beat.guest.introduction(), b"", b"")


def names(views: Iterable[object]) -> list[str]:
    return [getattr(view, "name") for view in views]  # noqa: B009


def test_we_wait_for_those_whose_message_is_still_to_come() -> None:
    peer, equal, behind = at_round(5, behind=4, equal=5, ahead=6), said("equal", 0), said("behind", 0)
    assert names(peer.waits_for(5, 1.0)) == ["behind", "equal"]
    hear(peer, equal.write(round_=5), 1.0)
    assert names(peer.waits_for(5, 1.0)) == ["behind"]
    hear(peer, behind.write(round_=4), 1.0)
    assert names(peer.waits_for(5, 1.0)) == ["behind"]
    hear(peer, behind.write(round_=5), 1.0)
    assert peer.waits_for(5, 1.0) == []


def test_we_do_not_wait_for_who_is_known_to_need_longer_than_the_deadline() -> None:
    peer = at_round(5, quick=5)
    peer.hear(beat("slow", 1, State.TRAINING, 5, pace=9000), 0.0, forward=False)
    assert names(peer.waits_for(5, 1.0, 8.0)) == ["quick"]
    assert names(peer.waits_for(5, 1.0, 9.0)) == ["quick", "slow"]


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
    hear(peer, said("b", 0).write(round_=2), TIMING.timeout - 1)
    assert names(peer.live(TIMING.timeout + 1)) == ["b"]


def test_who_is_late_costs_one_deadline() -> None:
    peer = at_round(5, b=5, c=5)
    hear(peer, said("c", 0).write(round_=5), 1.0)
    assert names(peer.give_up_on(5, 1.0)) == ["b"]
    peer.publish(message("a", 1, 6), 1.0)
    assert names(peer.waits_for(6, 1.0)) == ["c"]
    assert names(peer.give_up_on(6, 1.0)) == ["c"]
    assert peer.give_up_on(6, 1.0) == []


def test_who_is_late_stays_so_while_behind_and_is_waited_for_again_once_level() -> None:
    peer, late = at_round(5, b=4), said("b", 0)
    peer.give_up_on(5, 1.0)
    hear(peer, late.write(round_=4), 1.0)
    peer.hear(beat("b", 2, State.TRAINING, 5), 1.0, forward=False)
    assert peer.waits_for(5, 1.0) == []
    hear(peer, late.write(round_=5), 1.0)
    peer.publish(message("a", 1, 6), 1.0)
    assert names(peer.waits_for(6, 1.0)) == ["b"]


@pytest.mark.parametrize(
    ("rounds", "swarm_round"),
    [([9], 9), ([3, 9], 9), ([3, 3, 9], 3), ([4, 5, 5, 2**32 - 1, 2**32 - 1], 5), ([], 0)],
)
def test_the_swarm_s_round_is_the_middle_one_so_that_a_minority_cannot_move_it(
    rounds: list[int], swarm_round: int
) -> None:
    peer = at_round(0, **{f"b{n}": round_ for n, round_ in enumerate(rounds)})
    assert peer.swarm_round(1.0) == swarm_round
    assert peer.swarm_round(100.0) == 0


def test_those_that_are_still_to_begin_do_not_hold_the_swarm_s_round_back() -> None:
    peer = at_round(0, b=7)
    for name in ("c", "d"):
        peer.hear(beat(name, 1, State.READY, 0), 0.0, forward=False)
    assert peer.swarm_round(1.0) == 7
    peer.hear(beat("b", 2, State.LEAVING, 7), 1.0, forward=False)
    assert peer.swarm_round(1.0) == 0


def noted(number: int, interval: int = 2000, round_: int = 0) -> Heartbeat:
    guest = Guest(bytes(32), bytes(8))
    return Heartbeat(
        bytes(16), guest, number, "b", State.TRAINING, round_, interval, 0, 0, bytes(16), bytes(8), bytes(8)
    )


def test_an_old_heartbeat_changes_nothing_and_rounds_only_grow() -> None:
    roster, one = Roster(10.0), Stream(bytes(12))
    assert roster.note(heard(one, noted(2, round_=7)), 0.0)
    assert not roster.note(heard(one, noted(2, round_=9)), 1.0)
    assert not roster.note(heard(one, noted(1, round_=9)), 1.0)
    assert (roster.peers[one].round, roster.peers[one].heard) == (7, 0.0)
    assert roster.note(heard(one, noted(3, round_=3)), 1.0)
    assert roster.peers[one].round == 7


@pytest.mark.parametrize(
    ("interval", "timeout"), [(0, 10.0), (1999, 10.0), (4000, 20.0), (2**32 - 1, MISSED * LONGEST_INTERVAL)]
)
def test_a_peer_counts_as_gone_after_the_heartbeats_that_it_announced(interval: int, timeout: float) -> None:
    # Nobody stays for ever by announcing that he will be silent for ever.
    roster, one = Roster(10.0), Stream(bytes(12))
    roster.note(heard(one, noted(1, interval)), 0.0)
    assert len(roster.live(timeout - 0.01)) == 1
    assert roster.live(timeout) == []


def test_made_up_peers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared_seed.swarm.roster.MOST_STREAMS", 50)
    roster = Roster(10.0)
    for n in range(50):
        roster.note(heard(Stream(n.to_bytes(12, "little")), noted(1)), 0.0)
    with pytest.raises(MessageError, match="more than 50 peers"):
        roster.note(heard(Stream(bytes(12), 7), noted(1)), 1.0)
    assert roster.note(heard(Stream(bytes(12), 7), noted(1)), 20.0), "those that are gone leave room"
    assert len(roster.peers) == 1


def test_whom_we_heard_last_is_known_though_gone() -> None:
    roster = Roster(10.0)
    assert roster.last_heard() is None
    for n in (1, 2, 3):
        roster.note(heard(Stream(bytes(12), n), noted(n)), float(n % 3))
    assert roster.last_heard() is roster.peers[Stream(bytes(12), 2)]
    roster.forget([Stream(bytes(12), 2)])
    assert roster.last_heard() is roster.peers[Stream(bytes(12), 1)]


def test_nobody_waits_for_a_process_whose_peer_has_started_again() -> None:
    roster = Roster(10.0)
    first, second, ours = Stream(bytes(12), 1), Stream(bytes(12), 2), Stream(b"1" * 12, 5)
    roster.note(heard(first, noted(1)), 0.0)
    assert [len(roster.live(1.0)), len(roster.waits_for(0, 1.0)), roster.is_expecting(1.0, 0.0)] == [1, 1, True]
    roster.note(heard(second, noted(1)), 1.0)
    assert roster.live(1.0) == roster.waits_for(0, 1.0) == [roster.peers[second]]
    # Others still hand on what the dead process said last.
    roster.note(heard(first, noted(2)), 2.0)
    assert roster.live(2.0) == [roster.peers[second]]
    roster.forget([second])
    roster.write(ours)
    roster.note(heard(Stream(ours.peer, 4), noted(1)), 3.0)
    assert (roster.live(3.0), roster.waits_for(0, 3.0), roster.is_expecting(3.0, 0.0)) == ([], [], False)
    roster.forget([Stream(ours.peer, 4)])
    roster.note(heard(Stream(ours.peer, 4), noted(1)), 4.0)
    assert roster.live(4.0) == []


def test_ready_counts_those_that_could_begin_and_us() -> None:
    peer = protocol("a")
    for n, state in enumerate(State):
        peer.hear(beat(f"b{n}", 1, state), 0.0, forward=False)
    assert peer.ready(1.0) == 3
    peer.enter(State.READY, 0, 1.0)
    assert peer.ready(1.0) == 4
    assert peer.ready(100.0) == 1


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
        held = sum(m.round == round_ - 1 for m in peer.archive)
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
    assert all(set(peer.archive) == expected for peer in network.peers.values())


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
        assert network.peers[name].archive.count(stream("peer2")) == trainers.round["peer2"] + 1
