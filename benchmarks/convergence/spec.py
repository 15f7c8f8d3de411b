"""What one run of the lab is: a line that names it, so that a lab that was stopped goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from shared_seed.rate import PROMISE
from shared_seed.task import COOLING, cooled

MethodName = Literal["ours", "mezo", "adamw"]
ROWS = 16
"""Rows that one forward pass is counted for, whatever the batch."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One run.

    Args:
        model: of :data:`convergence.bench.MODELS`.
        corpus: of :data:`convergence.corpora.CORPORA`.
        lora: train an adapter instead of all parameters.
        method: whose steps are made.
        rate: learning rate; None has it found.
        promise: nats that the found rate promises.
        follow: the promise follows what is seen; without it, it stays as it is.
        rows: what rows of a batch have in common is seen too.
        centred: what one side adds to projected gradients is taken off, and decides how far steps go.
        points: where it is tested, its start not counted.
        passes: forward passes of 16 rows in all, for each peer; a backward pass counts as two.
        batch: rows a probe.
        directions: that a probe takes on its rows: one is two-sided, more have the loss at the weights in common;
            for ``ours``, as most of what follows.
        peers: that take steps side by side, each with its own rows.
        schedule: linear falls to 0.
        epsilon: distance of a probe's points.
        dense: dense signs for all parameters instead of rank-1 ones.
        only: shell patterns of the parameters that are trained, with bars between them.
        temperature: that labels' logits are divided by in training; the promise goes down with it.
        cools: the temperature falls to 1.
        cooling: steps in which it does, or all of fewer; None is the whole run.
        plans: a step's promise goes by how many are to come; otherwise it is half of what is best for one.
        coefficient: what a probe publishes: one byte, its sign, or a number as it is.
        behind: rounds that others' messages come late.
        even: each batch has its share of each label.
        precision: that forward passes compute in while training; weights and tests are fp32.
        most_tokens: of a row, prompt included; longer texts are left out.
        train_rows: to train on at most.
        test_rows: to test on at most.
        seed: of directions, batches, and whatever of the model is fresh.
    """

    model: str
    corpus: str
    method: MethodName = "ours"
    lora: bool = False
    rate: float | None = None
    promise: float = PROMISE
    follow: bool = True
    rows: bool = True
    centred: bool = True
    points: int = 4
    passes: int = 600
    batch: int = 16
    directions: int = 4
    peers: int = 1
    schedule: Literal["linear", "constant"] = "linear"
    epsilon: float = 2.0**-8
    dense: bool = False
    only: str = "*"
    temperature: float = 1.0
    cools: bool = False
    cooling: int | None = COOLING
    plans: bool = True
    coefficient: Literal["byte", "float", "sign"] = "byte"
    behind: int = 0
    even: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    most_tokens: int = 24
    train_rows: int | None = None
    test_rows: int = 250
    seed: int = 0

    @property
    def steps(self) -> int:
        """Rounds that the passes are enough for."""
        return int(self.passes * ROWS / (self.batch * self.passes_a_step))

    @property
    def passes_a_step(self) -> int:
        """Forward passes of the batch that a step of a peer takes."""
        return {"ours": 1 + self.directions, "mezo": 2, "adamw": 3}[self.method]

    @property
    def key(self) -> str:
        """The same for the same run."""
        return json.dumps(asdict(self), sort_keys=True)

    def factor(self, step: int) -> float:
        """What the schedule multiplies a step's learning rate with."""
        return 1 - step / self.steps if self.schedule == "linear" else 1.0

    def temperature_at(self, step: int) -> float:
        """Of the loss that a step trains on."""
        if not self.cools:
            return self.temperature
        return cooled(self.temperature, step, min(self.steps, self.cooling or self.steps))


@dataclass(frozen=True)
class Point:
    """A run after forward passes of 16 rows a peer, seconds of a processor in training, bytes a peer sent."""

    passes: float
    seconds: float
    sent: int
    loss: float
    accuracy: float
    auc: float | None
    median_accuracy: float | None
    rate: float
    """Mean learning rate of the probes since the last point."""
