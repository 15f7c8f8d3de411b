"""How long does it take to apply a round's gradients? Beside a copy of the weights, and one pass a gradient.

    python benchmarks/update.py                        # about two minutes
    python benchmarks/update.py --device cuda --model opt-1.3b llama-3.2-1b

There was no GPU to run the last one on. The copy is one pass over the trainable weights into memory that is there
already. "One by one" is one ``update.apply`` a gradient; "a pass each" is the way of MeZO and DeComFL in plain
torch, a seeded ``normal_`` and an ``add_`` for every parameter. Their cost grows with the number of gradients
exactly, so both are timed for one gradient and multiplied. On another device than the CPU the resulting bits are
compared with the CPU's.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common import mezo, options, ours, timing
from common.options import Options
from common.target import Target
from common.timing import Times
from common.workloads import Step, build
from shared_seed import update
from shared_seed.weights import Weights

PEERS = (8, 64, 512)
"""Gradients in one update."""

MOST = {8: 2.0, 64: 4.0, 512: 25.0}
"""By gradients: how many copies of the weights an update may cost."""

FASTER = 30.0
"""How many times faster than one by one an update with 64 gradients should be."""


@dataclass(frozen=True)
class Row:
    """An update with ``gradients`` gradients: its seconds, in copies, and times faster than each other way."""

    model: str
    parameters: int
    gradients: int
    seconds: float
    copies: float
    than_one_by_one: float
    than_a_pass_each: float


def together(weights: Weights, count: int) -> Step:
    """All gradients in one call, there and back in turn, so that the weights stay where they are."""
    samples, steps = ours.gradients(count)
    signs = itertools.cycle((1, -1))
    return lambda: update.apply(weights, samples, steps * next(signs))


def copied(weights: Weights) -> Step:
    """One pass over the weights into other memory."""
    pairs = [(torch.empty_like(t.values), t.values) for t in weights]

    def run() -> None:
        for target, source in pairs:
            target.copy_(source)

    return run


def passed(model: Any) -> Step:
    """One gradient in plain torch."""
    seeds = itertools.count()
    return lambda: mezo.add(mezo.draw(model, next(seeds)), 1e-9)


def contest(model: Any, peers: Sequence[int], rounds: int, device: str) -> tuple[Weights, Times]:
    """Time updates with each number of gradients beside the other ways."""
    weights = ours.weights_of(model)
    contestants = {f"ours {count}": together(weights, count) for count in peers}
    contestants |= {"copy": copied(weights), "one": together(weights, 1), "pass": passed(copy.deepcopy(model))}
    return weights, timing.contest(contestants, rounds, device=device)


def check_bits(name: str, device: str) -> None:
    """Apply the same gradients on a device and on the CPU; the bits must be equal.

    Raises:
        RuntimeError: they are not.
    """
    samples, steps = ours.gradients(100)
    digests = []
    for where in ("cpu", device):
        weights = ours.weights_of(build(name, where))
        update.apply(weights, samples, steps)
        digests.append(weights.digest())
    if digests[0] != digests[1]:
        raise RuntimeError(f"{name} has other bits on {device} than on the CPU after the same gradients")
    print(f"{name:20} bits on {device} as on the CPU", flush=True)


def measure(choice: Options, peers: Sequence[int] = PEERS) -> list[Row]:
    """Measure every model; print a line for each number of gradients."""
    rows = []
    for name in choice.models:
        if choice.device != "cpu":
            check_bits(name, choice.device)
        weights, times = contest(build(name, choice.device), peers, 3 if choice.quick else 9, choice.device)
        for count in peers:
            label = f"ours {count}"
            row = Row(
                name,
                weights.count,
                count,
                times.median(label),
                times.ratio(label, "copy"),
                count * times.ratio("one", label),
                count * times.ratio("pass", label),
            )
            print(
                f"{name:20} {count:5d} gradients {row.seconds:8.3f} s {row.copies:7.2f} copies; times faster than"
                f" one by one {row.than_one_by_one:6.1f}, than a pass each {row.than_a_pass_each:6.1f}",
                flush=True,
            )
            rows.append(row)
    return rows


def targets(rows: Sequence[Any]) -> list[Target]:
    """Updates against copies, and against one pass a gradient."""
    out = []
    for row in rows:
        if row.gradients in MOST:
            what = f"update with {row.gradients} gradients to one copy of the weights, {row.model}"
            out.append(Target(what, MOST[row.gradients], row.copies))
        if row.gradients == 64:
            what = f"update with 64 gradients, faster than one by one, {row.model}"
            out.append(Target(what, FASTER, row.than_one_by_one, at_least=True))
    return out


if __name__ == "__main__":
    options.main(str(__doc__), measure, targets)
