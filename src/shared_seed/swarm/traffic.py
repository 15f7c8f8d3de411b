"""What went over the sockets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Payload bytes and frames that went over the sockets; a published frame counts once per subscriber.

    ``gradient`` fields count gradient messages alone, the others everything.
    """

    sent: int = 0
    received: int = 0
    gradient_sent: int = 0
    gradient_received: int = 0
    refused: int = 0
