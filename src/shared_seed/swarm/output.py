"""What the protocol asks of whoever owns the sockets."""

from __future__ import annotations

from dataclasses import dataclass

Link = tuple[str, str | bytes]
"""A two-way connection: ("dialled", address) or ("accepted", routing id)."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Send a frame to everybody who listens to us."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Send a frame over one link."""

    link: Link
    frame: bytes


@dataclass(frozen=True, slots=True)
class Join:
    """Listen to what the peer at the end of a dialled link publishes, and publish to it; it has welcomed us."""

    link: Link


Output = Publish | Send | Join


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: between heartbeats, of silence until a peer counts as gone, until a request or a greeting is
    repeated.
    """

    heartbeat: float = 2.0
    timeout: float = 10.0
    retry: float = 1.0
    greet: float = 5.0
