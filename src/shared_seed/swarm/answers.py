"""What neighbours ask for, answered within a rate, so that whoever is far behind does not stall the others.

An answer may be ten thousand times as large as the request for it. Each asker has a budget, and all together have
one; whoever has used it up waits, and askers take turns.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from shared_seed.swarm import wire
from shared_seed.swarm.budget import Budget
from shared_seed.swarm.output import Link

MOST_WAITING = 64
"""Requests of one asker that wait; what it asks beyond is dropped, and has to be asked again."""

MOST_ASKERS = 4096
"""Askers that wait; as above."""

PASS = 1 << 18
"""Bytes of answers after which publications have their turn."""

Asking = wire.Compare | wire.Request | wire.Trace | wire.Consult


@dataclass(frozen=True, slots=True)
class Supply:
    """Bytes of answers a second, for each asker and for all together, and how many seconds' worth at once."""

    each: int = 4_000_000
    total: int = 16_000_000
    burst: float = 1.0


class Answers:
    """Requests that wait for their answers."""

    def __init__(self, supply: Supply) -> None:
        self._each = Budget(supply.each, supply.burst)
        self._total = Budget(supply.total, supply.burst)
        self._waiting: dict[Hashable, dict[Hashable, tuple[Link, Asking]]] = {}
        self._passed = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def ask(self, asker: Hashable, link: Link, frame: Asking) -> None:
        """Put a request in line; one that asks for the same over the same link is answered once.

        Args:
            asker: whose budget the answer is taken from.
            link: where it goes.
            frame: the request.
        """
        if asker not in self._waiting and len(self._waiting) >= MOST_ASKERS:
            return
        waiting = self._waiting.setdefault(asker, {})
        what = (link, type(frame), getattr(frame, "stream", b""))
        if what in waiting or len(waiting) < MOST_WAITING:
            waiting[what] = (link, frame)

    def due(self, now: float) -> tuple[Hashable, Link, Asking] | None:
        """The next request to answer now, in this pass; :meth:`charge` its answer afterwards."""
        asker = self._next(now) if self._passed < PASS else None
        if asker is None:
            return None
        waiting = self._waiting.pop(asker)
        link, frame = waiting.pop(next(iter(waiting)))
        if waiting:
            self._waiting[asker] = waiting  # at the end of the line
        return asker, link, frame

    def is_due(self, now: float) -> bool:
        """Whether there will be something to answer in the next pass, were it now."""
        return self._next(now) is not None

    def _next(self, now: float) -> Hashable | None:
        if not self._waiting or self._total.left((), now) <= 0:
            return None
        return next((asker for asker in self._waiting if self._each.left(asker, now) > 0), None)

    def charge(self, asker: Hashable, size: int, now: float) -> None:
        """Take an answer's bytes from the budgets; they are known only afterwards, so this may leave a debt."""
        self._passed += size
        self._each.charge(asker, size, now)
        self._total.charge((), size, now)

    def begin_pass(self) -> None:
        """Publications have had their turn."""
        self._passed = 0
