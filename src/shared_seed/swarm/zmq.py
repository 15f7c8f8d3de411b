"""The sockets: the only importer of zmq. One thread owns them all, so that a slow forward pass never stalls
the network.
"""

from __future__ import annotations

import errno
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import zmq

from shared_seed import clock
from shared_seed.errors import (
    AddressInUseError,
    MessageError,
    RecipeError,
    RefusedError,
    SwarmError,
    UnreachableError,
)
from shared_seed.manifest import Manifest
from shared_seed.messages import KIND, Message, Stream
from shared_seed.swarm import wire
from shared_seed.swarm.protocol import Link, Output, Protocol, Send
from shared_seed.swarm.traffic import Traffic
from shared_seed.swarm.wire import State

POLL = 50
"""Milliseconds that the thread sleeps at most."""

PORTS = 3
"""Ports in a row that a listening peer takes."""

QUEUE = 100_000
"""Frames that a socket queues before it drops; what is dropped is fetched again by catch-up."""

Answer = TypeVar("Answer")

_ADDRESS = re.compile(r"^tcp://(?P<host>\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+|\*):(?P<port>[0-9]{1,5})$")


def parse(address: str) -> tuple[str, int]:
    """Host and first port of ``tcp://host:port``.

    Raises:
        RecipeError: it is not such an address.
    """
    match = _ADDRESS.match(address)
    if not match or int(match["port"]) > 65533:
        raise RecipeError(
            f"{address!r} is not an address; expected tcp://HOST:PORT with a port up to 65533, "
            "such as tcp://127.0.0.1:5555"
        )
    return match["host"], int(match["port"])


def _configured(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.linger = 1000
    socket.set_hwm(QUEUE)
    socket.setsockopt(zmq.MAXMSGSIZE, wire.LARGEST_FRAME)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 3000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10000)
    return socket


