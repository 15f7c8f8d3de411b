"""What tasks have in common that train on the tokens of a text behind a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shared_seed.text_task import IGNORED, Batch, Feature, Progress, TextTask, at_rest, on_device_of


class Continuations(TextTask):
    """A task whose features have ``targets`` for their last tokens, with :data:`IGNORED` among them."""

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Rows padded on the left, so that all targets are at the end.

        Returns:
            As :meth:`padded`, with ``labels`` int64 [rows, targets].
        """
        most = max(len(feature["targets"]) for feature in features)
        batch = self.padded([feature["input_ids"] for feature in features], most + 1)
        labels = torch.full((len(features), most), IGNORED)
        for i, feature in enumerate(features):
            labels[i, most - len(feature["targets"]) :] = torch.tensor(feature["targets"])
        return batch | {"labels": labels}

    def loss(self, outputs: Any, labels: Tensor, *, even: bool = True, **_: Any) -> Tensor:
        """Mean cross-entropy over the batch's targets; fits ``Trainer(compute_loss_func=…)``."""
        return token_losses(outputs, labels).sum() / (labels != IGNORED).sum()

    def token_sums(
        self, model: nn.Module, features: Sequence[Feature], bf16: bool, progress: Progress, rows: int
    ) -> list[tuple[float, int]]:
        """For each feature the sum of its targets' losses, and how many targets it has."""
        order = sorted(range(len(features)), key=lambda i: len(features[i]["input_ids"]))
        found: list[tuple[float, int]] = [(0.0, 0)] * len(features)
        with at_rest(model, bf16):
            for start in range(0, len(order), rows):
                chosen = order[start : start + rows]
                batch = on_device_of(model, self.collate([features[i] for i in chosen]))
                labels = batch.pop("labels")
                sums = token_losses(model(**batch), labels).sum(1).tolist()
                counts = (labels != IGNORED).sum(1).tolist()
                for i, total, count in zip(chosen, sums, counts, strict=True):
                    found[i] = (total, count)
                progress(min(len(order), start + rows))
        return found


def token_losses(outputs: Any, labels: Tensor) -> Tensor:
    """float32 [rows, targets]: cross-entropy of each target with the logits before it, 0 where there is none."""
    kept = labels.shape[1]
    logits = outputs.logits[:, -kept - 1 : -1].float()
    flat = nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view(labels.shape)


def mean_loss(sums: Sequence[tuple[float, int]]) -> float:
    """The mean over all targets of what :meth:`Continuations.token_sums` gives."""
    return sum(total for total, _ in sums) / sum(count for _, count in sums)
