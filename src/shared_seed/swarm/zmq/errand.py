"""Bring an owner's order to a run, without taking part in it."""

from __future__ import annotations

import zmq

from shared_seed import clock
from shared_seed.admission import Introduction
from shared_seed.errors import RefusedError, UnreachableError
from shared_seed.identity import Key
from shared_seed.manifest import Manifest
from shared_seed.messages import Stream
from shared_seed.proofs import Order
from shared_seed.swarm import wire
from shared_seed.swarm.address import parse
from shared_seed.swarm.zmq.fetch import GLANCE
from shared_seed.swarm.zmq.line import Line
from shared_seed.swarm.zmq.sockets import Context, curve, resolve


def bring(address: str, key: Key, guest: Introduction, manifest: Manifest, order: Order) -> None:
    """Hand an order to the peer or relay at an address, and wait until it says that it knows it.

    Raises:
        RecipeError: it is not an address.
        UnreachableError: no such host, or it has not taken the order within ten seconds.
        RefusedError: the peer said no.
    """
    where = parse(address)
    resolve(where)
    context: Context = zmq.Context()
    line = Line(context, zmq.DEALER, where.endpoint(), key, curve(where.key or key.public))
    line.socket.linger = 0
    stream = Stream(guest.peer(manifest.run_bytes)).to_bytes()
    words = [
        wire.encode(wire.Hello(stream, "owner", wire.Guest.of(guest), manifest.digest())),
        order.encode(),
        wire.encode(wire.Consult()),
    ]
    try:
        deadline = clock.now() + 10
        for word in words:
            line.socket.send(word)
        while clock.now() < deadline:
            if not line.socket.poll(GLANCE):
                continue
            answer = wire.decode(line.socket.recv(), manifest.seal)
            if isinstance(answer, wire.Refusal):
                raise RefusedError(f"{where} refused: {answer.reason}")
            if answer == order:
                return
    finally:
        line.close()
        context.destroy(linger=0)
    raise UnreachableError(
        f"{where} has not taken the order within 10 s; check that the run still goes on there, and that "
        "nobody has given a later one for this key"
    )
