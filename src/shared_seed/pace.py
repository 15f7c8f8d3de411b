"""How long this peer's own steps take, and how long a step waits for the others."""

from __future__ import annotations

from collections import deque
from statistics import median

from shared_seed.settings import Settings
from shared_seed.swarm.roster import Roster

FIRST_DEADLINE = 30.0
"""Seconds that a step waits for others before it is known how long steps take."""

LEAST_WAIT = 1.0
"""Seconds that a step waits for others at least, once its own part is done."""

KNOWN = 3
"""Steps after which it is known how long they take."""

SLOW = 1.5
"""A peer is slow that has worked on a step for this many times as long as the middle peer does."""


class Pace:
    """The last steps of this peer, in seconds of work; waiting is left out."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._durations: deque[float] = deque(maxlen=20)
        self._began = 0.0

    def begin(self, now: float) -> None:
        """A step begins."""
        self._began = now

    def end(self, now: float) -> float:
        """Our part of the step is done; gives the seconds that our steps take."""
        self._durations.append(now - self._began)
        return self.seconds

    @property
    def seconds(self) -> float:
        """That our steps take, 0 before the first."""
        return median(self._durations) if self._durations else 0.0

    def left(self, roster: Roster, now: float) -> tuple[float, float]:
        """What a step whose own part is done allows: seconds of work that others may need, and seconds to wait.

        Either follows from the settings' deadline, or from the median and the spread of all peers' paces.
        """
        worked = self._durations[-1]
        if self._settings.deadline is not None:
            wait = self._settings.deadline
        elif len(self._durations) < KNOWN:
            wait = min(FIRST_DEADLINE, self._settings.patience)
        else:
            wait = max(LEAST_WAIT, roster.deadline(self.seconds, now) - worked)
        return worked + wait, wait

    def is_slow(self, roster: Roster, now: float) -> bool:
        """Whether this step has taken so long already that one more probe would only hold up the others."""
        return now - self._began > SLOW * roster.pace(self.seconds or now - self._began, now)
