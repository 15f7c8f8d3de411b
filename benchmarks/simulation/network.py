"""Sockets and wires: who hears what is published, when, and what gets lost."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from shared_seed.errors import MessageError
from shared_seed.swarm.protocol import Link, Output, Protocol, Send
from simulation.calendar import Calendar
from simulation.counts import Counts, kind
from simulation.topology import Topology


@dataclass(frozen=True)
class Weather:
    """What links are like; milliseconds, shares, and bytes a second that a node can send.

    ``loss`` is the share of published copies that never arrive, as when a queue is full. What goes over a link to
    one peer is only lost with the connection. ``parted`` is when the upper half of the peers is cut off.
    """

    delay: tuple[int, int] = (10, 80)
    jitter: int = 20
    loss: float = 0.0
    parted: tuple[int, int] = (0, 0)
    rate: float | None = None


@dataclass(slots=True, eq=False)
class Process:
    """A protocol that is running at an address; one that starts there later is another."""

    address: int
    protocol: Protocol
    forwards: bool
    routing_id: bytes
    up: bool = True
    free: float = 0.0
    sent: Counts = field(default_factory=Counts)
    received: Counts = field(default_factory=Counts)


@dataclass(slots=True)
class Edge:
    """One direction between two addresses: frames arrive in order, and only once the connection is up."""

    target: int
    delay: int
    crosses: bool
    opens: int = 0
    last: int = 0


class Network:
    """Carries the outputs of processes to each other."""

    def __init__(self, topology: Topology, weather: Weather, seed: int, calendar: Calendar) -> None:
        self.calendar = calendar
        self.refused = self.lost = 0
        self._weather = weather
        self._chance = random.Random(f"network {seed}")
        self._trace = hashlib.sha256()
        self._ids = itertools.count(1)
        self._there: list[Process | None] = [None] * topology.nodes
        self._by_id: dict[bytes, Process] = {}
        self._edges: list[dict[int, Edge]] = [{} for _ in range(topology.nodes)]
        self._topology = topology
        self._forwards = topology.forwards
        for address, targets in enumerate(topology.dials):
            for target in targets:
                delay = self._chance.randint(*weather.delay)
                crosses = self._side(address) != self._side(target)
                self._edges[address][target] = Edge(target, delay, crosses)
                self._edges[target][address] = Edge(address, delay, crosses)

    @property
    def now(self) -> float:
        """The virtual time in seconds, as protocols are told it."""
        return self.calendar.now / 1000

    @property
    def digest(self) -> str:
        """That of everything sent so far: when, by whom, what, and how many copies got lost."""
        return self._trace.hexdigest()[:16]

    def start(self, address: int, protocol: Protocol) -> Process:
        """Have a protocol run at an address, and dial whom the topology says."""
        process = Process(address, protocol, address in self._forwards, next(self._ids).to_bytes(5, "big"))
        self._there[address] = self._by_id[process.routing_id] = process
        for target in self._topology.dials[address]:
            protocol.dialled(("dialled", str(target)))
        for edge in self._edges[address].values():
            # A connection takes a way there and back, and then the subscription has to get there.
            edge.opens = self._edges[edge.target][address].opens = self.calendar.now + 3 * edge.delay
        return process

    def stop(self, process: Process) -> None:
        """End a process: what is on the way to it is lost."""
        process.up = False
        self._there[process.address] = None
        del self._by_id[process.routing_id]

    def carry(self, sender: Process, outputs: Iterable[Output]) -> None:
        """Do what a protocol has asked for."""
        for output in outputs:
            if isinstance(output, Send):
                self._send(sender, output.link, output.frame)
            else:
                self._publish(sender, output.frame)

    # Inside

    def _side(self, address: int) -> bool:
        """On which side of the cut an address is; relays stay with the lower peers."""
        return self._topology.peers // 2 <= address < self._topology.peers

    def _is_cut(self, edge: Edge) -> bool:
        start, end = self._weather.parted
        return edge.crosses and start <= self.calendar.now < end

    def _publish(self, sender: Process, frame: bytes) -> None:
        now, loss, about, size = self.calendar.now, self._weather.loss, kind(frame), len(frame)
        copies = lost = 0
        for edge in self._edges[sender.address].values():
            receiver = self._there[edge.target]
            if receiver is None or now < edge.opens:
                continue
            copies += 1
            if self._is_cut(edge) or (loss and self._chance.random() < loss):
                lost += 1
                continue
            self._throw(sender, edge, receiver, None, (about, frame))
        sender.sent.add(about, copies, size)
        self.lost += lost
        self._trace.update(b"%d %d %d %d " % (now, sender.address, copies, lost))
        self._trace.update(frame)

    def _send(self, sender: Process, link: Link, frame: bytes) -> None:
        way, end = link
        about = kind(frame)
        receiver = self._there[int(end)] if isinstance(end, str) else self._by_id.get(end)
        self._trace.update(b"%d %d " % (self.calendar.now, sender.address))
        self._trace.update(frame)
        if receiver is None:
            return  # nobody there: ZeroMQ drops it too, or keeps it for who comes, who is greeted again anyway
        sender.sent.add(about, 1, len(frame))
        edge = self._edges[sender.address][receiver.address]
        if self._is_cut(edge):
            return
        arrives: Link = ("accepted", sender.routing_id) if way == "dialled" else ("dialled", str(sender.address))
        self._throw(sender, edge, receiver, arrives, (about, frame))

    def _throw(
        self, sender: Process, edge: Edge, receiver: Process, link: Link | None, data: tuple[int, bytes]
    ) -> None:
        weather, leaves = self._weather, self.calendar.now
        if weather.rate is not None:
            sender.free = max(sender.free, leaves) + 1000 * len(data[1]) / weather.rate
            leaves = int(sender.free)
        due = leaves + edge.delay + int(self._chance.random() * weather.jitter) + 1
        edge.last = due = max(due, edge.last)
        self.calendar.put(due, self._deliver, receiver, link, *data)

    def _deliver(self, receiver: Process, link: Link | None, about: int, frame: bytes) -> None:
        if not receiver.up:
            return
        receiver.received.add(about, 1, len(frame))
        try:
            if link is None:
                outputs = receiver.protocol.hear(frame, self.now, receiver.forwards)
            else:
                outputs = receiver.protocol.receive(link, frame, self.now)
        except MessageError:
            self.refused += 1
            return
        if outputs:
            self.carry(receiver, outputs)
