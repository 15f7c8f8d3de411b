"""Bring an owner's order to a run, without taking part in it."""

from __future__ import annotations

from shared_seed.admission import Introduction
from shared_seed.errors import RefusedError, UnreachableError
from shared_seed.identity import Key
from shared_seed.manifest import Manifest
from shared_seed.messages import Stream
from shared_seed.proofs import Order
from shared_seed.swarm import wire
from shared_seed.swarm.address import parse
from shared_seed.swarm.zmq.fetch import answers, knocking

PATIENCE = 10.0
"""Seconds until an order counts as not taken."""


def bring(address: str, key: Key, guest: Introduction, manifest: Manifest, order: Order) -> None:
    """Hand an order to the peer or relay at an address, and wait until it says that it knows it.

    Where it knows one of a higher rank that says otherwise, since clocks go back and two orders may fall into one
    second, the owner, whose key this is, signs the order again with the next serial.

    Raises:
        RecipeError: it is not an address.
        UnreachableError: no such host, or it has not taken the order in time.
        RefusedError: the peer said no.
    """
    where = parse(address)
    stream = Stream(guest.peer(manifest.run_bytes)).to_bytes()
    words = [
        wire.encode(wire.Hello(stream, "owner", wire.Guest.of(guest), manifest.digest())),
        order.encode(),
        wire.encode(wire.Consult()),
    ]
    with knocking(where, key) as line:
        for data in answers(line, where, key, words, PATIENCE):
            answer = wire.decode(data, manifest.seal)
            if isinstance(answer, wire.Refusal):
                raise RefusedError(f"{where} refused: {answer.reason}")
            if not isinstance(answer, Order) or answer.key != order.key:
                continue
            if answer.banned == order.banned and answer.rank >= order.rank:
                return
            if answer.rank > order.rank:
                order = order.after(key, manifest.seal, answer)
                for word in (order.encode(), wire.encode(wire.Consult())):
                    line.socket.send(word)
    raise UnreachableError(
        f"{where} has not taken the order within {PATIENCE:g} s; check that the run still goes on there"
    )
