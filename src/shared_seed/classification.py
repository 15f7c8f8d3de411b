"""Classification by label words: batches, loss and evaluation for any causal language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared_seed.errors import RecipeError
from shared_seed.examples import Dropped, Example
from shared_seed.score import Score, label_f1, macro_f1
from shared_seed.task import COOLING, ClassificationTask, cooled
from shared_seed.templates import Filled
from shared_seed.text_task import TOO_LONG, Batch, Feature, Progress, TextTask, at_rest, on_device_of


class Classification(TextTask):
    """One task with one tokenizer, for one kind of model."""

    def __init__(self, task: ClassificationTask, tokenizer: Any, model: nn.Module) -> None:
        super().__init__(tokenizer, model, task.most_tokens)
        self.task = task
        self.words = [self._first_token(word) for word in task.words.values()]
        if len(set(self.words)) < len(self.words):
            raise RecipeError(
                f"label words {', '.join(task.words.values())} do not differ in their first token; "
                "expected words that do"
            )

    def _first_token(self, word: str) -> int:
        tokens = self.continuation(" " + word)
        if not tokens:
            raise RecipeError(f"label word {word!r} is no token of the model; expected a word that it can say")
        return int(tokens[0])

    def encode(self, examples: Sequence[Example], dropped: Dropped | None = None) -> list[Feature]:
        """Examples as ``input_ids``, shortened where they are too long, and ``label``."""
        dropped = Counter() if dropped is None else dropped
        prompts = self.prompts([Filled(e.prompt, e.cut) for e in examples], [0] * len(examples))
        dropped[TOO_LONG] += prompts.count(None)
        labelled = zip(prompts, examples, strict=True)
        return [{"input_ids": ids, "label": example.label} for ids, example in labelled if ids is not None]

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Prompts padded on the left, so that the last position is where the word comes next.

        Returns:
            As :meth:`padded`, with ``labels`` int64 [rows].
        """
        batch = self.padded([feature["input_ids"] for feature in features], 1)
        return batch | {"labels": torch.tensor([feature["label"] for feature in features])}

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """float32 [rows, labels]: the logit of each label's word."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return self.select(model(**inputs))

    def select(self, outputs: Any) -> Tensor:
        """The label words' logits in a model's outputs."""
        logits: Tensor = outputs.logits
        return logits[:, -1, self.words].float()

    def loss(self, outputs: Any, labels: Tensor, *, even: bool = True, **_: Any) -> Tensor:
        """Mean cross-entropy among the label words, at the temperature; fits ``Trainer(compute_loss_func=…)``."""
        logits = self.select(outputs)
        losses, before = (
            nn.functional.cross_entropy(logits / self._temperature(number), labels, reduction="none")
            for number in (self.round, max(0, self.round - 1))
        )
        self.row_losses.note(losses, labels if even else None, before)
        return losses.mean()

    def _temperature(self, number: int) -> float:
        return cooled(self.task.temperature, number, min(self.rounds, COOLING))

    def evaluate(
        self,
        model: nn.Module,
        features: Sequence[Feature],
        bf16: bool,
        progress: Progress = lambda done: None,
        rows: int = 32,
    ) -> Score:
        """Score a model on features, the longest batches last; its training mode is left as it was."""
        scores: list[Tensor] = []
        ordered = sorted(features, key=lambda f: len(f["input_ids"]))
        labels = torch.tensor([f["label"] for f in ordered])
        with at_rest(model, bf16):
            for start in range(0, len(ordered), rows):
                batch = on_device_of(model, self.collate(ordered[start : start + rows]))
                scores.append(self.logits(model, batch).cpu())
                progress(min(len(ordered), start + rows))
        found = score(torch.cat(scores), labels)
        if self.task.f1 is None:
            return found
        chosen, right = torch.cat(scores).argmax(1).tolist(), labels.tolist()
        last = len(self.words) - 1
        f1 = macro_f1(chosen, right) if self.task.f1 == "macro" else label_f1(chosen, right, last)
        return replace(found, f1=f1)


def score(logits: Tensor, labels: Tensor) -> Score:
    """The figures for logits float32 [rows, labels] and labels int64 [rows]."""
    accuracy = float((logits.argmax(1) == labels).float().mean())
    loss = float(nn.functional.cross_entropy(logits, labels))
    if logits.shape[1] != 2:
        return Score(accuracy, loss, len(labels))
    margin = (logits[:, 1] - logits[:, 0]).numpy()
    truth = labels.numpy() == 1
    above = margin > np.median(margin)
    return Score(accuracy, loss, len(labels), area_under_curve(margin, truth), float((above == truth).mean()))


def area_under_curve(margin: Any, truth: Any) -> float | None:
    """The chance that a true row's margin is above a false one's, ties counting half; None without both.

    The Mann-Whitney form of the area under the ROC curve (Hanley and McNeil 1982).
    """
    positives, negatives = margin[truth], np.sort(margin[~truth])
    if len(positives) == 0 or len(negatives) == 0:
        return None
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(below.mean() / (2 * len(negatives)))
