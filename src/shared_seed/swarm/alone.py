"""A peer without others: the same calls as :class:`~shared_seed.swarm.zmq.Swarm`, no socket and no thread, so
that a process that trains alone may fork data-loader workers as it likes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shared_seed.messages import Message
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.traffic import Traffic
from shared_seed.swarm.wire import State

NEVER = 0.0
"""The time that the protocol is told: alone, nothing is late and nothing times out."""

Answer = TypeVar("Answer")


class Alone:
    """The protocol with nobody to talk to; see :class:`~shared_seed.swarm.zmq.Swarm` for the methods."""

    def __init__(self, protocol: Protocol) -> None:
        self.traffic = Traffic()
        self.address: str | None = None
        self._protocol = protocol

    def enter(self, state: State, round_: int, digest: bytes = b"") -> None:
        """State what this peer is at."""
        self._protocol.enter(state, round_, NEVER, digest)

    def publish(self, message: Message) -> None:
        """Put our next message into the set."""
        self._protocol.publish(message, NEVER)

    def ask(self, question: Callable[[Protocol, float], Answer]) -> Answer:
        """The answer of ``question(protocol, now)``."""
        return question(self._protocol, NEVER)

    def wait(self, done: Callable[[Protocol, float], bool], timeout: float) -> bool:
        """``done(protocol, now)``: nothing will arrive."""
        return done(self._protocol, NEVER)

    def close(self) -> None:
        """Nothing is open."""
