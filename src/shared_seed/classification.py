"""Classification by label words: batches, loss and evaluation for any causal language model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared_seed.data import Example
from shared_seed.errors import RecipeError
from shared_seed.recipe import Task
from shared_seed.score import Score

Feature = dict[str, Any]
Batch = dict[str, Any]


class Classification:
    """One task with one tokenizer, for one kind of model."""

    def __init__(self, task: Task, tokenizer: Any, model: nn.Module) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.words = [self._first_token(word) for word in task.words.values()]
        if len(set(self.words)) < len(self.words):
            raise RecipeError(
                f"label words {', '.join(task.words.values())} do not differ in their first token; "
                "expected words that do"
            )
        self._padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._accepts = set(inspect.signature(_innermost(model).forward).parameters)

    def _first_token(self, word: str) -> int:
        tokens = self.tokenizer(" " + word, add_special_tokens=False).input_ids
        if not tokens:
            raise RecipeError(f"label word {word!r} is no token of the model; expected a word that it can say")
        return int(tokens[0])

    def encode(self, examples: Sequence[Example]) -> list[Feature]:
        """Examples as ``input_ids``, a prompt that is too long without its beginning, and ``label``."""
        if not examples:
            return []
        prompts = [example.prompt for example in examples]
        tokens = self.tokenizer(prompts, add_special_tokens=False).input_ids
        most = self.task.most_tokens
        return [{"input_ids": t[-most:], "label": e.label} for t, e in zip(tokens, examples, strict=True)]

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Prompts padded on the left, so that the last position is where the word comes next.

        Returns:
            ``input_ids`` and ``attention_mask`` int64 [rows, tokens], ``labels`` int64 [rows], and, where
            the model takes them, ``position_ids``, ``logits_to_keep`` and ``use_cache``.
        """
        rows = [feature["input_ids"] for feature in features]
        length = max(map(len, rows))
        ids = torch.full((len(rows), length), self._padding)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, length - len(row) :] = torch.tensor(row)
            mask[i, length - len(row) :] = 1
        batch: Batch = {"input_ids": ids, "attention_mask": mask}
        extras = {
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            "logits_to_keep": 1,
            "use_cache": False,
        }
        batch |= {name: value for name, value in extras.items() if name in self._accepts}
        batch["labels"] = torch.tensor([feature["label"] for feature in features])
        return batch

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """float32 [rows, labels]: the logit of each label's word."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return self.select(model(**inputs))

    def select(self, outputs: Any) -> Tensor:
        """The label words' logits in a model's outputs."""
        logits: Tensor = outputs.logits
        return logits[:, -1, self.words].float()

    def loss(self, outputs: Any, labels: Tensor, **_: Any) -> Tensor:
        """Mean cross-entropy among the label words; fits ``Trainer(compute_loss_func=…)``."""
        return nn.functional.cross_entropy(self.select(outputs), labels)

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        features: Sequence[Feature],
        bf16: bool,
        progress: Callable[[int], None] = lambda done: None,
        rows: int = 32,
    ) -> Score:
        """Score a model on features, the longest batches last; its training mode is left as it was."""
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        device = next(model.parameters()).device
        scores: list[Tensor] = []
        ordered = sorted(features, key=lambda f: len(f["input_ids"]))
        labels = torch.tensor([f["label"] for f in ordered])
        try:
            for start in range(0, len(ordered), rows):
                batch = self.collate(ordered[start : start + rows])
                moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
                with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
                    scores.append(self.logits(model, moved).cpu())
                progress(min(len(ordered), start + rows))
        finally:
            for module, mode in modes:
                module.training = mode
        return score(torch.cat(scores), labels)


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


def _innermost(model: nn.Module) -> nn.Module:
    """The model inside a PEFT wrapper."""
    inner = getattr(model, "get_base_model", None)
    return inner() if callable(inner) else model
