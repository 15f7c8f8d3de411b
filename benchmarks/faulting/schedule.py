"""What goes wrong, and when: a list of actions that is a function of the plan alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

SHORTEST, LONGEST = 0.1, 0.5
"""Seconds between two actions."""

STEADY = 0
"""The peer that is never killed, so that one process lives as long as the run."""


class Kind(StrEnum):
    """What is done."""

    KILL = "kill a peer"
    KILL_RELAY = "kill relays"
    STOP = "stop a process"
    PART = "partition"
    CUT = "reset connections"
    SLOW = "delay a line"
    NARROW = "narrow line"
    CORRUPT = "corrupt bytes"
    HOSTILE = "hostile frames"


class After(StrEnum):
    """What happens to a killed peer's folder before it comes back."""

    NOTHING = "nothing"
    TORN = "torn tail"
    ZEROS = "torn tail of zeros"
    LOST = "folder lost"
    FULL = "full disk"


class Frames(StrEnum):
    """What the hostile member publishes."""

    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    FLIPPED = "bits flipped"
    OVERSIZED = "oversized"
    FOREIGN = "foreign"
    UNSIGNED = "unsigned"
    STOLEN = "signed by another"
    NOISE = "random bytes"


@dataclass(frozen=True)
class Plan:
    """What to make a schedule for. ``kills`` of peers at least are on it; ``seconds`` is how long it lasts."""

    seconds: float
    peers: int
    relays: int
    seed: int = 1
    kills: int = 0

    def __post_init__(self) -> None:
        if not (2 <= self.peers <= 200 and 1 <= self.relays <= 20 and self.seconds > 0):
            raise ValueError(
                f"{self.peers} peers, {self.relays} relays, {self.seconds:g} s; expected 2 to 200 peers, 1 to 20 "
                "relays and a positive time"
            )
        if self.kills > self.most_kills:
            raise ValueError(
                f"{self.kills} kills in {self.seconds:g} s; expected at most {self.most_kills:.0f}, so that there "
                "is something to kill; ask for fewer or for more minutes"
            )

    @property
    def actions(self) -> float:
        """How many there will be, about."""
        return self.seconds / ((SHORTEST + LONGEST) / 2)

    @property
    def most_kills(self) -> float:
        """How many kills a schedule can hold: half of the actions, and one every three seconds for each peer."""
        return min(0.5 * self.actions, self.seconds * (self.peers - 1) / 3)


@dataclass(frozen=True)
class Action:
    """One thing that goes wrong ``at`` so many seconds, for ``seconds``.

    ``peers`` and ``relays`` are the numbers of those concerned; ``how`` is a variant of the kind, ``amount`` how
    much of it: seconds of delay, bytes that are torn off, frames.
    """

    at: float
    kind: Kind
    peers: tuple[int, ...] = ()
    relays: tuple[int, ...] = ()
    seconds: float = 0.0
    how: str = ""
    amount: float = 0.0


SHARES = {
    Kind.STOP: 0.16,
    Kind.CUT: 0.16,
    Kind.SLOW: 0.14,
    Kind.NARROW: 0.06,
    Kind.CORRUPT: 0.1,
    Kind.HOSTILE: 0.3,
    Kind.PART: 0.03,
    Kind.KILL_RELAY: 0.01,
}
"""How often each kind happens, among what is no killing of peers."""

KILL_SHARE = 0.2
"""How often a peer is killed, at least."""

AFTERS = {After.NOTHING: 0.7, After.TORN: 0.12, After.ZEROS: 0.08, After.LOST: 0.06, After.FULL: 0.04}


def schedule(plan: Plan) -> list[Action]:
    """The actions of a plan in order; the same for the same plan."""
    return _Drawing(plan).draw()


class _Drawing:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = random.Random(f"faults {plan.seed}")
        self.up_from = [0.0] * plan.peers
        self.kills = 0

    def draw(self) -> list[Action]:
        out: list[Action] = []
        now = self.chance.uniform(SHORTEST, LONGEST)
        while now < self.plan.seconds:
            out.append(self._action(now))
            now += self.chance.uniform(SHORTEST, LONGEST)
        return out

    def _action(self, now: float) -> Action:
        left = max(1.0, (self.plan.seconds - now) / ((SHORTEST + LONGEST) / 2))
        # A few more than asked for: a victim may happen to be dead already.
        missing = 1.1 * self.plan.kills + 2 - self.kills if self.plan.kills else 0.0
        standing = [p for p in range(self.plan.peers) if p != STEADY and self.up_from[p] <= now]
        if standing and self.chance.random() < max(KILL_SHARE, missing / left):
            return self._kill(now, self.chance.choice(standing))
        kind = self.chance.choices(list(SHARES), list(SHARES.values()))[0]
        return self._other(now, kind)

    def _kill(self, now: float, victim: int) -> Action:
        after = self.chance.choices(list(AFTERS), list(AFTERS.values()))[0]
        down = 0.0 if self.chance.random() < 0.3 else min(8.0, self.chance.expovariate(1 / 1.5))
        amount = float(self.chance.randint(1, 400))
        self.kills += 1
        self.up_from[victim] = now + down + self.chance.uniform(0.3, 2.5)
        return Action(now, Kind.KILL, (victim,), (), down, after, amount)

    def _other(self, now: float, kind: Kind) -> Action:
        chance, plan = self.chance, self.plan
        peer, relay = (chance.randrange(plan.peers),), (chance.randrange(plan.relays),)
        match kind:
            case Kind.KILL_RELAY:
                dead = tuple(range(plan.relays)) if chance.random() < 0.25 else relay
                return Action(now, kind, (), dead, chance.uniform(0, 5))
            case Kind.STOP:
                peers, relays = (peer, ()) if chance.random() < 0.93 else ((), relay)
                return Action(now, kind, peers, relays, min(20.0, chance.expovariate(1 / 2.0)))
            case Kind.PART:
                return self._partition(now)
            case Kind.CUT:
                return Action(now, kind, peer, relay)
            case Kind.SLOW:
                return Action(now, kind, peer, relay, chance.uniform(1, 10), "", chance.uniform(0.01, 0.4))
            case Kind.NARROW:
                return Action(now, kind, peer, (), chance.uniform(1, 10), "", chance.uniform(0.005, 0.05))
            case Kind.CORRUPT:
                return Action(now, kind, peer, relay, 0, "", chance.randint(1, 4))
            case _:
                return Action(now, kind, (), relay, 0, chance.choice(list(Frames)), chance.randint(1, 30))

    def _partition(self, now: float) -> Action:
        """Some peers lose some relays: for 2 to 60 seconds, but no longer than a quarter of the run."""
        chance, plan = self.chance, self.plan
        group = tuple(sorted(chance.sample(range(plan.peers), chance.randint(1, plan.peers // 2))))
        relays = tuple(range(plan.relays))
        if chance.random() < 0.5:
            relays = (chance.randrange(plan.relays),)
        longest = min(60.0, max(2.0, plan.seconds / 4))
        how = chance.choice(("held", "closed", "unplugged"))
        return Action(now, Kind.PART, group, relays, 2.0 * (longest / 2.0) ** chance.random(), how)
