"""A round's gradients as steps that a few hostile peers cannot steer far: clipped, or trimmed.

A *coefficient* is a message's learning rate times a decoded code, exact in float64: how far the plain sum would go
against a direction. Learning rates are inside, since a peer chooses its own. Both rules count peers, not streams,
messages or codes, of which a peer could send many.

``clip`` scales a peer's coefficients in a round down where they add up, in magnitude, to more than ``factor``
times the median peer's; where messages have one code each, this clips the coefficient.

``trimmed`` has the peers share directions: all samples of one index in one round have the same. The step is the
number of peers times the trimmed mean of their coefficients (Yin, Chen, Ramchandran, Bartlett 2018, "Byzantine-
robust distributed learning: towards optimal statistical rates", definition 2): as long as the sum of alike ones.

So a step depends on all messages of its round, and on nothing else: :func:`steps` is a function of their set.
Numbers are added up by ``math.fsum``, which rounds once, and otherwise taken in the order of streams and numbers,
so that machines agree on every bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median_low
from typing import NamedTuple

from shared_seed import codec
from shared_seed.manifest import Aggregation
from shared_seed.messages import Message
from shared_seed.noise import Sample

Steps = dict[Sample, float]
"""How far to go along each direction."""


class Move(NamedTuple):
    """A step to make (``sign`` 1) or to take back (-1)."""

    sample: Sample
    step: float
    sign: int


class _Vote(NamedTuple):
    """What one peer says of one direction: a coefficient, NaN to abstain."""

    peer: bytes
    sample: Sample
    coefficient: float


def steps(rule: Aggregation, messages: Iterable[Message], run: bytes, scale_exponent: int) -> Steps:
    """What one round's messages come to, by ``clip`` or ``trimmed``; directions that nothing moves are left out.

    Args:
        rule: of the manifest.
        messages: all of one round, in any order; one that is there twice counts once.
        run: the 16 bytes that key the run's noise.
        scale_exponent: of the codes.
    """
    ordered = sorted(set(messages), key=lambda message: (message.stream, message.number))
    votes = [
        _Vote(message.stream.peer, sample, message.learning_rate * codec.decode(code, scale_exponent))
        for message in ordered
        for sample, code in message.samples(run, rule.shared)
    ]
    found = _trimmed(votes, rule.trim) if rule.kind == "trimmed" else _clipped(votes, rule.factor)
    return {sample: step for sample, step in found.items() if step != 0}


def _clipped(votes: list[_Vote], factor: float) -> Steps:
    """Each peer's coefficients, scaled down to ``factor`` times the median peer's total where they exceed it."""
    votes = [vote for vote in votes if vote.coefficient != 0 and not math.isnan(vote.coefficient)]
    magnitudes: dict[bytes, list[float]] = {}
    for vote in votes:
        magnitudes.setdefault(vote.peer, []).append(abs(vote.coefficient))
    totals = {peer: math.fsum(values) for peer, values in magnitudes.items()}
    # The lower of two medians: of two peers, the louder one must not set its own limit.
    limit = factor * median_low(totals.values()) if totals else 0.0
    out: Steps = {}
    for vote in votes:
        scale = min(1.0, limit / totals[vote.peer])
        out[vote.sample] = out.get(vote.sample, 0.0) - vote.coefficient * scale
    return out


def _trimmed(votes: list[_Vote], trim: float) -> Steps:
    """Along each shared direction, the number of peers times the trimmed mean of what they say of it.

    A peer's first message of the round counts, and 0 for a direction that the peer says nothing of: otherwise
    nobody would outvote the hostile along directions that they alone probe.
    """
    said: dict[Sample, dict[bytes, float]] = {}
    for vote in votes:
        said.setdefault(vote.sample, {}).setdefault(vote.peer, vote.coefficient)
    peers = {vote.peer for vote in votes}
    out: Steps = {}
    for sample, by_peer in said.items():
        values = sorted(value for value in (by_peer.get(peer, 0.0) for peer in peers) if not math.isnan(value))
        if values:
            out[sample] = -len(values) * _trimmed_mean(values, trim)
    return out


def _trimmed_mean(values: list[float], trim: float) -> float:
    """The mean of sorted values without the share ``trim``, rounded up, at each end; one or two always stay."""
    cut = min(math.ceil(trim * len(values)), (len(values) - 1) // 2)
    kept = values[cut : len(values) - cut]
    return math.fsum(kept) / len(kept)


class Rounds:
    """The messages that weights contain, by round, and what it takes to put others in or to take some out."""

    def __init__(self, rule: Aggregation, run: bytes, scale_exponent: int) -> None:
        self._terms = rule, run, scale_exponent
        self._messages: dict[int, set[Message]] = {}

    def fresh(self, messages: Iterable[Message], sign: int) -> list[Message]:
        """Those that are not there yet, or with ``sign=-1`` those that are, each once."""
        nothing: set[Message] = set()
        return [
            message
            for message in dict.fromkeys(messages)
            if (message in self._messages.get(message.round, nothing)) == (sign < 0)
        ]

    def moves(self, fresh: Iterable[Message], sign: int) -> list[Move]:
        """From the steps as they are to those with (without, for ``sign=-1``) these messages."""
        rule, run, scale_exponent = self._terms
        out: list[Move] = []
        for number, arrived in _by_round(fresh).items():
            held = self._messages.get(number, set())
            changed = held | arrived if sign > 0 else held - arrived
            before, after = (steps(rule, some, run, scale_exponent) for some in (held, changed))
            out += [Move(sample, step, -1) for sample, step in before.items() if after.get(sample) != step]
            out += [Move(sample, step, 1) for sample, step in after.items() if before.get(sample) != step]
        return out

    def note(self, fresh: Iterable[Message], sign: int) -> None:
        """The weights now contain these messages, or no longer do."""
        for number, arrived in _by_round(fresh).items():
            held = self._messages.setdefault(number, set())
            if sign > 0:
                held |= arrived
            else:
                held -= arrived
            if not held:
                del self._messages[number]


def _by_round(messages: Iterable[Message]) -> dict[int, set[Message]]:
    out: dict[int, set[Message]] = {}
    for message in messages:
        out.setdefault(message.round, set()).add(message)
    return out
