"""A process between peers and relays: it can hold, cut, delay and corrupt what goes through it.

A *line* is what one peer has to one relay: as many ports as the relay has. Orders come as datagrams of JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

Address = tuple[str, int]


@dataclass(eq=False)
class Line:
    """The connections of one peer to one relay, and how they are treated."""

    listen: str
    target: str
    ports: list[int]
    held: bool = False
    delay: float = 0.0
    corrupt: int = 0
    pipes: set[Pipe] = field(default_factory=set)
    servers: list[asyncio.Server] = field(default_factory=list)

    async def open(self) -> None:
        """Take connections."""
        loop = asyncio.get_running_loop()
        for port in self.ports:
            self.servers.append(await loop.create_server(_accepting(self, port), self.listen, port, backlog=64))

    async def close(self) -> None:
        """Refuse connections."""
        for server in self.servers:
            server.close()
        self.servers.clear()
        self.reset()

    def reset(self) -> None:
        """End all connections, from both sides and at once."""
        for pipe in list(self.pipes):
            pipe.abort()

    def hold(self, held: bool) -> None:
        """Let nothing through from now on, and forget nothing; or go on."""
        self.held = held
        for pipe in list(self.pipes):
            pipe.settle()


class Pipe(asyncio.Protocol):
    """One end of a connection; ``other`` is the other."""

    def __init__(self, line: Line, other: Pipe | None = None) -> None:
        self.line = line
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.waiting: list[bytes] = []
        self.due = 0.0
        self.full = False
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; what the other end has sent meanwhile goes out."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.ended:
            transport.abort()
            return
        self.line.pipes.add(self)
        self.settle()
        for data in self.waiting:
            transport.write(data)
        self.waiting.clear()

    def connection_lost(self, error: Exception | None) -> None:
        """End the other end too, after what was sent before."""
        self.line.pipes.discard(self)
        self.ended = True
        if self.other is not None:
            loop = asyncio.get_running_loop()
            loop.call_at(max(self.due, loop.time()), self.other.abort if error else self.other.close)

    def data_received(self, data: bytes) -> None:
        """Pass it to the other end, now or later, as it is or not."""
        if self.line.corrupt > 0:
            self.line.corrupt -= 1
            data = _flipped(data)
        assert self.other is not None
        loop = asyncio.get_running_loop()
        now = loop.time()
        # What was sent later comes later, also when the delay has become shorter.
        self.due = max(self.due, now + self.line.delay)
        if self.due > now:
            loop.call_at(self.due, self.other.write, data)
        else:
            self.other.write(data)

    def write(self, data: bytes) -> None:
        """Send, or keep until there is a connection."""
        if self.transport is None:
            self.waiting.append(data)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def abort(self) -> None:
        """Reset the connection, even before it is there."""
        self.ended = True
        if self.transport is not None:
            end = self.transport.get_extra_info("socket")
            if end.fileno() >= 0:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def close(self) -> None:
        """End the connection when all is sent; before it is there, at once."""
        self.ended = True
        if self.transport is not None:
            self.transport.close()

    def settle(self) -> None:
        """Read, or do not, as the line and the other end have it."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.line.held or (self.other is not None and self.other.full):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """The one who reads here is slow."""
        self._fill(True)

    def resume_writing(self) -> None:
        """There is room again."""
        self._fill(False)

    def _fill(self, full: bool) -> None:
        self.full = full
        if self.other is not None:
            self.other.settle()


def _flipped(data: bytes) -> bytes:
    bit = random.randrange(8 * len(data))
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def _accepting(line: Line, port: int) -> Any:
    """What makes the protocol of an accepted connection, and connects it to the relay."""

    def accept() -> Pipe:
        near = Pipe(line)
        near.other = Pipe(line, near)
        asyncio.get_running_loop().create_task(_connect(near, (line.target, port)))
        return near

    return accept


async def _connect(near: Pipe, target: Address) -> None:
    far = near.other
    assert far is not None
    try:
        await asyncio.get_running_loop().create_connection(lambda: far, *target)
    except OSError:
        near.abort()


class _Control(asyncio.DatagramProtocol):
    """Takes orders, and answers each when it is done."""

    def __init__(self, lines: dict[tuple[int, int], Line]) -> None:
        self.lines = lines
        self.tasks: set[asyncio.Task[None]] = set()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._obey(json.loads(data), sender))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _obey(self, order: dict[str, Any], sender: Any) -> None:
        line = self.lines[order["peer"], order["relay"]]
        match order["do"]:
            case "hold":
                line.hold(True)
            case "release":
                line.hold(False)
            case "close":
                await line.close()
            case "open":
                await line.open()
            case "reset":
                line.reset()
            case "delay":
                line.delay = order["amount"]
            case "corrupt":
                line.corrupt = int(order["amount"])
        self.transport.sendto(b"done", sender)


async def _serve(lines: list[dict[str, Any]], control: str) -> None:
    known: dict[tuple[int, int], Line] = {}
    for words in lines:
        line = known[words["peer"], words["relay"]] = Line(words["listen"], words["target"], words["ports"])
        await line.open()
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: _Control(known), control, family=socket.AF_UNIX)
    await asyncio.Event().wait()


def run(lines: list[dict[str, Any]], control: str) -> int:
    """Serve lines until killed.

    Args:
        lines: of each its ``peer`` and ``relay``, the host to ``listen`` at, the ``target`` host, the ``ports``.
        control: path of the socket that orders come to.
    """
    asyncio.run(_serve(lines, control))
    return 0
