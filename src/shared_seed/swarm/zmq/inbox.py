"""What sockets have received: who reads it, and whether its sender may send so much."""

from __future__ import annotations

from collections.abc import Callable

import zmq

from shared_seed import clock
from shared_seed.errors import MessageError
from shared_seed.swarm.budget import Budget
from shared_seed.swarm.traffic import Traffic
from shared_seed.swarm.zmq.sockets import Socket

MOST_AT_ONCE = 1000
"""Messages that are taken from one socket before the others have their turn."""

Frames = list[zmq.Frame]


class Inbox:
    """All sockets that are read from, each with what reads it."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._poller = zmq.Poller()
        self._readers: dict[Socket, Callable[[], None]] = {}
        self._urgent: set[Socket] = set()

    def watch(self, socket: Socket, read: Callable[[], None]) -> None:
        """Have ``read`` called whenever a socket has something."""
        self._readers[socket] = read
        self._poller.register(socket, zmq.POLLIN)

    def take(self, socket: Socket, handle: Callable[[Frames], None], urgent: bool = False) -> None:
        """Have ``handle`` called with each message of a socket; those that are not valid count as refused.

        Args:
            socket: to read from.
            handle: is called with the frames of a message.
            urgent: before those of other sockets.
        """
        if urgent:
            self._urgent.add(socket)

        def read() -> None:
            for _ in range(MOST_AT_ONCE):
                try:
                    frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
                except zmq.Again:
                    return
                try:
                    handle(frames)
                except MessageError:
                    self._traffic.refused += 1

        self.watch(socket, read)

    def wait(self, milliseconds: int) -> list[Callable[[], None]]:
        """What is to be called now, after at most so long."""
        ready = [socket for socket, _ in self._poller.poll(milliseconds)]
        return [self._readers[socket] for socket in sorted(ready, key=lambda socket: socket not in self._urgent)]

    def admit(self, budget: Budget, sender: bytes, frames: Frames, parts: int) -> bool:
        """Whether to look into a message: it counts as received, and against its sender's budget.

        Raises:
            MessageError: it is not of so many parts.
        """
        self._traffic.received += len(frames[-1])
        if not budget.takes(sender, sum(map(len, frames)), clock.now()):
            self._traffic.limit(sender)
            return False
        if len(frames) != parts:
            raise MessageError(f"a message of {len(frames)} frames")
        return True


def sender_of(frame: zmq.Frame) -> bytes:
    """The Curve25519 key that whoever sent a frame to a server of ours has proved.

    Raises:
        MessageError: there is none.
    """
    try:
        return bytes.fromhex(str(frame.get("User-Id")))
    except (zmq.ZMQError, ValueError) as error:
        raise MessageError("a frame on a link without a key") from error
