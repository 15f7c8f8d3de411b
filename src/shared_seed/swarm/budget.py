"""How much each sender may send: token buckets, which know no clock."""

from __future__ import annotations

from collections.abc import Hashable

BURST = 4.0
"""Seconds of its rate that a sender may use at once."""

MOST_KEYS = 4096
"""Senders that are remembered; beyond it, whoever was not heard for longest is forgotten."""


class Budget:
    """A token bucket for each key: it fills at a rate, up to a burst, and a frame takes its size out of it."""

    def __init__(self, bytes_per_second: int, burst: float = BURST, most_keys: int = MOST_KEYS) -> None:
        """Every bucket is full at first.

        Args:
            bytes_per_second: at which each bucket fills.
            burst: seconds of that rate that it holds.
            most_keys: buckets that are kept.
        """
        self.rate = bytes_per_second
        self.size = bytes_per_second * burst
        self.most_keys = most_keys
        self._buckets: dict[Hashable, tuple[float, float]] = {}

    def left(self, key: Hashable, now: float) -> float:
        """Bytes in a bucket at the time ``now`` in seconds; below 0 where :meth:`charge` has left a debt."""
        left, before = self._buckets.get(key, (self.size, now))
        return min(self.size, left + self.rate * max(0.0, now - before))

    def charge(self, key: Hashable, size: int, now: float) -> None:
        """Take ``size`` bytes out of a bucket, whether they are in it or not."""
        left = self.left(key, now) - size
        # Taken out and put back, so that the order of the dictionary is that of the last use.
        self._buckets.pop(key, None)
        self._buckets[key] = (left, now)
        if len(self._buckets) > self.most_keys:
            del self._buckets[next(iter(self._buckets))]

    def takes(self, key: Hashable, size: int, now: float) -> bool:
        """Whether a sender may send ``size`` bytes at the time ``now`` in seconds; if so, they are used up."""
        allowed = size <= self.left(key, now)
        self.charge(key, size if allowed else 0, now)
        return allowed

    def __len__(self) -> int:
        return len(self._buckets)
