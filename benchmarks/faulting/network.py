"""The network between peers and relays, and what can happen to it.

All that a peer has to a relay goes through the proxy. Where this process may make network namespaces (root, on
Linux), each peer is behind a link of its own too, which can be unplugged or narrow; elsewhere the proxy does what
it can instead.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
import socket
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_seed.swarm.address import PORTS

FIRST_PORT = 5555

ANSWER = 30.0
"""Seconds that the proxy may take for an order."""

NARROW = "rate 256kbit burst 4kb limit 16kb"
"""A line whose queue overflows, for ``tc … tbf``, where the kernel has no ``netem``."""


class CannotError(Exception):
    """What was asked is not possible for this process."""


@dataclass(frozen=True)
class Node:
    """Who hangs where: addresses are ``prefix``.peer.relay, counted from 1; 0 is for the relays themselves."""

    prefix: str

    def relay(self, relay: int) -> str:
        """Where a relay listens."""
        return f"{self.prefix}.0.{relay + 1}"

    def line(self, peer: int, relay: int) -> str:
        """Where a peer dials to get to a relay."""
        return f"{self.prefix}.{peer + 1}.{relay + 1}"


class Network:
    """Addresses and orders to the proxy; without namespaces."""

    name = "proxy"
    loss = "none: lines are delayed instead"

    def __init__(self, peers: int, relays: int, control: Path) -> None:
        self.peers, self.relays = peers, relays
        self.control = control
        self.node = Node(self._prefix())
        self._answers = control.with_name(control.name + ".answers")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(ANSWER)
        self._socket.bind(str(self._answers))
        self._broken: Counter[tuple[str, int, int]] = Counter()
        self._narrow: Counter[int] = Counter()

    def _prefix(self) -> str:
        """A part of 127/8 that nobody uses."""
        for _ in range(100):
            prefix = f"127.{1 + secrets.randbelow(254)}"
            with socket.socket() as trial:
                try:
                    trial.bind((f"{prefix}.0.1", FIRST_PORT))
                except OSError:
                    continue
                return prefix
        raise CannotError(f"port {FIRST_PORT} is taken everywhere in 127/8")

    def namespace(self, peer: int | None = None) -> str | None:
        """The namespace of a peer, or of relays, proxy and hostile member."""
        return None

    def address(self, relay: int, peer: int | None = None, key: str = "") -> str:
        """Where a relay listens, or where a peer dials to get there: with the relay's key, in hex."""
        host = self.node.relay(relay) if peer is None else self.node.line(peer, relay)
        return f"tcp://{key}@{host}:{FIRST_PORT}" if key else f"tcp://{host}:{FIRST_PORT}"

    def lines(self) -> list[dict[str, Any]]:
        """What the proxy has to serve."""
        ports = list(range(FIRST_PORT, FIRST_PORT + PORTS))
        return [
            {
                "peer": peer,
                "relay": relay,
                "listen": self.node.line(peer, relay),
                "target": self.node.relay(relay),
                "ports": ports,
            }
            for peer in range(self.peers)
            for relay in range(self.relays)
        ]

    def tell(self, do: str, peer: int, relay: int, amount: float = 0.0) -> None:
        """Give the proxy an order; returns when it is done.

        Raises:
            CannotError: the proxy does not answer.
        """
        order = {"do": do, "peer": peer, "relay": relay, "amount": amount}
        try:
            self._socket.sendto(json.dumps(order).encode(), str(self.control))
            self._socket.recv(64)
        except OSError as error:
            raise CannotError(f"the proxy does not answer to {do!r}: {error}") from error

    def part(self, how: str, peer: int, relay: int) -> None:
        """Break a line: ``held``, ``closed`` or ``unplugged``; it stays so until all who broke it heal it."""
        self._broken[self._way(how), peer, relay] += 1
        if self._broken[self._way(how), peer, relay] == 1:
            self._break(self._way(how), peer, relay)

    def heal(self, how: str, peer: int, relay: int) -> None:
        """The opposite of :meth:`part`."""
        self._broken[self._way(how), peer, relay] -= 1
        if self._broken[self._way(how), peer, relay] == 0:
            self._mend(self._way(how), peer, relay)

    def narrow(self, peer: int, loss: float) -> None:
        """Make a peer's lines bad, ``loss`` of what is sent gets lost, until all who did so :meth:`widen` them."""
        self._narrow[peer] += 1
        self._make_narrow(peer, loss)

    def widen(self, peer: int) -> None:
        """The opposite of :meth:`narrow`."""
        self._narrow[peer] -= 1
        if self._narrow[peer] == 0:
            self._make_wide(peer)

    def _way(self, how: str) -> str:
        return "held" if how == "unplugged" else how

    def _break(self, how: str, peer: int, relay: int) -> None:
        self.tell("hold" if how == "held" else "close", peer, relay)

    def _mend(self, how: str, peer: int, relay: int) -> None:
        self.tell("release" if how == "held" else "open", peer, relay)

    def _make_narrow(self, peer: int, loss: float) -> None:
        for relay in range(self.relays):
            self.tell("delay", peer, relay, 10 * loss)

    def _make_wide(self, peer: int) -> None:
        for relay in range(self.relays):
            self.tell("delay", peer, relay)

    def close(self) -> None:
        """Leave nothing behind."""
        self._socket.close()
        self._answers.unlink(missing_ok=True)


