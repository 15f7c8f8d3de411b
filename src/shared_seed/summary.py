"""What a run came to, in figures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from shared_seed.errors import LogError
from shared_seed.files import replacing
from shared_seed.score import Score
from shared_seed.usage import Usage

NAME = "result.json"
"""In a run folder."""


@dataclass(frozen=True)
class Summary:
    """Scores are None for a peer that did not test. Bytes are what sockets carried as payload.

    ``received`` is the sum over the peers that are known here, ``seconds`` the time spent in training,
    ``replicas`` the digests of all peers that stated one. Of the ``usage``, memory is that of the peer here
    that took most, and energy that of the machine while it trained. ``precision`` is what this peer's forward
    passes computed in, bf16 or fp32; None in results of earlier releases.
    """

    before: Score | None
    after: Score | None
    digest: str
    replicas: dict[str, str]
    peers: int
    messages: int
    gradients: int
    streams: int
    sent: int
    received: int
    gradient_received: int
    log_bytes: int
    seconds: float
    usage: Usage = field(default_factory=Usage)
    precision: str | None = None

    @property
    def identical(self) -> bool:
        """Whether all replicas hold the same bits."""
        return len(set(self.replicas.values())) == 1

    def scores(self) -> list[tuple[str, str, str]]:
        """Name, before and after of every figure that was tested."""
        if self.before is None or self.after is None:
            return []
        after = self.after.figures()
        return [
            (name, form.format(value), form.format(after[name][0]))
            for name, (value, form) in self.before.figures().items()
            if name in after
        ]

    def save(self, folder: Path) -> None:
        """Write ``result.json``."""
        with replacing(folder / NAME) as new:
            new.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Summary:
        """Read what :meth:`save` wrote.

        Raises:
            LogError: it is not what :meth:`save` writes.
        """
        try:
            content = json.loads((folder / NAME).read_text())
            for name in ("before", "after"):
                content[name] = Score(**content[name]) if content[name] else None
            return cls(**{**content, "usage": Usage(**content.get("usage", {}))})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise LogError(
                f"{folder / NAME} is not what a run leaves: {error}; delete it to go on without its figures"
            ) from error
