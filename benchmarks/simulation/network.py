"""Sockets and wires: who hears what is published, when, and what gets lost."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from shared_seed.errors import MessageError
from shared_seed.identity import curve_public
from shared_seed.signed import Signed
from shared_seed.swarm.output import Join, Link, Output, Publish, Send
from shared_seed.swarm.protocol import Protocol
from simulation.calendar import Calendar
from simulation.counts import GRADIENT, Counts, kind
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


Frame = tuple[int, bytes]
"""What it is for, and its bytes."""

NEVER = 1 << 62
"""A millisecond that does not come."""

WAYS = 7
"""Ways that a connection takes: TCP's handshake and CURVE's are three there and back, then a subscription follows.
"""

AGAIN = 1000
"""Milliseconds after which it is tried again to hand over a stand-in's message."""


@dataclass(slots=True, eq=False)
class Process:
    """A protocol that is running at an address; one that starts there later is another.

    ``joined`` are the addresses whose publications it hears, of those it has dialled. A stand-in is ``deaf``.
    """

    address: int
    protocol: Protocol
    forwards: bool
    routing_id: bytes
    deaf: bool = False
    up: bool = True
    free: float = 0.0
    joined: set[int] = field(default_factory=set)
    sent: Counts = field(default_factory=Counts)
    received: Counts = field(default_factory=Counts)


@dataclass(slots=True)
class Edge:
    """One direction between two addresses: frames arrive in order, and only once the connection is up.

    ``opens`` is when publications are heard, ``key`` the Curve25519 public key of who hands them over. Between a
    stand-in and the first node above it that is none there may be several ``hops``; what cannot get through stays
    in its ``backlog``.
    """

    target: int
    delay: int
    crosses: bool
    key: bytes
    opens: int = NEVER
    last: int = 0
    hops: int = 1
    backlog: list[Frame] = field(default_factory=list)