def _ip(*words: str, program: str = "ip", given: str | None = None) -> None:
    try:
        subprocess.run([program, *words], check=True, capture_output=True, text=True, input=given)
    except FileNotFoundError as error:
        raise CannotError(f"there is no program `{program}`") from error
    except subprocess.CalledProcessError as error:
        raise CannotError(f"{program} {' '.join(words)}: {error.stderr.strip()}") from error


class Namespaces(Network):
    """Each peer in a namespace of its own, with a link to that of relays and proxy."""

    name = "namespaces and proxy"

    def __init__(self, peers: int, relays: int, control: Path) -> None:
        self._mark = f"faults-{os.getpid()}-"
        self._made: list[str] = []
        super().__init__(peers, relays, control)
        _remove_leftovers()
        try:
            self._build()
            self._netem = self._has_netem()
        except BaseException:
            self.close()
            raise
        self.loss = "tc netem loss" if self._netem else f"queues that overflow: tc tbf {NARROW} (no netem here)"

    def _prefix(self) -> str:
        return "10.77"

    def namespace(self, peer: int | None = None) -> str:
        """The namespace of a peer, or of relays, proxy and hostile member."""
        return self._mark + ("hub" if peer is None else str(peer))

    def _build(self) -> None:
        for peer in (None, *range(self.peers)):
            _ip("netns", "add", self.namespace(peer))
            self._made.append(self.namespace(peer))
        hub = [f"route add local {self.node.prefix}.0.0/16 dev lo", "link set lo up"]
        for peer in range(self.peers):
            ends = ipaddress.ip_network(f"172.30.{peer}.0/30")
            near, far = (str(end) for end in ends.hosts())
            _ip(
                "-n",
                self.namespace(),
                *f"link add p{peer} type veth peer name eth0".split(),
                "netns",
                self.namespace(peer),
            )
            hub += [f"address add {near}/30 dev p{peer}", f"link set p{peer} up"]
            mine = [
                "link set lo up",
                f"address add {far}/30 dev eth0",
                "link set eth0 up",
                f"route add default via {near}",
            ]
            _ip("-n", self.namespace(peer), "-batch", "-", given="\n".join(mine))
        _ip("-n", self.namespace(), "-batch", "-", given="\n".join(hub))

    def _has_netem(self) -> bool:
        try:
            _ip(
                "-n",
                self.namespace(0),
                *["qdisc", "add", "dev", "lo", "root", "netem", "loss", "1%"],
                program="tc",
            )
        except CannotError:
            return False
        _ip("-n", self.namespace(0), *["qdisc", "del", "dev", "lo", "root"], program="tc")
        return True

    def _way(self, how: str) -> str:
        return how

    def _break(self, how: str, peer: int, relay: int) -> None:
        if how == "unplugged":
            _ip("-n", self.namespace(), "link", "set", f"p{peer}", "down")
        else:
            super()._break(how, peer, relay)

    def _mend(self, how: str, peer: int, relay: int) -> None:
        if how != "unplugged":
            super()._mend(how, peer, relay)
        elif not any(self._broken["unplugged", peer, other] for other in range(self.relays)):
            _ip("-n", self.namespace(), "link", "set", f"p{peer}", "up")

    def _make_narrow(self, peer: int, loss: float) -> None:
        discipline = f"netem loss {100 * loss:.2f}%" if self._netem else f"tbf {NARROW}"
        for where, device in self._ends(peer):
            _ip("-n", where, *f"qdisc replace dev {device} root {discipline}".split(), program="tc")

    def _make_wide(self, peer: int) -> None:
        for where, device in self._ends(peer):
            _ip("-n", where, *f"qdisc del dev {device} root".split(), program="tc")

    def _ends(self, peer: int) -> list[tuple[str, str]]:
        return [(self.namespace(peer), "eth0"), (self.namespace(), f"p{peer}")]

    def close(self) -> None:
        """Remove the namespaces, and the links with them."""
        super().close()
        while self._made:
            _ip("netns", "del", self._made.pop())


def _remove_leftovers() -> None:
    """Remove the namespaces of runners that were killed before they could."""
    for path in Path("/run/netns").glob("faults-*-*"):
        if not Path("/proc", path.name.split("-")[1]).exists():
            with contextlib.suppress(CannotError):  # Another runner may have been first.
                _ip("netns", "del", path.name)


def network(kind: str, peers: int, relays: int, control: Path) -> Network:
    """What ``kind`` asks for: ``namespaces``, ``proxy``, or ``auto``: the first of them that works.

    Raises:
        CannotError: this process may not make namespaces.
    """
    if kind == "proxy":
        return Network(peers, relays, control)
    try:
        return Namespaces(peers, relays, control)
    except CannotError:
        if kind == "namespaces":
            raise
        return Network(peers, relays, control)
