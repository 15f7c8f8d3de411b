"""A whole run: processes that start, live, crash and come back on a network."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from shared_seed import history
from shared_seed.log import Contents
from shared_seed.messages import Message, Stream
from shared_seed.signed import Signed
from shared_seed.swarm.author import Author
from shared_seed.swarm.output import Output, Publish
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import State
from simulation.agreement import Agreement, restarted
from simulation.calendar import Calendar
from simulation.churn import Fate, fates
from simulation.counts import GRADIENT, kind
from simulation.life import Habits, Life, Peer, Wait
from simulation.network import Network, Process, Weather
from simulation.stand_in import Eyes, StandIn, StandInPeer
from simulation.topology import TOPOLOGIES, Topology, sample

TICK = 250
"""Milliseconds between two looks of a process at the clock, and at what it waits for. The real thread sleeps 50 at
most; more looks change little but the time that a simulation takes."""

LOOK = 50
"""Milliseconds between two looks at whether all sets are equal."""

RELAY_DIES, RELAY_AWAY = 15_000, 5_000
"""When the first relay dies, where there is churn, and how long it is away; it comes back with an empty set."""


@dataclass(frozen=True)
class Scenario:
    """Everything that a run follows from; it is given up after ``longest`` seconds.

    Where ``whole`` is given, so many peers are simulated whole, and the relays above them; all others are
    stand-ins (:mod:`simulation.stand_in`).
    """

    shape: str = "flat"
    peers: int = 10
    seed: int = 1
    rounds: int = 4
    step: float = 5.0
    lockstep: bool = True
    churn: float = 0.0
    longest: float = 1500.0
    whole: int | None = None
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
        self.processes: list[Process] = []
        self.published: dict[Stream, list[Message]] = {}
        self.last_publication = 0
        self.equal_since: int | None = None
        self._chance = random.Random(f"world {scenario.seed}")
        self._running: dict[int, Running] = {}
        self._fates = fates(scenario.peers, scenario.churn, scenario.seconds, scenario.seed)
        first = sum(fate.starts == 0 for fate in self._fates)
        self._habits = Habits(scenario.rounds, scenario.step, scenario.lockstep, first)
        self._agreement = Agreement.of(scenario.rounds, first, scenario.lockstep)
        self._authors = self._name_all()
        keys = [author.introduction.key for author in self._authors if author.introduction]
        everybody = frozenset(range(self.topology.nodes))
        self.whole = everybody if scenario.whole is None else sample(self.topology, scenario.whole)
        self.network = Network(self.topology, scenario.weather, keys, self.whole, scenario.seed, self.calendar)
        self._coming = 0
        self._models = self._choose_models()
        self._eyes: dict[int, Eyes] = {}
        self._followers: dict[int, list[Process]] = {}

    def _name_all(self) -> list[Author]:
        peers = self.topology.peers
        names = [f"peer{a}" if a < peers else f"relay{a}" for a in range(self.topology.nodes)]
        return [self._agreement.author(name, self._chance) for name in names]

    def _choose_models(self) -> list[int]:
        """The peers whose eyes stand-ins may borrow: whole ones that just stay."""
        stay = [address for address, fate in enumerate(self._fates) if fate == Fate()]
        return sorted(self.whole.intersection(stay))

    def run(self) -> None:
        """Let everything happen."""
        # Stand-ins look through the eyes of the uppermost relay, so that comes first.
        for address in reversed(range(self.topology.peers, self.topology.nodes)):
            relay = self._start_relay(self._authors[address], address)
            if self.scenario.churn and address == self.topology.peers:
                self._at(RELAY_DIES, partial(self._restart_relay, relay))
        for address, fate in enumerate(self._fates):
            self._plan(address, fate)
        self._look()
        self.calendar.run(int(1000 * self.scenario.longest), self._goes_on)

    @property
    def survivors(self) -> list[Peer]:
        """The peers that are there at the end, or were until they had finished; no stand-ins."""
        return [running.peer for address, running in self._running.items() if address in self.whole]

    @property
    def stand_ins(self) -> list[Peer]:
        """The stand-ins that stayed until the end."""
        return [running.peer for address, running in self._running.items() if address not in self.whole]

    def is_upper(self, address: int) -> bool:
        """Whether a peer belongs to the half that may be cut off."""
        return self.topology.peers // 2 <= address < self.topology.peers

    def end_digest(self) -> str:
        """That of all that was sent and of what everybody holds."""
        end = hashlib.sha256(self.network.digest.encode())
        for address, running in sorted(self._running.items()):
            end.update(b"%d %d %d" % (address, running.peer.weights, running.peer.applied))
        return end.hexdigest()[:16]

    # Starting and ending processes

    def _plan(self, address: int, fate: Fate) -> None:
        # Nobody starts in the same millisecond as all others; stand-ins start when their models are there.
        start = int(1000 * fate.starts) + self._chance.randint(1, 1000) + 1000 * (address not in self.whole)
        self._at(start, lambda: self._start_peer(address, self._authors[address], self._log(fate)))
        if fate.leaves is not None:
            self._at(start + int(1000 * fate.leaves), lambda: self._leave(address))
        if fate.dies is not None:
            self._at(start + int(1000 * fate.dies), lambda: self._kill(address, fate))

    def _log(self, fate: Fate) -> Contents | None:
        """The log of a peer that will need one."""
        agreed = self._agreement
        wanted = fate.returns is not None and fate.with_log
        return Contents(agreed.manifest, signature=agreed.signature) if wanted else None

    def _at(self, due: int, act: Callable[[], object]) -> None:
        self._coming += 1

        def call() -> None:
            self._coming -= 1
            act()

        self.calendar.put(due, call)

    def _start_relay(self, author: Author, address: int) -> Process:
        manifest, top = self._agreement.manifest, self.topology.nodes - 1
        if address in self.whole:
            relay = Protocol(author, self._agreement.terms, self._agreement.archive())
        else:
            relay = StandIn(author, manifest, self._eyes[top])
        relay.enter(State.RELAYING, 0, self.network.now)
        return self._start(address, relay, top)

    def _restart_relay(self, relay: Process) -> None:
        self.network.stop(relay)
        author = restarted(relay.protocol.author)
        self._at(self.calendar.now + RELAY_AWAY, lambda: self._start_relay(author, relay.address))

    def _start_peer(self, address: int, author: Author, log: Contents | None) -> None:
        seed, agreed = f"{self.scenario.seed} {author.stream}", self._agreement
        model = self._model(address)
        if address in self.whole:
            archive = agreed.archive() if log is None else history.archive_of(log)
            peer = Peer(Protocol(author, agreed.terms, archive), log, self._habits, seed)
        else:
            borrowed = StandIn(author, agreed.manifest, self._eyes[model])
            peer = StandInPeer(borrowed, self._running[model].peer, self._habits, seed)
        process = self._start(address, peer.protocol, model)
        life = peer.live(lambda outputs: self._carry(process, outputs), lambda: self.network.now)
        wait = next(life)
        self._running[address] = Running(peer, process, life, wait, self.network.now + wait.seconds)

    def _start(self, address: int, protocol: Protocol, model: int) -> Process:
        process = self.network.start(address, protocol)
        self.processes.append(process)
        if address in self.whole:
            self._eyes[address] = Eyes(protocol)
            self.calendar.put(self.calendar.now + self._chance.randint(1, TICK), self._tick, process)
        else:
            self._followers.setdefault(model, []).append(process)
        return process

    def _model(self, address: int) -> int:
        """The peer through whose eyes a stand-in looks: one that just stays, on the same side of the cut."""
        before = bisect_right(self._models, address) - 1
        same = [m for m in self._models[max(before, 0) : before + 2] if self.is_upper(m) == self.is_upper(address)]
        return same[0] if same else self._models[before]

    def _end(self, address: int) -> Running | None:
        running = self._running.get(address)
        if running is None or running.peer.done:
            return None
        del self._running[address]
        return running

    def _leave(self, address: int) -> None:
        running = self._end(address)
        if running is not None:
            self._part(running.process)

    def _part(self, process: Process) -> None:
        """A process takes leave."""
        outputs = process.protocol.enter(State.LEAVING, process.protocol.round, self.network.now)
        self._carry(process, outputs)
        self.network.stop(process)

    def _kill(self, address: int, fate: Fate) -> None:
        running = self._end(address)
        if running is None:
            return
        self.network.stop(running.process)
        if fate.dies is not None and fate.returns is not None:
            author, log = running.peer.protocol.author, running.peer.log
            again = restarted(author) if log is not None else self._agreement.renamed(author, self._chance)
            due = self.calendar.now + int(1000 * (fate.returns - fate.dies))
            self._at(due, lambda: self._start_peer(address, again, log))

    # What goes on meanwhile

    def _carry(self, process: Process, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, Publish) and kind(output.frame) == GRADIENT:
                message = Signed.decode(output.frame).message
                self.published.setdefault(message.stream, []).append(message)
                self.last_publication = self.calendar.now
        self.network.carry(process, outputs)

    def _tick(self, process: Process) -> None:
        if not process.up:
            return
        stays = self._look_up(process)
        followers = self._followers.get(process.address, [])
        for follower in followers:
            if follower.up:
                self._look_up(follower)
        if stays:
            self.calendar.put(self.calendar.now + TICK, self._tick, process)
        else:
            for follower in followers:  # They see nothing any more.
                if follower.up:
                    self._running[follower.address].peer.done = True
                    self._part(follower)

    def _look_up(self, process: Process) -> bool:
        """A process looks at the clock; ``False`` if its life ends with that."""
        now = self.network.now
        self.network.carry(process, process.protocol.tick(now))
        if process.address < self.topology.peers:
            self._go_on(self._running[process.address], now)
        else:
            process.protocol.take()  # A relay writes it to its log.
        return process.up

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
        lengths = {len(peer.protocol.archive) for peer in self.survivors}
        if len(lengths) != 1:
            self.equal_since = None
        elif self.equal_since is None:
            self.equal_since = self.calendar.now
        self.calendar.put(self.calendar.now + LOOK, self._look)

    def _goes_on(self) -> bool:
        return self._coming > 0 or any(
            running.process.up for address, running in self._running.items() if address in self.whole
        )
