"""What hostile peers publish, when all that a peer can publish is one byte for each direction.

The attacks of the literature are on vectors in coordinates that peers share. Here are two cases. With *shared*
directions (``trimmed``), honest peers' numbers along a direction are there to be compared, and an attack is taken
over as it is, for one coordinate. With *own* directions (``sum``, ``clip``), nobody else says anything along a
hostile peer's direction, so that its own measurement stands for the mean of the honest, and the sizes of the
round's numbers for their spread. The attackers know everything: honest bytes before they are sent.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, mean, pstdev

LOUDEST = 1e30
"""A number that any byte scale cuts to its largest value, 448."""


@dataclass(frozen=True)
class View:
    """One round as the hostile see it.

    ``honest`` are the decoded numbers that honest peers publish, ``measured`` what each hostile peer measured
    along its direction on its own data.
    """

    honest: Sequence[float]
    measured: Sequence[float]
    shared: bool
    draw: random.Random


@dataclass(frozen=True)
class Attack:
    """A behaviour; ``loud`` ones use the largest learning rate allowed; ``hostile`` of ``peers`` take part."""

    name: str
    act: Callable[[View], Sequence[float]]
    loud: bool = False
    hostile: int = 3
    peers: int = 10


def honest(view: View) -> Sequence[float]:
    """No attack: what was measured."""
    return view.measured


def flip(view: View) -> Sequence[float]:
    """What was measured, with the other sign."""
    return [-g for g in view.measured]


def loudest(view: View) -> Sequence[float]:
    """The largest byte, with the sign that was not measured."""
    return [-math.copysign(LOUDEST, g) for g in view.measured]


def loudest_at_random(view: View) -> Sequence[float]:
    """The largest byte, with any sign."""
    return [view.draw.choice((-LOUDEST, LOUDEST)) for _ in view.measured]


def most_deviations(peers: int, hostile: int) -> float:
    """``z_max`` of Baruch, Baruch, Goldberg 2019, "A little is enough", algorithm 3."""
    supporters = peers // 2 + 1 - hostile
    return NormalDist().inv_cdf((peers - hostile - supporters) / (peers - hostile))


def little(deviations: float) -> Callable[[View], Sequence[float]]:
    """A little is enough (Baruch et al. 2019): as far from the mean as honest numbers are anyway.

    With shared directions ``mean - sign(mean) * z * deviation`` of the honest numbers. With own directions only
    sizes can give a peer away: ``mean + z * deviation`` of the honest sizes, against what was measured.
    """

    def act(view: View) -> Sequence[float]:
        if view.shared:
            centre = mean(view.honest)
            return [centre - math.copysign(deviations * pstdev(view.honest), centre)] * len(view.measured)
        sizes = [abs(g) for g in view.honest]
        size = mean(sizes) + deviations * pstdev(sizes)
        return [-math.copysign(size, g) for g in view.measured]

    return act


def inner_product(epsilon: float) -> Callable[[View], Sequence[float]]:
    """Inner product manipulation (Xie, Koyejo, Gupta 2019, "Fall of empires"): ``-epsilon`` times the honest mean.

    With own directions the honest mean along the hostile peer's direction is what it has measured there.
    """

    def act(view: View) -> Sequence[float]:
        if view.shared:
            return [-epsilon * mean(view.honest)] * len(view.measured)
        return [-epsilon * g for g in view.measured]

    return act


def mimic(view: View) -> Sequence[float]:
    """One honest peer's bytes (Karimireddy, He, Jaggi 2022, section 3); with own directions, under other ones."""
    return [view.honest[0]] * len(view.measured)


def sybils(view: View) -> Sequence[float]:
    """Identities of one adversary, which measures once and has them all publish that, with the other sign."""
    return [-view.measured[0]] * len(view.measured)


ATTACKS = (
    Attack("none", honest),
    Attack("sign flip", flip),
    Attack("largest byte, sign flipped", loudest, loud=True),
    Attack("largest byte, random sign", loudest_at_random, loud=True),
    Attack("ALIE, z by its formula", little(most_deviations(10, 3))),
    Attack("ALIE, z = 1.5", little(1.5)),
    Attack("IPM, epsilon 3", inner_product(3.0)),
    Attack("mimic", mimic),
    Attack("Sybils, 3 of 10", sybils),
    Attack("Sybils, 6 of 10", sybils, hostile=6),
    Attack("sign flip, 6 of 10", flip, hostile=6),
)
