"""Scores on validation rows while a run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from shared_seed.score import Score
from shared_seed.text_task import Feature, TextTask


@dataclass(frozen=True)
class Validation:
    """What to score and when; never, where there are no rows or no interval.

    Args:
        task: scores.
        model: as it stands whenever it is asked for.
        features: the validation rows.
        bf16: whether to evaluate in bf16 autocast.
        every: rounds between two scores.
    """

    task: TextTask
    model: nn.Module
    features: Sequence[Feature]
    bf16: bool
    every: int | None

    def due(self, round_: int) -> bool:
        """Whether to score after a round, counted from 0."""
        return self.every is not None and bool(self.features) and (round_ + 1) % self.every == 0

    def score(self) -> Score:
        """The model's score now, on the same rows each time."""
        return self.task.evaluate(self.model, self.features, self.bf16)
