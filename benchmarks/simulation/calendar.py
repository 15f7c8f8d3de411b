"""What is to happen when: the virtual clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Calendar:
    """Calls, by the millisecond that they are due at; those of one millisecond in the order they were put in.

    Most events are copies of a publication and share their millisecond with many others, so the heap holds
    milliseconds and not events.
    """

    def __init__(self) -> None:
        self.now = 0
        self.events = 0
        self._due: list[int] = []
        self._calls: dict[int, list[tuple[Callable[..., None], tuple[Any, ...]]]] = {}

    def put(self, due: int, call: Callable[..., None], *words: Any) -> None:
        """Have ``call(*words)`` made at a millisecond that is still to come."""
        calls = self._calls.get(due)
        if calls is None:
            if due <= self.now:
                raise ValueError(f"{due} ms is past; it is {self.now} ms")
            calls = self._calls[due] = []
            heapq.heappush(self._due, due)
        calls.append((call, words))

    def run(self, until: int, goes_on: Callable[[], bool]) -> None:
        """Make the calls as they come due, as long as ``goes_on()`` and the clock is below ``until``."""
        while self._due and self._due[0] < until and goes_on():
            self.now = heapq.heappop(self._due)
            calls = self._calls.pop(self.now)
            for call, words in calls:
                call(*words)
            self.events += len(calls)