def fetch_manifest(address: str, timeout: float = 10.0) -> Manifest:
    """Ask the peer at an address for its run's manifest.

    Raises:
        UnreachableError: no answer within ``timeout`` seconds.
        RefusedError: the peer said no.
        MessageError: the answer is not a valid one.
    """
    host, port = parse(address)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        socket = _configured(context, zmq.DEALER)
        socket.linger = 0
        socket.connect(f"tcp://{host}:{port}")
        socket.send(wire.encode(wire.Hello(Stream.fresh().to_bytes(), "", b"")))
        if not socket.poll(int(timeout * 1000)):
            raise UnreachableError(
                f"nobody answers at {address} within {timeout:g} s; check the address and the firewall, and that "
                "`shared-seed run … --listen` is still running there"
            )
        answer = wire.decode(socket.recv())
    finally:
        context.destroy(linger=0)
    if isinstance(answer, wire.Refusal):
        raise RefusedError(f"{address} refused: {answer.reason}")
    if not isinstance(answer, wire.Welcome):
        raise MessageError(f"{address} answered with a {type(answer).__name__} frame; expected a welcome")
    return Manifest.unpack(answer.manifest)


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
    """
    host, first = parse(listen)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        for port in range(first, first + PORTS) if first else ():
            with _configured(context, zmq.ROUTER) as socket:
                _bind(socket, f"tcp://{host}:{port}", listen)
    finally:
        context.destroy(linger=0)


def _bind(socket: zmq.Socket[bytes], endpoint: str, listen: str) -> None:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno != errno.EADDRINUSE:
            raise SwarmError(f"cannot listen at {endpoint}: {error.strerror}") from error
        raise AddressInUseError(
            f"{endpoint} is in use; listening at {listen} takes that port and the two after it; stop what uses "
            "them (a run that is still going?) or choose another port"
        ) from error


class Swarm:
    """The protocol on real sockets.

    Methods may be called from one thread at a time; the protocol is only touched under the lock.
    """

    def __init__(self, protocol: Protocol, listen: str | None = None, dial: Sequence[str] = ()) -> None:
        """Open the sockets and start the thread.

        Args:
            protocol: this peer's.
            listen: ``tcp://HOST:PORT`` to accept peers at; PORT + 1 and PORT + 2 are used too. Port 0 takes
                any three in a row.
            dial: addresses of listening peers to connect to.

        Raises:
            AddressInUseError: one of the three ports is taken; nothing is left open.
        """
        self.traffic = Traffic()
        self.address: str | None = None
        self._protocol = protocol
        self._condition = threading.Condition()
        self._outbox: deque[Output] = deque()
        self._subscribers = 0
        self._failure: BaseException | None = None
        self._closing = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._open(listen, dial)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._thread = threading.Thread(target=self._run, name="shared-seed-swarm", daemon=True)
        self._thread.start()

    # For the session's thread

    def enter(self, state: State, round_: int, digest: bytes = b"") -> None:
        """State what this peer is at."""
        self._do(lambda: self._protocol.enter(state, round_, clock.now(), digest))

    def publish(self, message: Message) -> None:
        """Send our next message."""
        self._do(lambda: self._protocol.publish(message, clock.now()))

    def ask(self, question: Callable[[Protocol, float], Answer]) -> Answer:
        """The answer of ``question(protocol, now)``, under the lock."""
        with self._condition:
            self._raise_failure()
            return question(self._protocol, clock.now())

    def wait(self, done: Callable[[Protocol, float], bool], timeout: float) -> bool:
        """Sleep until ``done(protocol, now)``, looked at whenever something arrives; ``False`` at the timeout."""
        deadline = clock.now() + timeout
        with self._condition:
            while True:
                self._raise_failure()
                if done(self._protocol, clock.now()):
                    return True
                left = deadline - clock.now()
                if left <= 0:
                    return False
                self._condition.wait(min(left, 0.25))

    def close(self) -> None:
        """Say that we leave, send what is queued, and close the sockets; may be called again."""
        if self._closing:
            return
        if self._failure is None:
            self.enter(State.LEAVING, self._protocol.round, self._protocol.digest)
        self._closing = True
        self._wake()
        self._thread.join()
        self._bell.close()
        self._context.term()

    def _do(self, action: Callable[[], Iterable[Output]]) -> None:
        with self._condition:
            self._raise_failure()
            self._outbox.extend(action())
        self._wake()

    def _wake(self) -> None:
        self._bell.send(b"")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise SwarmError(f"the network thread has stopped: {self._failure}") from self._failure
        if self._protocol.refusal is not None:
            raise RefusedError(f"the swarm refused this peer: {self._protocol.refusal}")

    # Opening

    def _open(self, listen: str | None, dial: Sequence[str]) -> None:
        self._bell = self._context.socket(zmq.PAIR)
        self._bell.bind("inproc://bell")
        self._door = self._context.socket(zmq.PAIR)
        self._door.connect("inproc://bell")
        self._publications = _configured(self._context, zmq.XPUB)
        self._publications.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._subscription = _configured(self._context, zmq.SUB)
        self._subscription.subscribe(b"")
        self._ingress = _configured(self._context, zmq.SUB)
        self._ingress.subscribe(b"")
        self._router = _configured(self._context, zmq.ROUTER)
        self._dealers: dict[Link, zmq.Socket[bytes]] = {}
        self._listens = listen is not None
        if listen is not None:
            self._listen(listen)
        for address in dial:
            host, port = parse(address)
            link: Link = ("dialled", address)
            dealer = self._dealers[link] = _configured(self._context, zmq.DEALER)
            dealer.connect(f"tcp://{host}:{port}")
            self._subscription.connect(f"tcp://{host}:{port + 1}")
            self._publications.connect(f"tcp://{host}:{port + 2}")
            self._protocol.dialled(link)

    def _listen(self, listen: str) -> None:
        host, port = parse(listen)
        first = port or free_ports(host)
        for offset, socket in enumerate((self._router, self._publications, self._ingress)):
            _bind(socket, f"tcp://{host}:{first + offset}", listen)
        self.address = f"tcp://{host}:{first}"

    # The thread

    def _run(self) -> None:
        poller = zmq.Poller()
        readers = [self._door, self._subscription, self._ingress, self._router, self._publications]
        for socket in (*readers, *self._dealers.values()):
            poller.register(socket, zmq.POLLIN)
        try:
            while not self._closing or self._outbox:
                ready = dict(poller.poll(POLL))
                with self._condition:
                    for socket in ready:
                        self._read(socket)
                    self._outbox.extend(self._protocol.tick(clock.now()))
                    while self._outbox:
                        self._send(self._outbox.popleft())
                    self._condition.notify_all()
        except BaseException as error:  # the session's thread is told, and raises
            self._failure = error
            with self._condition:
                self._condition.notify_all()
        finally:
            for socket in (*readers, *self._dealers.values()):
                socket.close()

    def _read(self, socket: zmq.Socket[bytes]) -> None:
        """Take in all that a socket has, up to a bound that leaves room for the others."""
        for _ in range(1000):
            try:
                parts = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if socket is self._publications:
                self._subscribers += 1 if parts[0][:1] == b"\x01" else -1
            elif socket is not self._door:
                self._handle(socket, parts)

    def _handle(self, socket: zmq.Socket[bytes], parts: list[bytes]) -> None:
        data, now = parts[-1], clock.now()
        self.traffic.received += len(data)
        try:
            if len(parts) != (2 if socket is self._router else 1):
                raise MessageError(f"a message of {len(parts)} frames")
            if socket is self._router:
                self._outbox.extend(self._protocol.receive(("accepted", parts[0]), data, now))
            elif socket is self._subscription or socket is self._ingress:
                self.traffic.gradient_received += len(data) if data[:1] == bytes([KIND]) else 0
                self._outbox.extend(self._protocol.hear(data, now, forward=self._listens))
            else:
                link = next(link for link, dealer in self._dealers.items() if dealer is socket)
                self._outbox.extend(self._protocol.receive(link, data, now))
        except MessageError:
            self.traffic.refused += 1

    def _send(self, output: Output) -> None:
        copies = 1
        try:
            if not isinstance(output, Send):
                copies = self._subscribers
                self._publications.send(output.frame, zmq.NOBLOCK)
            elif output.link in self._dealers:
                self._dealers[output.link].send(output.frame, zmq.NOBLOCK)
            else:
                _, routing_id = output.link
                assert isinstance(routing_id, bytes)
                self._router.send_multipart([routing_id, output.frame], zmq.NOBLOCK)
        except zmq.Again:
            return  # a full queue; catch-up makes up for it
        self.traffic.sent += copies * len(output.frame)
        if output.frame[0] == KIND:
            self.traffic.gradient_sent += copies * len(output.frame)
