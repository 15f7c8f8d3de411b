"""A connection that we dial: it is opened again whatever ends it, and says what happens to it."""

from __future__ import annotations

import contextlib
from enum import Enum

import zmq
from zmq.utils.monitor import parse_monitor_message

from shared_seed.identity import Key
from shared_seed.swarm.zmq.sockets import Context, client

REOPEN = 2.0
"""Seconds until a connection that libzmq has given up is opened again."""

BROKEN_OFF = 3
"""Handshakes in a row that end without a reason, until that is news."""

_FAILED = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
}


class News(Enum):
    """What happened to a line."""

    OPEN = "both ends have proved their keys"
    REFUSED = "the other end does not admit our key"
    BROKEN_OFF = "the other end takes connections but has broken off several handshakes in a row"


class Line:
    """A client socket and its monitor."""

    def __init__(self, context: Context, kind: int, endpoint: str, key: Key, server_key: bytes) -> None:
        """Connect, in the background.

        Args:
            context: of this peer's sockets.
            kind: of socket.
            endpoint: ``tcp://host:port``.
            key: our own.
            server_key: the Curve25519 key of the other end.
        """
        self.server_key = server_key
        self.opened = 0
        self.refused = 0
        self._broken_off = 0
        self._endpoint = endpoint
        self._dead_at: float | None = None
        self.socket = client(context, kind, key, server_key)
        events = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_DISCONNECTED
        for event in (zmq.EVENT_HANDSHAKE_SUCCEEDED, *_FAILED):
            events |= event
        self.monitor = self.socket.get_monitor_socket(events)
        self.socket.connect(endpoint)

    def heed(self, now: float) -> list[News]:
        """What the monitor has to tell. ``opened`` counts openings, ``refused`` refusals since the last one."""
        news: list[News] = []
        while True:
            try:
                event = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))["event"]
            except zmq.Again:
                return news
            # After a refusal or an error in the protocol libzmq does not try again, and says nothing about it.
            gone = event == zmq.EVENT_DISCONNECTED or event in _FAILED
            self._dead_at = now if gone else None
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.opened += 1
                self.refused = self._broken_off = 0
                news.append(News.OPEN)
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.refused += 1
                news.append(News.REFUSED)
            elif event in _FAILED:
                self._broken_off += 1
                if self._broken_off % BROKEN_OFF == 0:
                    news.append(News.BROKEN_OFF)

    def tend(self, now: float) -> bool:
        """Open the connection again if libzmq has given it up some time ago; whether it did so."""
        if self._dead_at is None or now - self._dead_at < REOPEN:
            return False
        self._dead_at = None
        with contextlib.suppress(zmq.ZMQError):  # It may be gone already.
            self.socket.disconnect(self._endpoint)
        self.socket.connect(self._endpoint)
        return True

    def close(self) -> None:
        """Close both sockets."""
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close()
