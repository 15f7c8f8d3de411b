"""When a session may begin, and what it says where it could not."""

from __future__ import annotations

from network import beat, greeted, holding, protocol, said
from shared_seed.archive import Archive
from shared_seed.entry import Entry
from shared_seed.swarm.wire import State
from swarming import TERMS


def test_a_run_that_is_under_way_is_entered_when_all_of_it_has_come() -> None:
    peer, others = protocol("a"), said("b", 3)
    entry = Entry(wanted=1, round=0, resumed=False, joins=True)
    peer.enter(State.READY, 0, 0.0)
    assert not entry.is_open(peer, 0.0)
    greeted(peer, "b")
    peer.hear(beat("b", 1, has=holding(Archive(TERMS), others)), 0.0, forward=False)
    assert not entry.is_open(peer, 0.1)
    assert "did not all come within 60 s" in entry.why_closed(peer, 0.1, 60.0)
    for message in others.signed:
        peer.hear(message.encode(), 0.2, forward=False)
    peer.hear(beat("b", 2, has=holding(Archive(TERMS), others)), 0.2, forward=False)
    peer.tick(0.3)
    assert entry.is_open(peer, 0.3)


def test_too_few_peers_are_counted() -> None:
    peer = protocol("a")
    peer.enter(State.READY, 0, 0.0)
    entry = Entry(wanted=3, round=0, resumed=False, joins=False)
    assert not entry.is_open(peer, 1.0)
    assert entry.why_closed(peer, 1.0, 5.0).startswith("1 of 3 peers were ready within 5 s; start the others")