class Network:
    """Carries the outputs of processes to each other.

    Args:
        topology: who dials whom.
        weather: what links are like.
        keys: the public key at each address.
        whole: the addresses of nodes that are no stand-ins.
        seed: of all that is left to chance.
        calendar: the clock.
    """

    def __init__(
        self,
        topology: Topology,
        weather: Weather,
        keys: Sequence[bytes],
        whole: frozenset[int],
        seed: int,
        calendar: Calendar,
    ) -> None:
        self.calendar = calendar
        self.refused = self.lost = 0
        self._weather = weather
        self._chance = random.Random(f"network {seed}")
        self._trace = hashlib.sha256()
        self._ids = itertools.count(1)
        self._there: list[Process | None] = [None] * topology.nodes
        self._by_id: dict[bytes, Process] = {}
        self._edges: list[dict[int, Edge]] = [{} for _ in range(topology.nodes)]
        self._deaf = [0] * topology.nodes
        self._topology = topology
        self._keys = keys
        self._forwards = topology.forwards
        self._curves = [curve_public(key) or b"" for key in keys]
        self._whole = whole
        for address in reversed(range(topology.nodes)):
            for target in topology.dials[address]:
                self._connect(address, target)

    def _connect(self, address: int, target: int) -> None:
        """Lay a line; that of a stand-in leads on to the next whole nodes, along the lines of the one it dials."""
        delay = self._chance.randint(*self._weather.delay)
        crosses = self._side(address) != self._side(target)
        there, back = self._edges[address], self._edges[target]
        if target in self._whole:
            there[target] = Edge(target, delay, crosses, self._curves[address])
            if address in self._whole:
                back[address] = Edge(address, delay, crosses, self._curves[target])
        else:
            for end, edge in back.items():
                hops, cross = edge.hops + 1, crosses or edge.crosses
                there[end] = Edge(end, delay + edge.delay, cross, edge.key, hops=hops)

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
        deaf, routing_id = address not in self._whole, next(self._ids).to_bytes(5, "big")
        process = Process(address, protocol, address in self._forwards, routing_id, deaf)
        self._there[address] = self._by_id[routing_id] = process
        if deaf:
            self._start_deaf(process)
            return process
        dialled = self._topology.dials[address]
        for target in dialled:
            protocol.dialled(("dialled", str(target)), self._keys[target])
        for target in self._edges[address]:
            other = self._there[target]
            # Sockets connect again by themselves to who has come back; those of a new process are to be opened.
            again = target not in dialled and other is not None and address in other.joined
            self._open(address, target, self._connected(address, target) if again else NEVER)
        return process

    def stop(self, process: Process) -> None:
        """End a process: what is on the way to it is lost."""
        process.up = False
        if process.deaf:
            for target in process.joined:
                self._deaf[target] -= 1
            for edge in self._edges[process.address].values():
                edge.backlog.clear()
        self._there[process.address] = None
        del self._by_id[process.routing_id]

    def carry(self, sender: Process, outputs: Iterable[Output]) -> None:
        """Do what a protocol has asked for."""
        for output in outputs:
            match output:
                case Publish():
                    (self._speak if sender.deaf else self._publish)(sender, output.frame)
                case Send():
                    self._send(sender, output.link, output.frame)
                case Join():
                    self._join(sender, int(output.link[1]))

    # Inside

    def _side(self, address: int) -> bool:
        """On which side of the cut an address is; relays stay with the lower peers."""
        return self._topology.peers // 2 <= address < self._topology.peers

    def _is_cut(self, edge: Edge) -> bool:
        start, end = self._weather.parted
        return edge.crosses and start <= self.calendar.now < end

    def _connected(self, one: int, other: int) -> int:
        return self.calendar.now + WAYS * self._edges[one][other].delay

    def _open(self, one: int, other: int, due: int) -> None:
        """From when on two hear what the other publishes."""
        self._edges[one][other].opens = self._edges[other][one].opens = due

    def _join(self, process: Process, target: int) -> None:
        if target not in process.joined:
            process.joined.add(target)
            self._open(process.address, target, self._connected(process.address, target))

    def _publish(self, sender: Process, frame: bytes) -> None:
        now, loss, there = self.calendar.now, self._weather.loss, self._there
        data = (kind(frame), frame)
        copies, lost = self._deaf[sender.address], 0
        for edge in self._edges[sender.address].values():
            receiver = there[edge.target]
            if receiver is None or now < edge.opens:
                continue
            copies += 1
            if (loss and self._chance.random() < loss) or self._is_cut(edge):
                lost += 1
            else:
                self._throw(sender, edge, receiver, None, data)
        if self._weather.rate is not None:
            sender.free = (
                max(sender.free, now) + 1000 * self._deaf[sender.address] * len(frame) / self._weather.rate
            )
        sender.sent.add(data[0], copies, len(frame))
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

    def _throw(self, sender: Process, edge: Edge, receiver: Process, link: Link | None, data: Frame) -> None:
        weather, leaves = self._weather, self.calendar.now
        if weather.rate is not None:
            sender.free = max(sender.free, leaves) + 1000 * len(data[1]) / weather.rate
            leaves = int(sender.free)
        due = leaves + edge.delay + int(self._chance.random() * weather.jitter) + 1
        edge.last = due = max(due, edge.last)
        self.calendar.put(due, self._deliver, receiver, edge, link, data)

    def _deliver(self, receiver: Process, edge: Edge, link: Link | None, data: Frame) -> None:
        if not receiver.up:
            return
        about, frame = data
        receiver.received.add(about, 1, len(frame))
        now = self.calendar.now / 1000
        try:
            if link is None:
                outputs = receiver.protocol.hear(frame, now, receiver.forwards, edge.key)
            else:
                outputs = receiver.protocol.receive(link, frame, now, edge.key)
        except MessageError:
            self.refused += 1
            return
        if outputs:
            self.carry(receiver, outputs)

    # Inside: stand-ins, which speak and do not hear

    def _start_deaf(self, process: Process) -> None:
        for edge in self._edges[process.address].values():
            edge.opens = self.calendar.now + WAYS * edge.delay
        for target in self._topology.dials[process.address]:
            if target in self._whole:
                edge = self._edges[process.address][target]
                self.calendar.put(edge.opens, self._join_deaf, process, target)

    def _join_deaf(self, process: Process, target: int) -> None:
        """From now on it is sent copies, which are counted and not delivered."""
        if process.up:
            process.joined.add(target)
            self._deaf[target] += 1

    def _speak(self, sender: Process, frame: bytes) -> None:
        """Have a stand-in publish: what comes before its line is up comes when it is."""
        about, now = kind(frame), self.calendar.now
        for edge in self._edges[sender.address].values():
            due = max(now, edge.opens) + edge.delay + int(self._chance.random() * edge.hops * self._weather.jitter)
            edge.last = due = max(due + 1, edge.last)
            self.calendar.put(due, self._arrive, edge, (about, frame))
        sender.sent.add(about, len(self._topology.dials[sender.address]), len(frame))
        self._trace.update(b"%d %d " % (now, sender.address))
        self._trace.update(frame)

    def _arrive(self, edge: Edge, data: Frame) -> None:
        """Hand over what a stand-in has published.

        Nobody could fetch its messages from it later on, so these do not get lost, but wait and stay in order.
        """
        if data[0] == GRADIENT:
            edge.backlog.append(data)
            if len(edge.backlog) == 1:
                self._hand_over(edge)
            return
        receiver, loss = self._there[edge.target], self._weather.loss
        lost = bool(loss) and self._chance.random() < 1 - (1 - loss) ** edge.hops
        if receiver is None or lost or self._is_cut(edge):
            self.lost += 1
        else:
            self._deliver(receiver, edge, None, data)

    def _hand_over(self, edge: Edge) -> None:
        """Deliver a backlog as far as it is taken; one who lacks what was before has to fetch that first."""
        receiver = self._there[edge.target]
        while edge.backlog and receiver is not None and not self._is_cut(edge):
            self._deliver(receiver, edge, None, edge.backlog[0])
            message = Signed.decode(edge.backlog[0][1]).message
            if receiver.protocol.archive.count(message.stream) <= message.number:
                break
            del edge.backlog[0]
        if edge.backlog:
            self.calendar.put(self.calendar.now + AGAIN, self._hand_over, edge)
