"""What a session reports: each step, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared_seed.log import Contents
from shared_seed.swarm.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: ``peers`` took part with us among them, ``applied`` gradients moved the weights, and
    ``abstained`` of our own probes had no finite loss and so moved nothing.

    ``loss`` and ``gradient`` are the means of the finite probes, NaN where there was none.
    """

    round: int
    loss: float
    gradient: float
    learning_rate: float
    peers: int
    applied: int
    late: tuple[str, ...]
    abstained: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: our digest, those that the others state, what was exchanged, and what its log holds."""

    digest: str
    others: dict[str, str]
    messages: int
    gradients: int
    streams: int
    traffic: Traffic
    contents: Contents | None = field(default=None, repr=False, compare=False)

    @property
    def identical(self) -> bool:
        """Whether every peer that stated a digest stated ours."""
        return all(digest == self.digest for digest in self.others.values())
