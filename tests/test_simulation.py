"""The simulator of benchmarks/simulate.py: that it is its seed, sees what is broken, and that swarms are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shared_seed.messages import Message, MessageSet

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SHAPES = ["flat", "hubs", "relayed", "tree"]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("lockstep", [True, False], ids=["lockstep", "free"])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_survivors_hold_equal_sets_after_loss_churn_and_a_partition(shape: str, seed: int, lockstep: bool) -> None:
    from simulate import ROUGH
    from simulation.verdict import broken
    from simulation.world import World

    world = World(replace(ROUGH, shape=shape, seed=seed, lockstep=lockstep, peers=20, churn=0.5))
    world.run()
    assert broken(world) == []
    assert world.network.lost > 100
    assert world.equal_since is not None
    assert len(world.published) > 10


@pytest.mark.parametrize("shape", SHAPES)
def test_a_calm_simulation_loses_nothing_and_fetches_nothing(shape: str) -> None:
    from simulation.result import result
    from simulation.world import Scenario, World

    world = World(Scenario(shape, peers=9, rounds=3))
    world.run()
    row = result("calm", world)
    assert (row.broken, row.lost, row.late) == ([], 0, 0)
    assert row.messages == 27
    assert row.received_frames["catch-up"] == 0
    # Every message reaches every peer, and comes back to its sender from where it was forwarded.
    assert row.received_frames["gradient"] >= 26
    assert row.equal is not None
    assert row.equal < 2


def test_a_seed_is_a_trace() -> None:
    from simulation.shared import shared_decoding
    from simulation.world import Scenario, World

    def digest(seed: int, peers: int = 6) -> str:
        world = World(Scenario(peers=peers, seed=seed, rounds=2, churn=0.3))
        world.run()
        return world.end_digest()

    first = digest(1)
    assert first == digest(1)
    assert first != digest(2)
    # Decoding once for all changes nothing, not even where it forgets all the time.
    for most in (1, 1000):
        with shared_decoding(most):
            assert digest(1) == first


@pytest.mark.parametrize("peers", [2, 8, 9, 64, 65, 600])
@pytest.mark.parametrize("shape", SHAPES)
def test_topologies_hang_together(shape: str, peers: int) -> None:
    from simulation.topology import FAN_OUT, TOPOLOGIES

    topology = TOPOLOGIES[shape](peers)
    joined = {0}
    links = [(a, b) for a, targets in enumerate(topology.dials) for b in targets]
    for _ in range(topology.nodes):
        before = len(joined)
        joined |= {end for link in links if joined & set(link) for end in link}
        if len(joined) == before:
            break
    assert joined == set(range(topology.nodes))
    if shape == "tree":
        listeners = [b for _, b in links]
        assert all(listeners.count(b) <= FAN_OUT for b in set(listeners))
        assert all(b >= peers for b in listeners)


def test_what_is_broken_is_seen() -> None:
    from simulation.verdict import broken
    from simulation.world import Scenario, World

    world = World(Scenario(peers=4, rounds=2))
    world.run()
    assert broken(world) == []
    victim = world.survivors[2]
    name, whole = victim.protocol.name, victim.protocol.messages
    victim.protocol.messages = MessageSet(list(whole)[:-1])
    assert broken(world) == ["sets differ", "weights are not those of the sets"]
    victim.protocol.messages = whole
    victim.weights += 1
    victim.done = False
    assert broken(world) == [f"1 have not finished: {name}", "weights differ"]
    victim.weights, victim.done = victim.weights - 1, True
    stream = victim.protocol.stream
    world.published[stream].append(Message(stream, 2, 2, 0.5, b"x"))
    assert broken(world) == [f"1 messages of {name} are missing"]
    del world.published[stream][1:]
    assert broken(world)[0] == "1 messages that nobody published"


def test_a_narrow_line_takes_longer() -> None:
    from simulation.network import Weather
    from simulation.world import Scenario, World

    ends = []
    for rate in (None, 20_000):
        world = World(Scenario(peers=12, rounds=2, weather=Weather(rate=rate)))
        world.run()
        ends.append(world.calendar.now)
    assert ends[0] < ends[1] / 1.2


def test_the_past_is_not_on_the_calendar() -> None:
    from simulation.calendar import Calendar

    calendar = Calendar()
    calendar.put(3, lambda: calendar.put(3, print))
    with pytest.raises(ValueError, match="3 ms is past"):
        calendar.run(10, lambda: True)
