"""A whole run: processes that start, live, crash and come back on a network."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from shared_seed.messages import Message, MessageSet, Stream
from shared_seed.swarm.protocol import Output, Protocol, Publish
from shared_seed.swarm.wire import State
from simulation.calendar import Calendar
from simulation.churn import Fate, fates
from simulation.counts import GRADIENT, kind
from simulation.life import TERMS, Habits, Life, Peer, Wait
from simulation.network import Network, Process, Weather
from simulation.topology import TOPOLOGIES, Topology

TICK = 250
"""Milliseconds between two looks of a process at the clock, and at what it waits for. The real thread sleeps 50 at
most; more looks change little but the time that a simulation takes."""

LOOK = 50
"""Milliseconds between two looks at whether all sets are equal."""

RELAY_DIES, RELAY_AWAY = 15_000, 5_000
"""When the first relay dies, where there is churn, and how long it is away; it comes back with an empty set."""


@dataclass(frozen=True)
class Scenario:
    """Everything that a run follows from; it is given up after ``longest`` seconds."""

    shape: str = "flat"
    peers: int = 10
    seed: int = 1
    rounds: int = 4
    step: float = 5.0
    lockstep: bool = True
    churn: float = 0.0
    longest: float = 1500.0
    weather: Weather = field(default_factory=Weather)

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        return self.rounds * self.step


@dataclass(eq=False, slots=True)
class Running:
    """A peer whose process is up or has ended in good order."""

    peer: Peer
    process: Process
    life: Life
    wait: Wait
    until: float


class World:
    """The run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.calendar = Calendar()
        self.topology: Topology = TOPOLOGIES[scenario.shape](scenario.peers)
        self.network = Network(self.topology, scenario.weather, scenario.seed, self.calendar)
        self.processes: list[Process] = []
        self.published: dict[Stream, list[Message]] = {}
        self.last_publication = 0
        self.equal_since: int | None = None
        self._chance = random.Random(f"world {scenario.seed}")
        self._keys = [self._chance.randbytes(12) for _ in range(self.topology.nodes)]
        self._running: dict[int, Running] = {}
        self._fates = fates(scenario.peers, scenario.churn, scenario.seconds, scenario.seed)
        first = sum(fate.starts == 0 for fate in self._fates)
        self._habits = Habits(scenario.rounds, scenario.step, scenario.lockstep, first)
        self._coming = 0

    def run(self) -> None:
        """Let everything happen."""
        for address in range(self.topology.peers, self.topology.nodes):
            relay = self._start_relay(Stream(self._keys[address]), address)
            if self.scenario.churn and address == self.topology.peers:
                self._at(RELAY_DIES, partial(self._restart_relay, relay))
        for address, fate in enumerate(self._fates):
            self._plan(address, fate)
        self._look()
        self.calendar.run(int(1000 * self.scenario.longest), self._goes_on)

    @property
    def survivors(self) -> list[Peer]:
        """The peers that are there at the end, or were until they had finished."""
        return [running.peer for running in self._running.values()]

    def end_digest(self) -> str:
        """That of all that was sent and of what everybody holds."""
        end = hashlib.sha256(self.network.digest.encode())
        for address, running in sorted(self._running.items()):
            end.update(b"%d %d %d" % (address, running.peer.weights, len(running.peer.log)))
        return end.hexdigest()[:16]

    # Starting and ending processes

    def _plan(self, address: int, fate: Fate) -> None:
        # Nobody starts in the same millisecond as all others.
        start = int(1000 * fate.starts) + self._chance.randint(1, 1000)
        self._at(start, lambda: self._start_peer(address, Stream(self._keys[address]), ()))
        if fate.leaves is not None:
            self._at(start + int(1000 * fate.leaves), lambda: self._leave(address))
        if fate.dies is not None:
            self._at(start + int(1000 * fate.dies), lambda: self._kill(address, fate))

    def _at(self, due: int, act: Callable[[], object]) -> None:
        self._coming += 1

        def call() -> None:
            self._coming -= 1
            act()

        self.calendar.put(due, call)

    def _start_relay(self, stream: Stream, address: int) -> Process:
        relay = Protocol(stream, f"relay{address}", TERMS, MessageSet())
        relay.enter(State.RELAYING, 0, self.network.now)
        process = self.network.start(address, relay)
        self.processes.append(process)
        self.calendar.put(self.calendar.now + self._chance.randint(1, TICK), self._tick, process)
        return process

    def _restart_relay(self, relay: Process) -> None:
        self.network.stop(relay)
        stream = relay.protocol.stream.restarted()
        self._at(self.calendar.now + RELAY_AWAY, lambda: self._start_relay(stream, relay.address))

    def _start_peer(self, address: int, stream: Stream, held: Sequence[Message]) -> None:
        peer = Peer(stream, f"peer{address}", held, self._habits, f"{self.scenario.seed} {stream}")
        process = self.network.start(address, peer.protocol)
        life = peer.live(lambda outputs: self._carry(process, outputs), lambda: self.network.now)
        wait = next(life)
        self.processes.append(process)
        self._running[address] = Running(peer, process, life, wait, self.network.now + wait.seconds)
        self.calendar.put(self.calendar.now + self._chance.randint(1, TICK), self._tick, process)

    def _end(self, address: int) -> Running | None:
        running = self._running.get(address)
        if running is None or running.peer.done:
            return None
        del self._running[address]
        return running

    def _leave(self, address: int) -> None:
        running = self._end(address)
        if running is not None:
            protocol = running.peer.protocol
            self._carry(running.process, protocol.enter(State.LEAVING, protocol.round, self.network.now))
            self.network.stop(running.process)

    def _kill(self, address: int, fate: Fate) -> None:
        running = self._end(address)
        if running is None:
            return
        self.network.stop(running.process)
        if fate.dies is not None and fate.returns is not None:
            protocol = running.peer.protocol
            held = tuple(running.peer.log) if fate.with_log else ()
            due = self.calendar.now + int(1000 * (fate.returns - fate.dies))
            self._at(due, lambda: self._start_peer(address, protocol.stream.restarted(), held))

    # What goes on meanwhile

    def _carry(self, process: Process, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, Publish) and kind(output.frame) == GRADIENT:
                message = Message.decode(output.frame)
                self.published.setdefault(message.stream, []).append(message)
                self.last_publication = self.calendar.now
        self.network.carry(process, outputs)

    def _tick(self, process: Process) -> None:
        if not process.up:
            return
        now = self.network.now
        self.network.carry(process, process.protocol.tick(now))
        if process.address < self.topology.peers:
            self._go_on(self._running[process.address], now)
        self.calendar.put(self.calendar.now + TICK, self._tick, process)

    def _go_on(self, running: Running, now: float) -> None:
        met = running.wait.done(running.peer.protocol, now)
        if not met and now < running.until:
            return
        try:
            running.wait = running.life.send(met)
            running.until = now + running.wait.seconds
        except StopIteration:
            self.network.stop(running.process)

    def _look(self) -> None:
        """See whether all have as many messages as counted, which only equal sets keep."""
        lengths = {len(running.peer.log) + running.peer.protocol.untaken for running in self._running.values()}
        if len(lengths) != 1:
            self.equal_since = None
        elif self.equal_since is None:
            self.equal_since = self.calendar.now
        self.calendar.put(self.calendar.now + LOOK, self._look)

    def _goes_on(self) -> bool:
        return self._coming > 0 or any(running.process.up for running in self._running.values())
