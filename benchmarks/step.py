"""How long is a training step? Ours beside plain inference, other forward-only methods, and backprop.

    python benchmarks/step.py                          # SmolLM2-135M and the shape of OPT-125m, about five minutes
    python benchmarks/step.py --quick --dtype fp32
    python benchmarks/step.py --device cuda --model opt-1.3b llama-3.2-1b --dtype bf16

There was no GPU to run the last one on. One probe and one update of one peer, alone. Plain inference is two
forwards of the same model and batch. In bf16 the weights stay fp32 and autocast computes; both forwards of the
plain pair are inside *one* autocast, so that weights are cast once for the pair, and so are the two of our probe:
the stricter baseline. The pair with an autocast each is shown too. Methods that write the weights between their
forwards cannot keep casts; MeZO is also shown with its weights in bf16, near what its authors do. Models do not
drop out, so that all compute the same. Methods that no target is about run on the first model only, and in one
round of five.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common import backprop, decomfl, lozo, mezo, options, ours, plain, timing
from common.options import Options
from common.target import Target
from common.workloads import Step, Workload, adapt, batch, build

BATCHES = ((16, 32), (16, 128))
"""Rows and tokens a row."""

PLAIN, OURS, MEZO = "plain pair", "ours", "MeZO"

MOST = {32: 1.15, 128: 1.10}
"""By tokens a row: how many times as long as the plain pair our step may be."""

FASTER = {"fp32": 3.0, "bf16": 8.0}
"""How many times faster than MeZO's our step should be."""


@dataclass(frozen=True)
class Row:
    """One method on one workload: median and least seconds, and how many times as long as the plain pair."""

    model: str
    precision: str
    rows: int
    tokens: int
    method: str
    seconds: float
    least: float
    to_plain: float
    ours_faster: float


class Contestants:
    """One model of each kind, so that nobody trains on what another has left behind.

    Plain inference is measured on our model: the same memory, page for page.
    """

    def __init__(self, name: str, device: str) -> None:
        self.model = build(name, device)
        self.written = copy.deepcopy(self.model)
        self.halved = copy.deepcopy(self.model).to(torch.bfloat16)
        self.trained = copy.deepcopy(self.model)
        self.adapted = adapt(copy.deepcopy(self.model))
        self.optimizers = {m: backprop.adamw(m) for m in (self.trained, self.adapted)}
        self.session = ours.open_session(self.model)

    def methods(self, work: Workload, all_: bool) -> dict[str, Step]:
        """What each method does in a step on a batch; only those that targets are about unless all are wanted."""
        out = {
            PLAIN: plain.pair(work),
            OURS: ours.step(work, self.session),
            MEZO: mezo.step(work.on(self.written)),
        }
        if not all_:
            return out
        out |= {
            "LOZO": lozo.step(work.on(self.written)),
            "DeComFL": decomfl.step(work.on(self.written)),
            "AdamW": self._backprop(work.on(self.trained)),
            "LoRA AdamW": self._backprop(work.on(self.adapted)),
        }
        if work.precision == "bf16":
            out["plain, apart"] = plain.apart(work)
            out["MeZO, bf16 weights"] = mezo.step(work.on(self.halved))
        return out

    def _backprop(self, work: Workload) -> Step:
        return backprop.step(work, self.optimizers[work.model])

    def close(self) -> None:
        """End our session."""
        self.session.close()


def compare(name: str, work: Workload, methods: Mapping[str, Step], rounds: int, warm: bool) -> list[Row]:
    """Measure methods on one workload; print a line each."""
    every = {m: {PLAIN: 1, OURS: 1, MEZO: 2}.get(m, 5) for m in methods}
    known = [m for m in methods if warm and every[m] > 1]
    times = timing.contest(methods, rounds, every, known, work.ids.device.type)
    rows = []
    for method in methods:
        row = Row(
            name,
            work.precision,
            work.ids.shape[0],
            work.ids.shape[1],
            method,
            times.median(method),
            times.least(method),
            times.ratio(method, PLAIN),
            times.ratio(method, OURS),
        )
        print(
            f"{name:20} {row.precision} {row.rows:3d} x {row.tokens:<4d} {method:20} {row.seconds:8.3f} s"
            f" {row.to_plain:7.2f} of plain (least {times.least_ratio(method, PLAIN):5.2f})"
            f" {row.ours_faster:7.2f} of ours",
            flush=True,
        )
        rows.append(row)
    return rows


def measure(choice: Options, batches: Sequence[tuple[int, int]] = BATCHES) -> list[Row]:
    """Measure every model, precision and batch."""
    rows: list[Row] = []
    for name in choice.models:
        contestants = Contestants(name, choice.device)
        for precision in choice.precisions:
            for index, (count, length) in enumerate(batches):
                work = Workload(contestants.model, batch(contestants.model, count, length), precision)
                methods = contestants.methods(work, name == choice.models[0])
                rows += compare(name, work, methods, 3 if choice.quick else 5, index > 0)
        contestants.close()
    return rows


def targets(rows: Sequence[Any]) -> list[Target]:
    """Our step against plain inference and against MeZO."""
    out = []
    for row in rows:
        where = f"{row.model}, {row.precision}, {row.rows} x {row.tokens}"
        if row.method == OURS and row.tokens in MOST:
            out.append(Target(f"step to two plain forwards, {where}", MOST[row.tokens], row.to_plain))
        if row.method == MEZO:
            limit = FASTER[row.precision]
            out.append(Target(f"faster than MeZO's step, {where}", limit, row.ours_faster, at_least=True))
    return out


if __name__ == "__main__":
    options.main(str(__doc__), measure, targets)
