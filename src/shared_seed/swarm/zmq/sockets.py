"""Sockets as all of them are set up, and ports and hosts."""

from __future__ import annotations

import errno
import secrets
import socket as network
from typing import TypeAlias

import zmq

from shared_seed import clock, identity
from shared_seed.errors import AddressInUseError, RecipeError, SwarmError, UnreachableError
from shared_seed.identity import Key
from shared_seed.swarm import wire
from shared_seed.swarm.address import PORTS, Address, parse

Socket: TypeAlias = "zmq.Socket[bytes]"
Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

QUEUE = 100_000
"""Frames that a socket queues before it drops; what is dropped is fetched again by catch-up."""

SILENCE = 15
"""Seconds without a sign of life from the other machine after which a connection is given up."""

GREETING = 64
"""Bytes that each end of a connection begins with."""

DOOR = b"door"
"""ZAP domain of the port for greetings."""

HALL = b"hall"
"""ZAP domain of the ports for publications."""


def configured(context: Context, kind: int) -> Socket:
    """A socket with our bounds on queues, frames and silence; it neither listens nor connects yet."""
    socket = context.socket(kind)
    socket.linger = 1000
    socket.set_hwm(QUEUE)
    socket.setsockopt(zmq.MAXMSGSIZE, wire.LARGEST_FRAME)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
    # The system notices lost connections. ZMTP's heartbeats would too, but libzmq 4.3.5 aborts the process when
    # one is due on a connection that broke while its messages were not taken: a full queue, or a closing socket.
    socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, SILENCE // 3)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, SILENCE // 3)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 2)
    socket.setsockopt(zmq.TCP_MAXRT, 1000 * SILENCE)
    if kind == zmq.SUB:
        socket.subscribe(b"")
    if kind == zmq.XPUB:
        socket.setsockopt(zmq.XPUB_VERBOSER, 1)
    return socket


def server(context: Context, kind: int, key: Key, domain: bytes) -> Socket:
    """A socket to bind: it lets in whom the ZAP handler of the context admits to the domain, otherwise nobody."""
    socket = configured(context, kind)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, key.curve_secret)
    socket.setsockopt(zmq.ZAP_DOMAIN, domain)
    # Without this, libzmq lets in everybody where there is no handler.
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    return socket


def client(context: Context, kind: int, key: Key, server_key: bytes) -> Socket:
    """A socket to connect to a server that has the Curve25519 key ``server_key``."""
    socket = configured(context, kind)
    socket.setsockopt(zmq.CURVE_SECRETKEY, key.curve_secret)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, curve(key.public))
    socket.setsockopt(zmq.CURVE_SERVERKEY, server_key)
    return socket


def curve(public: bytes) -> bytes:
    """The Curve25519 key, 32 bytes, of an Ed25519 key.

    Raises:
        RecipeError: it is no key.
    """
    converted = identity.curve_public(public)
    if converted is None:
        raise RecipeError(f"{public.hex()} is not a peer's key; expected what `shared-seed key` prints there")
    return converted


def bind(socket: Socket, endpoint: str, listen: str) -> None:
    """Have a socket listen.

    Raises:
        AddressInUseError: something else does.
        SwarmError: it cannot, and why.
    """
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno != errno.EADDRINUSE:
            raise SwarmError(f"cannot listen at {endpoint}: {error.strerror}") from error
        raise AddressInUseError(
            f"{endpoint} is in use; listening at {listen} takes that port and the two after it; stop what uses "
            "them (a run that is still going?) or choose another port"
        ) from error


def free_ports(host: str = "127.0.0.1") -> int:
    """The first of three ports in a row that nobody uses now.

    Raises:
        SwarmError: none were found.
    """
    for _ in range(200):
        first = secrets.randbelow(40_000) + 20_000
        try:
            check_free(f"tcp://{host}:{first}")
        except AddressInUseError:
            continue
        return first
    raise SwarmError(f"no {PORTS} free ports in a row at {host}")


def check_free(listen: str) -> None:
    """Make sure, ahead of time, that a peer could listen at an address.

    Raises:
        AddressInUseError: one of its three ports is taken.
        RecipeError: it is not an address to listen at.
    """
    where = own(listen)
    context: Context = zmq.Context()
    try:
        for offset in range(PORTS) if where.port else ():
            with configured(context, zmq.ROUTER) as socket:
                bind(socket, where.endpoint(offset), listen)
    finally:
        context.destroy(linger=0)


def own(listen: str) -> Address:
    """The address to listen at that a text stands for.

    Raises:
        RecipeError: it is not one, or names a key.
    """
    where = parse(listen)
    if where.key is not None:
        raise RecipeError(
            f"cannot listen at {listen}: a peer listens with its own key; leave out the key, as in "
            f"{where.endpoint()}"
        )
    return where


def resolve(where: Address) -> None:
    """Make sure that the host of an address exists: libzmq would look for it for ever without a word.

    Raises:
        UnreachableError: its name stands for no machine.
    """
    host = where.host.strip("[]")
    try:
        network.getaddrinfo(host, where.port, type=network.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnreachableError(
            f"there is no host called {host!r} ({error}); expected a name or an IP address that this machine can "
            f"find; check the address {where}"
        ) from error


def mechanism(where: Address, timeout: float = 1.0) -> str:
    """How whoever listens at an address secures its links: CURVE, NULL for not at all; empty if it does not say.

    A peer's first 64 bytes say so (https://rfc.zeromq.org/spec/23, "greeting"). It sends them once it has seen
    the version of ours; what would follow in ours is left out, since it may end the connection at once.
    """
    version = b"\xff" + bytes(8) + b"\x7f\x03\x01"
    answer, deadline = b"", clock.now() + timeout
    try:
        with network.create_connection((where.host.strip("[]"), where.port), timeout) as connection:
            connection.sendall(version)
            while len(answer) < GREETING:
                connection.settimeout(max(0.001, deadline - clock.now()))
                part = connection.recv(GREETING - len(answer))
                if not part:
                    return ""
                answer += part
    except OSError:
        return ""
    return answer[12:32].rstrip(b"\0").decode("ascii", "replace") if answer[:1] == b"\xff" else ""
