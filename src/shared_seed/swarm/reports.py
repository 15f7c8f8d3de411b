"""When neighbours are told what we hold.

Not while it changes all the time, for neighbours are about to hear the same; and twice, but for those that have
told us that they hold it too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from shared_seed.swarm import wire
from shared_seed.swarm.output import Timing

REPORTS = 2
"""Times that neighbours are told what we hold, unless it changes before."""

RESTLESS = 2
"""Times ``Timing.heartbeat`` after which they are told though it changes."""


class Reports:
    """What neighbours were told, and when they are told next."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._told: deque[wire.Holding] = deque(maxlen=REPORTS)
        self._count = 0
        self._next = 0.0
        self._latest = 0.0

    def due(self, count: int, holding: Callable[[], wire.Holding], now: float) -> tuple[wire.Holding, bool] | None:
        """What to tell them now, and whether for the first time.

        Args:
            count: of the messages that we hold.
            holding: gives what we hold, which takes a while.
            now: seconds.
        """
        if now < self._next:
            return None
        changed, self._count = count != self._count, count
        if changed and now < self._latest:
            self._next = now + self._timing.retry
            return None
        self._next = now + self._timing.heartbeat
        self._latest = now + RESTLESS * self._timing.heartbeat
        at = holding()
        times = self._told.count(at)
        if times == REPORTS:
            return None
        self._told.append(at)
        return at, times == 0
