"""How long does it take a late peer to catch up? A whole log at once, beside its gradients one by one.

    python benchmarks/replay.py                        # 10,000 gradients; minutes
    python benchmarks/replay.py --quick
    python benchmarks/replay.py --device cuda --model opt-1.3b

There was no GPU to run the last one on. The log has four peers' messages with one gradient each, and
``replay.rebuild`` does what joining and ``shared-seed replay`` do: put the base model on its grids, compare it
with the manifest, apply. "One by one" is one ``update.apply`` a gradient, "DeComFL" one pass of regenerated normal
noise a gradient in plain torch; both cost the same for every gradient, so some are timed and the rest is
multiplication.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from common import decomfl, options, ours, timing
from common.options import Options
from common.target import Target
from common.workloads import Step, build
from shared_seed import codec, replay, update
from shared_seed.log import Contents
from shared_seed.manifest import Manifest
from shared_seed.messages import Message, Stream, as_float32
from shared_seed.signed import Signed

GRADIENTS = 10_000

PEERS = 4

FASTER = 50.0
"""How many times faster than one by one a replay should be."""

SOME = 10
"""Gradients that are timed one by one."""


@dataclass(frozen=True)
class Row:
    """Seconds to replay a log, and how many times faster than the other ways.

    ``rate`` is gradients per second for a model of 100 million parameters; ``setup`` is the seconds that a replay
    of one gradient takes, which ``rate`` leaves out.
    """

    model: str
    parameters: int
    gradients: int
    seconds: float
    setup: float
    rate: float
    than_one_by_one: float
    than_decomfl: float


def log(manifest: Manifest, count: int, seed: int = 0) -> Contents:
    """A log of ``count`` messages of one gradient each, in turn from :data:`PEERS` peers."""
    draw = np.random.default_rng(seed)
    streams = [Stream(bytes([peer]) * 12) for peer in range(PEERS)]
    rate = as_float32(ours.LEARNING_RATE)
    messages = [
        Message(streams[i % PEERS], i // PEERS, i // PEERS, rate, bytes([codec.encode(10 * draw.normal())]))
        for i in range(count)
    ]
    return Contents(manifest, [Signed(message) for message in messages])


class Base:
    """A base model that a log can be replayed on again and again."""

    def __init__(self, name: str, device: str) -> None:
        self.model = build(name, device)
        session = ours.open_session(self.model)
        self.manifest = session.manifest
        session.close()
        self._first = {key: values.clone() for key, values in self.model.state_dict().items()}

    def seconds(self, count: int) -> float:
        """How long a replay of ``count`` gradients takes; the model is the base again afterwards."""
        contents = log(self.manifest, count)
        taken = timing.seconds(lambda: replay.rebuild(self.model, contents), self.model.device.type)
        self.model.load_state_dict(self._first)
        return taken

    def singly(self) -> Step:
        """One gradient by a call of its own."""
        weights = ours.weights_of(self.model)
        contents = log(self.manifest, PEERS * SOME)
        samples, steps = update.steps_of(contents.messages, self.manifest.run_bytes, self.manifest.scale_exponent)
        turns = itertools.cycle(range(len(samples)))

        def run() -> None:
            turn = next(turns)
            update.apply(weights, samples[turn : turn + 1], steps[turn : turn + 1])

        return run


def regenerated(model: Any) -> Step:
    """One gradient in DeComFL's way."""
    seeds = itertools.count()
    return lambda: decomfl.rebuild(model, [(next(seeds), 1.0)])


def measure(choice: Options, gradients: int = GRADIENTS) -> list[Row]:
    """Measure every model; print a line each."""
    rows = []
    for name in choice.models:
        base = Base(name, choice.device)
        count = gradients // 10 if choice.quick else gradients
        base.seconds(1)
        setup = median(base.seconds(1) for _ in range(3))
        taken = base.seconds(count)
        single = {"one": base.singly(), "decomfl": regenerated(copy.deepcopy(base.model))}
        times = timing.contest(single, SOME, device=choice.device)
        parameters = sum(t.parameter.numel() for t in ours.weights_of(base.model))
        # A fast replay of a short log is all setup, and noise could make the difference zero.
        rate = (count - 1) / max(taken - setup, 1e-6) * parameters / 1e8
        one, other = (count * times.median(way) / taken for way in ("one", "decomfl"))
        row = Row(name, parameters, count, taken, setup, rate, one, other)
        print(
            f"{name:20} {count} gradients in {taken:.1f} s (one: {setup:.1f} s), {rate:.0f} gradients/s for 100 M "
            f"parameters; times faster than one by one {one:.1f}, than DeComFL's way {other:.1f}",
            flush=True,
        )
        rows.append(row)
    return rows


def targets(rows: Sequence[Any]) -> list[Target]:
    """Replays against one by one."""
    return [
        Target(
            f"replay of {row.gradients} gradients, faster than one by one, {row.model}",
            FASTER,
            row.than_one_by_one,
            at_least=True,
        )
        for row in rows
    ]


if __name__ == "__main__":
    options.main(str(__doc__), measure, targets)
