"""Batches that the run assigns, and the loss of one, for the peer that publishes it and for whoever audits it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from shared_seed.assignment import rows_of
from shared_seed.classification import Batch, Classification, Feature
from shared_seed.messages import Stream


@dataclass(frozen=True)
class AssignedBatches:
    """All rows that a run trains on, and how many a probe takes of them.

    Args:
        task: makes batches of rows.
        features: all rows, in the order that the recipe's split gives them.
        size: rows in a batch.
        seed: of the data.
    """

    task: Classification
    features: Sequence[Feature]
    size: int
    seed: int

    def batch(self, stream: Stream, round_: int, probe: int) -> Batch:
        """The batch of one probe of a stream's message for a round, on the CPU."""
        chosen = rows_of(self.seed, stream.to_bytes(), round_, probe, len(self.features), self.size)
        return self.task.collate([self.features[row] for row in chosen])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The task's loss on a batch, without dropout."""
        moved = on_device_of(model, batch)
        with without_dropout(model):
            return nn.functional.cross_entropy(self.task.logits(model, moved), moved["labels"])


def on_device_of(model: nn.Module, batch: Batch) -> Batch:
    """The batch where the model's first parameter is."""
    device = next(model.parameters()).device
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each of its modules is in its own mode again.

    Dropout masks come from a generator of the peer's own, so that nobody else could take the probe again.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
