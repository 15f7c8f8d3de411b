"""A run's manifest, asked for before there is a peer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import zmq

from shared_seed import clock
from shared_seed.admission import Introduction
from shared_seed.errors import MessageError, RefusedError, UnreachableError
from shared_seed.identity import Key
from shared_seed.manifest import Manifest
from shared_seed.messages import Stream
from shared_seed.swarm import wire
from shared_seed.swarm.address import Address, parse
from shared_seed.swarm.zmq import told
from shared_seed.swarm.zmq.line import Line, News
from shared_seed.swarm.zmq.sockets import Context, curve, resolve

NO_RUN = b""
"""The seal of a run that is not known yet; only heartbeats depend on it."""

GLANCE = 200
"""Milliseconds between two looks at the connection."""


def fetch_manifest(address: str, key: Key, guest: Introduction, timeout: float = 10.0) -> tuple[Manifest, bytes]:
    """Ask the peer at an address for its run's manifest, and the signature of the run's owner.

    Args:
        address: ``tcp://HOST:PORT`` of a peer with our own key, or ``tcp://KEY@HOST:PORT``.
        key: our own.
        guest: as whom we ask.
        timeout: in seconds.

    Raises:
        RecipeError: it is not an address.
        UnreachableError: no answer within ``timeout`` seconds, no such host, or the peer there has another key.
        RefusedError: the peer said no.
        MessageError, ManifestMismatchError: the answer is not a valid one.
    """
    hello = wire.encode(wire.Hello(Stream.fresh().to_bytes(), "", wire.Guest.of(guest), b""))
    where = parse(address)
    with knocking(where, key) as line:
        data = next(answers(line, where, key, [hello], timeout), None)
    if data is None:
        raise UnreachableError(
            f"nobody answers at {where} within {timeout:g} s; check the address and the firewall, and that "
            "`shared-seed run … --listen` is still running there"
        )
    answer = wire.decode(data, NO_RUN)
    if isinstance(answer, wire.Refusal):
        raise RefusedError(f"{address} refused: {answer.reason}")
    if not isinstance(answer, wire.Welcome):
        raise MessageError(f"{address} answered with a {type(answer).__name__} frame; expected a welcome")
    manifest = Manifest.unpack(answer.manifest)
    manifest.check_signature(answer.signature)
    return manifest, answer.signature


@contextmanager
def knocking(where: Address, key: Key) -> Iterator[Line]:
    """A connection to the door of the peer at an address, for somebody who is no peer.

    Raises:
        UnreachableError: no such host.
    """
    resolve(where)
    context: Context = zmq.Context()
    line = Line(context, zmq.DEALER, where.endpoint(), key, curve(where.key or key.public))
    line.socket.linger = 0
    try:
        yield line
    finally:
        line.close()
        context.destroy(linger=0)


def answers(line: Line, where: Address, key: Key, words: Sequence[bytes], timeout: float) -> Iterator[bytes]:
    """Say the words, again where the connection was opened again, and hear frames until the timeout, in seconds.

    Raises:
        RefusedError: the peer does not let us in.
        UnreachableError: the peer there has another key.
    """
    deadline = clock.now() + timeout
    opened = True
    while clock.now() < deadline:
        if opened:
            for word in words:
                line.socket.send(word)
        if line.socket.poll(GLANCE):
            yield line.socket.recv()
        news = line.heed(clock.now())
        if News.REFUSED in news:
            raise RefusedError(told.not_admitted(where, key))
        if News.BROKEN_OFF in news and (why := told.why_broken_off(where, key)) is not None:
            raise UnreachableError(why)
        opened = line.tend(clock.now())
