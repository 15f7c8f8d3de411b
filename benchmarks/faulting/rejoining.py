"""How long it took killed peers to be back: from the start of the process to having caught up with the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from faulting.history import Event
from faulting.schedule import Kind
from faulting.verdict import named

AFTERMATH = 5.0
"""Seconds after a fault during which a start is not calm: connections come back at intervals up to this."""


@dataclass(frozen=True)
class Rejoins:
    """Seconds; ``calm`` are those that no other fault fell into, ``unfinished`` lives ended before."""

    all: Sequence[float]
    calm: Sequence[float]
    unfinished: int

    def summary(self) -> dict[str, Any]:
        """Median, 99th percentile and maximum of each."""
        rows = {name: _quantiles(values) for name, values in (("all", self.all), ("calm", self.calm))}
        return {**rows, "unfinished": self.unfinished}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {"count": 0}
    ordered = sorted(values)
    picked = {
        name: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for name, q in (("p50", 0.5), ("p99", 0.99))
    }
    return {"count": len(ordered), **picked, "max": ordered[-1]}


def _disturbs(action: Event, who: str, start: float, stop: float) -> bool:
    """Whether an action concerns a peer, or a relay, between two times."""
    concerned = f"peer{who.removeprefix('peer')}" in {f"peer{n}" for n in action["peers"]}
    if action["kind"] in (Kind.KILL_RELAY, Kind.STOP) and action["relays"]:
        concerned = True
    relevant = concerned and action["kind"] not in (Kind.KILL, Kind.HOSTILE) and action["done"]
    return relevant and action["at"] < stop and action["at"] + action["seconds"] + AFTERMATH > start


def rejoins(events: Sequence[Event]) -> Rejoins:
    """Read off the histories; the first start of each peer does not count."""
    back = {(e["who"], e["life"]): e for e in named(events, "rejoined")}
    actions = named(events, "action")
    every, calm, unfinished = [], [], 0
    for start in named(events, "start"):
        if not start["who"].startswith("peer") or start["life"] == 1:
            continue
        came = back.get((start["who"], start["life"]))
        if came is None:
            unfinished += 1
            continue
        every.append(came["seconds"])
        if not any(_disturbs(a, start["who"], start["at"], came["at"]) for a in actions):
            calm.append(came["seconds"])
    return Rejoins(every, calm, unfinished)
