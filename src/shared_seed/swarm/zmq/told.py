"""What people are told when a peer that they dial does not let them in."""

from __future__ import annotations

from shared_seed.identity import Key, show
from shared_seed.swarm.address import Address
from shared_seed.swarm.zmq.sockets import mechanism


def not_admitted(where: Address, key: Key) -> str:
    """The peer has refused our key."""
    return (
        f"{where} does not admit this machine's key {show(key.public)}; send it to the run's owner, who can admit "
        "it, and start again"
    )


def why_broken_off(where: Address, key: Key) -> str | None:
    """Why a peer breaks off handshakes; ``None`` where that may pass, as behind a proxy whose peer is not up yet.

    Asks the other end, which may take a second.
    """
    spoken = mechanism(where)
    if spoken == "CURVE":
        expected = (
            f"the one in the address, {show(where.key)}"
            if where.key
            else f"this machine's own, {show(key.public)}, which an address without a key stands for"
        )
        return (
            f"the peer at {where.endpoint()} has another key than expected ({expected}); copy the whole address "
            "that it prints there, tcp://KEY@HOST:PORT"
        )
    if spoken:
        return (
            f"what listens at {where.endpoint()} does not encrypt its links ({spoken}); expected a peer of this "
            "version of shared-seed; check the address"
        )
    return None
