"""Who comes late, who goes early, who falls over and comes back."""

from __future__ import annotations

import random
from dataclasses import dataclass

BEGINS = 5.0
"""Seconds after which all have loaded; who goes before is waited for in vain, and that is not what is tested."""


@dataclass(frozen=True)
class Fate:
    """Seconds at which a peer's process starts, leaves in good order, dies, and comes back, if ever.

    One that comes back has the messages it held, ``with_log``, or nothing.
    """

    starts: float = 0.0
    leaves: float | None = None
    dies: float | None = None
    returns: float | None = None
    with_log: bool = True


def fates(peers: int, share: float, seconds: float, seed: int) -> list[Fate]:
    """A fate for each peer of a run that takes about so many seconds; the first peer is always there.

    Of the ``share`` that does not just stay, a quarter each comes late, leaves early, dies, dies and comes back.
    """
    chance = random.Random(f"churn {seed}")
    out = []
    for address in range(peers):
        early, late = BEGINS + seconds * chance.uniform(0.1, 0.5), BEGINS + seconds * chance.uniform(0.55, 0.8)
        log, kind = chance.random() < 0.5, chance.randrange(4)
        if chance.random() >= share or address == 0:
            out.append(Fate())
        else:
            kinds = (Fate(starts=late), Fate(leaves=early), Fate(dies=early), Fate(0.0, None, early, late, log))
            out.append(kinds[kind])
    return out
