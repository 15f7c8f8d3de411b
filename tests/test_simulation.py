"""The simulator of benchmarks/simulate.py: that it is its seed, sees what is broken, and that swarms are not."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from shared_seed import identity
from shared_seed.errors import MessageError
from shared_seed.messages import Message
from shared_seed.swarm import wire
from shared_seed.swarm.output import Publish
from shared_seed.swarm.wire import State

SHAPES = ["flat", "hubs", "relayed", "tree"]


pytestmark = pytest.mark.usefixtures("benchmarks")


@pytest.mark.parametrize("lockstep", [True, False], ids=["lockstep", "free"])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_survivors_hold_equal_sets_after_loss_churn_and_a_partition(shape: str, seed: int, lockstep: bool) -> None:
    from simulate import ROUGH
    from simulation.shared import shared_decoding
    from simulation.verdict import broken
    from simulation.world import World

    world = World(replace(ROUGH, shape=shape, seed=seed, lockstep=lockstep, peers=20, churn=0.5))
    with shared_decoding(1000):
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
    assert row.received_frames["statement"] == 0
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
    decode, verify, read = wire.decode, identity.verify, Message.decode
    # Decoding and verifying once for all changes nothing, not even where it forgets all the time.
    for most in (1, 1000):
        with shared_decoding(most):
            assert (wire.decode, identity.verify) != (decode, verify)
            assert digest(1) == first
        assert (wire.decode, identity.verify, Message.decode) == (decode, verify, read)


def test_what_somebody_has_not_signed_is_refused_while_decoding_is_shared() -> None:
    from simulation.shared import shared_decoding
    from simulation.world import Scenario, World

    world = World(Scenario(peers=3, rounds=1))
    with shared_decoding(1000):
        world.run()
        hub, other = (peer.protocol for peer in world.survivors[:2])
        (forged,) = other.enter(State.TRAINING, 7, 1e6)
        assert isinstance(forged, Publish)
        with pytest.raises(MessageError, match="not signed"):
            hub.hear(forged.frame[:-1] + bytes([forged.frame[-1] ^ 1]), 1e6, forward=True)
        assert hub.hear(forged.frame, 1e6, forward=True)


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
    name, stream = victim.protocol.author.name, victim.protocol.author.stream
    victim.weights += 1
    victim.done = False
    assert broken(world) == [f"1 have not finished: {name}", "weights differ"]
    victim.weights, victim.done = victim.weights - 1, True
    world.published[stream].append(Message(stream, 2, 2, 0.5, b"x"))
    assert broken(world) == [f"1 messages of {name} are missing"]
    del world.published[stream][1:]
    assert broken(world)[0] == "1 messages that nobody published"
    world = World(Scenario(peers=4, rounds=2))
    world.run()
    victim = world.survivors[2]
    victim.protocol.archive.rules.rounds = 1 << 11
    victim.protocol.publish(Message(victim.protocol.author.stream, 2, 1 << 10, 0.5, b"x"), 1e6)
    assert broken(world) == ["sets differ", "weights are not those of the sets"]


def test_a_narrow_line_takes_longer() -> None:
    from simulation.network import Weather
    from simulation.world import Scenario, World

    ends = []
    for rate in (None, 3_000):
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


@pytest.mark.parametrize("setting", ["calm", "rough"])
@pytest.mark.parametrize("shape", ["flat", "relayed", "tree"])
def test_a_swarm_with_stand_ins_is_much_like_one_without(shape: str, setting: str) -> None:
    from simulate import SETTINGS
    from simulation.result import Result, result
    from simulation.shared import shared_decoding
    from simulation.world import World

    def simulated(whole: int | None) -> Result:
        world = World(replace(SETTINGS[setting], shape=shape, peers=60, whole=whole))
        with shared_decoding(1000):
            world.run()
        return result(setting, world)

    full, part = simulated(None), simulated(12)
    assert full.broken == part.broken == []
    assert full.whole == full.peers + full.relays
    assert part.whole < full.whole / 2
    assert part.events < full.events / 2
    assert part.messages == pytest.approx(full.messages, rel=0.1)
    # What stand-ins publish seldom gets lost, so less is asked for, and pulses are seldom followed by heartbeats.
    near = 0.25 if setting == "calm" else 0.4
    assert part.rate == pytest.approx(full.rate, rel=near)
    assert part.busiest_rate == pytest.approx(full.busiest_rate, rel=near)
    assert part.equal is not None
    assert part.equal < 20


def test_the_part_of_a_swarm_that_is_whole_hangs_together() -> None:
    from simulation.topology import TOPOLOGIES, sample

    for shape in SHAPES:
        topology = TOPOLOGIES[shape](2000)
        whole = sample(topology, 16)
        peers = [address for address in whole if address < 2000]
        assert 16 <= len(peers) <= 17
        assert all(target in whole for address in whole for target in topology.dials[address])
        assert sum(address >= 1000 for address in peers) >= 4
    assert sample(TOPOLOGIES["tree"](2000), 16) & set(range(8)) == set(range(8))


def test_what_a_stand_in_publishes_while_its_line_is_cut_comes_later_and_in_order() -> None:
    from simulation.network import Weather
    from simulation.verdict import broken
    from simulation.world import Scenario, World

    world = World(
        Scenario("tree", 40, rounds=4, whole=10, lockstep=False, weather=Weather(parted=(8_000, 20_000)))
    )
    world.run()
    assert broken(world) == []
    upper = [peer for peer in world.stand_ins if int(peer.protocol.author.name[4:]) >= 20]
    assert len(upper) > 10
    assert all(len(world.published[peer.protocol.author.stream]) == 4 for peer in upper)


def test_who_is_cut_off_while_the_others_finish_and_go_ends_with_a_set_of_its_own() -> None:
    from simulation.network import Weather
    from simulation.verdict import broken
    from simulation.world import Scenario, World

    ends = {}
    for until in (22_000, 90_000):
        world = World(Scenario("tree", 10, rounds=4, weather=Weather(parted=(10_000, until))))
        world.run()
        ends[until] = broken(world)
    assert ends[22_000] == []
    assert "sets differ" in ends[90_000]


def test_a_seed_is_the_same_trace_in_every_process() -> None:
    """Hashes of bytes differ from process to process, and with them the order of sets."""
    script = (
        "from simulation.network import Weather\n"
        "from simulation.shared import shared_decoding\n"
        "from simulation.world import Scenario, World\n"
        "world = World(Scenario(peers=30, lockstep=False, churn=0.5, weather=Weather(loss=0.1)))\n"
        "with shared_decoding(10_000):\n"
        "    world.run()\n"
        "print(world.end_digest())\n"
    )
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        words = [sys.executable, "-c", script]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1
