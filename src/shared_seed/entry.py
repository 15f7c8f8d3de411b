"""Whether a session may begin: enough peers are ready, or the run is under way and all of it has come."""

from __future__ import annotations

from dataclasses import dataclass

from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import State


@dataclass(frozen=True)
class Entry:
    """What one session waits for.

    Attributes:
        wanted: peers that must be ready where the run has not begun.
        round: that this session is at.
        resumed: whether it goes on from a checkpoint. All may be resuming at the same round, and whoever went
            ahead alone would end with other bits: it waits for as many as the run began with, unless some have
            gone on meanwhile.
        joins: whether it dialled a run, so that somebody must be there.
    """

    wanted: int
    round: int
    resumed: bool
    joins: bool

    def is_open(self, protocol: Protocol, now: float) -> bool:
        """Whether the session may begin now."""
        if self.joins and not protocol.live(now):
            return False
        if self.resumed:
            training = any(p.state is State.TRAINING for p in protocol.live(now))
            under_way = training or protocol.swarm_round(now) > self.round
        else:
            under_way = len(protocol.archive) > 0 or protocol.swarm_round(now) > 0
        return (under_way or protocol.ready(now) >= self.wanted) and protocol.has_all(now)

    def why_closed(self, protocol: Protocol, now: float, patience: float) -> str:
        """What was waited for in vain for so many seconds, and what to do."""
        ready = protocol.ready(now)
        if ready >= self.wanted and not protocol.has_all(now):
            return (
                f"what others have of this run did not all come within {patience:g} s; expected a faster line or "
                "a less busy machine; start again: what has come is in the run folder, if there is one"
            )
        return (
            f"{ready} of {self.wanted} peers were ready within {patience:g} s; start the others, or ask for fewer "
            "with start_with"
        )
