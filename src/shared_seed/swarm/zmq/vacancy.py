"""A relay that has no run yet: it takes the first that a peer offers."""

from __future__ import annotations

from collections.abc import Callable, Collection

import zmq

from shared_seed import identity
from shared_seed.errors import ManifestMismatchError, MessageError
from shared_seed.identity import Key
from shared_seed.manifest import Manifest
from shared_seed.swarm import wire
from shared_seed.swarm.zmq.fetch import NO_RUN
from shared_seed.swarm.zmq.gate import Gate
from shared_seed.swarm.zmq.sockets import DOOR, Context, bind, own, server

Tell = Callable[[str], None]


def await_manifest(listen: str, key: Key, owners: Collection[bytes], tell: Tell) -> tuple[Manifest, bytes]:
    """Wait, as long as it takes, for a peer that offers a run; gives its manifest and the owner's signature.

    Args:
        listen: ``tcp://HOST:PORT``.
        key: our own.
        owners: public keys of those whose runs are taken; none for anybody's.
        tell: is told what was refused.

    Raises:
        RecipeError: it is not an address to listen at.
        AddressInUseError: the port is taken.
    """
    where = own(listen)
    context: Context = zmq.Context()
    try:
        gate = Gate(context, {DOOR: lambda curve: True})
        router = server(context, zmq.ROUTER, key, DOOR)
        bind(router, where.endpoint(), listen)
        poller = zmq.Poller()
        poller.register(gate.socket, zmq.POLLIN)
        poller.register(router, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if gate.socket in ready:
                gate.answer()
            if router in ready:
                routing_id, *frames = router.recv_multipart()
                try:
                    found = _taken(wire.decode(frames[-1] if frames else b"", NO_RUN), owners)
                except (MessageError, ManifestMismatchError) as error:
                    tell(str(error))
                    continue
                if not isinstance(found, tuple):
                    router.send_multipart([routing_id, wire.encode(found)], zmq.NOBLOCK)
                    continue
                return found
    finally:
        context.destroy(linger=200)


def _taken(frame: wire.AnyFrame, owners: Collection[bytes]) -> tuple[Manifest, bytes] | wire.ControlFrame:
    """What was offered, or what to answer."""
    if isinstance(frame, wire.Hello):
        if frame.manifest_digest:
            return wire.Vacancy()
        return wire.Refusal("this relay has no run yet; begin one with `shared-seed run … --via` and its address")
    if not isinstance(frame, wire.Offer):
        raise MessageError(f"a {type(frame).__name__} to a relay without a run")
    manifest = Manifest.unpack(frame.manifest)
    manifest.check_signature(frame.signature)
    if not manifest.owner or (owners and manifest.owner_bytes not in owners):
        known = ", ".join(map(identity.show, owners))
        raise MessageError(
            f"refused a run of owner {manifest.owner or 'nobody'}; this relay takes those of {known}"
        )
    return manifest, frame.signature
