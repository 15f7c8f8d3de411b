"""Who dials whom. Addresses are numbers; relays come after the peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

RELAYS = 4
"""Relays of a relayed swarm; each has dialled all before it, and each peer dials one."""

HUBS = 3
"""Listening peers that everybody dials where there are several."""

FAN_OUT = 8
"""Peers, or relays, that dial one relay of a tree."""


@dataclass(frozen=True)
class Topology:
    """``dials[address]`` are the addresses that a node dials; those from ``peers`` on are relays."""

    peers: int
    dials: tuple[tuple[int, ...], ...]

    @property
    def nodes(self) -> int:
        """Peers and relays."""
        return len(self.dials)

    @property
    def forwards(self) -> frozenset[int]:
        """The addresses that listen, so they pass on what is new."""
        return frozenset(target for targets in self.dials for target in targets)


def flat(peers: int) -> Topology:
    """One peer listens, all others dial it."""
    return Topology(peers, ((), *((0,),) * (peers - 1)))


def hubs(peers: int) -> Topology:
    """Some peers listen; all others dial all of them, and they each other."""
    return Topology(peers, tuple(tuple(range(min(address, HUBS))) for address in range(peers)))


def relayed(peers: int) -> Topology:
    """A few relays that know each other, and peers in turn on one of them."""
    own = [(peers + address % RELAYS,) for address in range(peers)]
    return Topology(peers, (*own, *(tuple(range(peers, peers + relay)) for relay in range(RELAYS))))


def tree(peers: int) -> Topology:
    """Relays that dial relays up to one root, and peers on the lowest of them."""
    levels = [-(-peers // FAN_OUT)]
    while levels[-1] > 1:
        levels.append(-(-levels[-1] // FAN_OUT))
    dials: list[tuple[int, ...]] = [(peers + address // FAN_OUT,) for address in range(peers)]
    first = peers
    for level, count in enumerate(levels):
        above = first + count
        top = level == len(levels) - 1
        dials += [() if top else (above + relay // FAN_OUT,) for relay in range(count)]
        first = above
    return Topology(peers, tuple(dials))


def sample(topology: Topology, peers: int) -> frozenset[int]:
    """The addresses of a part: so many peers, the first of them side by side and the others spread evenly, and all
    that they dial, and those dial in turn. With one node of a part, everybody above it is in it.
    """
    first = min(FAN_OUT, peers)
    rest = max(1, peers - first)
    chosen = {*range(first), *(topology.peers * (2 * i + 1) // (2 * rest) for i in range(rest))}
    known: set[int] = set()
    # Whoever listens belongs to it, and of several that know each other, all.
    waiting = [*chosen, topology.nodes - 1]
    while waiting:
        address = waiting.pop()
        if address not in known:
            known.add(address)
            waiting += topology.dials[address]
    return frozenset(known)


TOPOLOGIES: dict[str, Callable[[int], Topology]] = {"flat": flat, "hubs": hubs, "relayed": relayed, "tree": tree}
