"""How well a model does on a test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """How well a model does on the test: all on the same examples.

    ``accuracy`` picks the likelier word; with two labels ``auc`` is the area under the ROC curve and
    ``median_accuracy`` the accuracy at the median threshold, which a mere shift of bias cannot lift.
    """

    accuracy: float
    loss: float
    rows: int
    auc: float | None = None
    median_accuracy: float | None = None
