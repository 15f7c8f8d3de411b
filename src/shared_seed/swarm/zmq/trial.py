"""A listening peer tries at its start whether it keeps strangers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import parse_monitor_message

from shared_seed import clock
from shared_seed.errors import SwarmError
from shared_seed.identity import Key
from shared_seed.swarm.zmq.gate import Gate, Rule
from shared_seed.swarm.zmq.sockets import Context, Socket, client, configured, curve

PATIENCE = 5.0
"""Seconds until a port that has not refused a stranger counts as open."""

_COUNTERPARTS: dict[int, int] = {zmq.ROUTER: zmq.DEALER, zmq.XPUB: zmq.SUB, zmq.SUB: zmq.XPUB}

_WITHOUT_KEY = (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
_WITH_A_KEY = (zmq.EVENT_HANDSHAKE_FAILED_AUTH,)
_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


@dataclass(frozen=True, slots=True)
class Port:
    """A listening socket and the rule that it is under."""

    socket: Socket
    kind: int
    rule: Rule

    @property
    def endpoint(self) -> str:
        """Where this machine can reach it."""
        bound = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        return bound.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


class _Stranger:
    """A client that must not get in, and the events that say that it did not."""

    def __init__(self, name: str, endpoint: str, socket: Socket, refusals: Sequence[int]) -> None:
        self.name = name
        self.endpoint = endpoint
        self.refusals = refusals
        self.refused = False
        self.monitor = socket.get_monitor_socket(_EVENTS)
        self._socket = socket
        socket.connect(endpoint)

    def close(self) -> None:
        self._socket.disable_monitor()
        self.monitor.close(linger=0)
        self._socket.close(linger=0)


def check(context: Context, gate: Gate, ports: Sequence[Port], key: Key) -> None:
    """Knock at each port without a key and, where its rule would not admit it, with a key that nobody knows.

    Raises:
        SwarmError: one of them got in, or was not refused in time.
    """
    nobody = Key.fresh()
    strangers: list[_Stranger] = []
    try:
        for port in ports:
            kind, endpoint = _COUNTERPARTS[port.kind], port.endpoint
            plain = configured(context, kind)
            strangers.append(_Stranger("a client without encryption", endpoint, plain, _WITHOUT_KEY))
            if not port.rule(curve(nobody.public)):
                unknown = client(context, kind, nobody, curve(key.public))
                strangers.append(_Stranger("a client with an unknown key", endpoint, unknown, _WITH_A_KEY))
        _wait(gate, strangers)
    finally:
        for stranger in strangers:
            stranger.close()


def _wait(gate: Gate, strangers: Sequence[_Stranger]) -> None:
    """Answer at the gate until all are refused."""
    poller = zmq.Poller()
    poller.register(gate.socket, zmq.POLLIN)
    at = {stranger.monitor: stranger for stranger in strangers}
    for monitor in at:
        poller.register(monitor, zmq.POLLIN)
    deadline = clock.now() + PATIENCE
    while waiting := [stranger for stranger in strangers if not stranger.refused]:
        left = deadline - clock.now()
        if left <= 0:
            raise SwarmError(
                f"{waiting[0].name} was not refused at {waiting[0].endpoint} within {PATIENCE:g} s, so this peer "
                "does not listen; expected it to be refused at once; start again, and report it if it stays so"
            )
        for socket, _ in poller.poll(int(1000 * left) + 1):
            if socket is gate.socket:
                gate.answer()
                continue
            stranger = at[socket]
            happened = parse_monitor_message(socket.recv_multipart())["event"]
            if happened == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                raise SwarmError(
                    f"{stranger.name} was let in at {stranger.endpoint}, so this peer does not listen; it "
                    "should have been refused; please report it with the versions of pyzmq and libzmq"
                )
            stranger.refused |= happened in stranger.refusals
