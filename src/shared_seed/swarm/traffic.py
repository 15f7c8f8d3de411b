"""What went over the sockets."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_LIMITED = 1000
"""Senders that are counted one by one."""

THE_REST = ""
"""Stands for all senders beyond these."""


@dataclass(slots=True)
class Traffic:
    """Payload bytes and frames that went over the sockets; a published frame counts once per subscriber.

    ``gradient`` fields count gradient messages alone, the others everything. ``limited`` counts, by the sender's
    Curve25519 key in hex, the frames that were dropped unread because it sent too much.
    """

    sent: int = 0
    received: int = 0
    gradient_sent: int = 0
    gradient_received: int = 0
    refused: int = 0
    limited: dict[str, int] = field(default_factory=dict)

    def limit(self, sender: bytes) -> None:
        """Count a frame that was dropped because its sender sent too much."""
        name = sender.hex()
        if name not in self.limited and len(self.limited) >= MOST_LIMITED:
            name = THE_REST
        self.limited[name] = self.limited.get(name, 0) + 1
