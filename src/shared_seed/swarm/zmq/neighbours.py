"""The two kinds of connections: those that we accept, and those that we dial."""

from __future__ import annotations

from collections.abc import Callable

import zmq

from shared_seed.identity import Key
from shared_seed.swarm.address import Address
from shared_seed.swarm.output import Link
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.zmq import trial
from shared_seed.swarm.zmq.gate import Gate
from shared_seed.swarm.zmq.line import Line
from shared_seed.swarm.zmq.sockets import DOOR, HALL, Context, bind, curve, free_ports, own, server


class Listener:
    """Our three ports, and the gate before them."""

    def __init__(self, context: Context, key: Key, protocol: Protocol, listen: str) -> None:
        """Bind, and make sure that strangers are kept out.

        The protocol is only asked under whatever lock the caller holds.

        Raises:
            AddressInUseError: one of the ports is taken.
            SwarmError: it cannot listen there, or would let in strangers.
        """
        where = own(listen)
        where = Address(where.host, where.port or free_ports(where.host), key.public)
        self.gate = Gate(context, {DOOR: protocol.standing.might_greet, HALL: protocol.standing.might_admit})
        self.router = server(context, zmq.ROUTER, key, DOOR)
        self.publications = server(context, zmq.XPUB, key, HALL)
        self.ingress = server(context, zmq.SUB, key, HALL)
        ports = [
            trial.Port(self.router, zmq.ROUTER, protocol.standing.might_greet),
            trial.Port(self.publications, zmq.XPUB, protocol.standing.might_admit),
            trial.Port(self.ingress, zmq.SUB, protocol.standing.might_admit),
        ]
        for offset, port in enumerate(ports):
            bind(port.socket, where.endpoint(offset), listen)
        self.address = str(where)
        trial.check(context, self.gate, ports, key)

    def close(self) -> None:
        """Close all sockets."""
        for socket in (self.router, self.publications, self.ingress, self.gate.socket):
            socket.close()


class Neighbour:
    """A peer that we dial: its door at first; its hall, once it has welcomed us."""

    def __init__(self, context: Context, key: Key, where: Address, link: Link) -> None:
        self.where = where
        self.link = link
        self.key = where.key or key.public
        self.curve = curve(self.key)
        self._dial: Callable[[int, int], Line] = lambda kind, offset: Line(
            context, kind, where.endpoint(offset), key, self.curve
        )
        self.door = self._dial(zmq.DEALER, 0)
        self.subscription: Line | None = None
        self.publications: Line | None = None

    def join(self) -> tuple[Line, Line]:
        """Connect to the hall: what we subscribe to, and what we publish to."""
        self.subscription = self._dial(zmq.SUB, 1)
        self.publications = self._dial(zmq.XPUB, 2)
        return self.subscription, self.publications

    @property
    def joined(self) -> bool:
        """Whether it has welcomed us."""
        return self.subscription is not None

    @property
    def lines(self) -> list[Line]:
        """All that are open."""
        return [line for line in (self.door, self.subscription, self.publications) if line is not None]
