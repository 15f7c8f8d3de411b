"""Who may come in: answers libzmq's questions about new connections (ZAP, https://rfc.zeromq.org/spec/27)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import zmq

from shared_seed.identity import KEY_SIZE
from shared_seed.swarm.zmq.sockets import Context

Rule = Callable[[bytes], bool]
"""Whether the holder of a Curve25519 key may come in now."""

_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Somebody who was refused: the Curve25519 key, where to (a ZAP domain), and why, if not by the rule."""

    key: bytes
    domain: str
    failure: str = ""


class Gate:
    """Asks a rule at every new connection; whatever is not clearly admitted is refused."""

    def __init__(self, context: Context, rules: Mapping[bytes, Rule]) -> None:
        """Answer for all servers of a context.

        Args:
            context: of the servers.
            rules: by ZAP domain.
        """
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(_ENDPOINT)
        self._rules = rules

    def answer(self) -> TurnedAway | None:
        """Answer one question; gives whom it has refused.

        Raises:
            zmq.Again: there is none.
        """
        frames = self.socket.recv_multipart(zmq.NOBLOCK)
        version, request, domain, _, _, mechanism, *credentials = [*frames, *[b""] * 6][: max(6, len(frames))]
        key = credentials[0] if mechanism == b"CURVE" and len(credentials) == 1 else b""
        admitted, failure = False, ""
        if version == _VERSION and len(key) == KEY_SIZE:
            try:
                admitted = self._rules[domain](key) is True
            except Exception as error:  # An error of ours must neither admit anybody nor stop the network.
                failure = f"{type(error).__name__}: {error}"
        code, text, user = (b"200", b"OK", key.hex().encode()) if admitted else (b"400", b"not admitted", b"")
        self.socket.send_multipart([_VERSION, request, code, text, user, b""])
        return None if admitted else TurnedAway(key, domain.decode("ascii", "replace"), failure)
