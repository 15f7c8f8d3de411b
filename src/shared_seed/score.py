"""How well a model does on a test, and when it is tested."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_FIGURES = (
    ("accuracy", "accuracy", "{:.1%}"),
    ("AUC", "auc", "{:.3f}"),
    ("accuracy at the median threshold", "median_accuracy", "{:.1%}"),
    ("exact match", "exact_match", "{:.1%}"),
    ("F1", "f1", "{:.1%}"),
    ("loss", "loss", "{:.4f}"),
)
"""What people read: name, attribute, format."""


@dataclass(frozen=True)
class Score:
    """How well a model does on the test: all on the same examples; None for what a task does not have.

    ``accuracy`` picks the likelier word or text; with two labels ``auc`` is the area under the ROC curve and
    ``median_accuracy`` the accuracy at the median threshold, which a mere shift of bias cannot lift. ``loss`` is
    what is trained on: of label words a mean over rows, of texts a mean over tokens. ``f1`` is the task's: over
    labels, or of an answer's words; ``exact_match`` is the share of generated answers that are right.
    """

    accuracy: float | None
    loss: float
    rows: int
    auc: float | None = None
    median_accuracy: float | None = None
    exact_match: float | None = None
    f1: float | None = None

    def figures(self) -> dict[str, tuple[float, str]]:
        """Name -> value and its format, of all that the task has."""
        found = ((name, getattr(self, attribute), form) for name, attribute, form in _FIGURES)
        return {name: (value, form) for name, value, form in found if value is not None}

    def __str__(self) -> str:
        return ", ".join(f"{name} {form.format(value)}" for name, (value, form) in self.figures().items())

    @property
    def main(self) -> tuple[str, float]:
        """The figure that stands for all, and its name: accuracy, else F1, else the loss."""
        for name, value in (("accuracy", self.accuracy), ("f1", self.f1)):
            if value is not None:
                return name, value
        return "loss", self.loss


def normalised(answer: str) -> str:
    """An answer as SQuAD compares it: lower case, no punctuation, no articles, single spaces.

    Rajpurkar et al. 2016 (arXiv 1606.05250), section 6.1, and the evaluation script of its data set.
    """
    plain = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def exact_match(given: str, right: Sequence[str]) -> float:
    """1 if an answer is one of those that are right, as SQuAD compares them, else 0."""
    return float(normalised(given) in {normalised(answer) for answer in right})


def overlap(given: str, right: Sequence[str]) -> float:
    """F1 of an answer's words with those of the most similar right one (Rajpurkar et al. 2016, section 6.1)."""
    return max(_overlap(normalised(given).split(), normalised(answer).split()) for answer in right)


def _overlap(given: list[str], right: list[str]) -> float:
    """2 x common / all words; 1 where both are empty."""
    if not given and not right:
        return 1.0
    return 2 * (Counter(given) & Counter(right)).total() / (len(given) + len(right))


def label_f1(chosen: Sequence[int], right: Sequence[int], label: int) -> float:
    """F1 of one label: 2 TP / (2 TP + FP + FN); 0 where nobody chose it and it was never right."""
    both = sum(c == label and r == label for c, r in zip(chosen, right, strict=True))
    either = sum(c == label for c in chosen) + sum(r == label for r in right)
    return 2 * both / either if either else 0.0


def macro_f1(chosen: Sequence[int], right: Sequence[int]) -> float:
    """The mean of F1 over all labels that were chosen or right."""
    labels = sorted({*chosen, *right})
    return sum(label_f1(chosen, right, label) for label in labels) / len(labels)
