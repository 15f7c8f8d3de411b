"""Batches that the run assigns, and the loss of one, for the peer that publishes it and for whoever audits it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from shared_seed.assignment import rows_of
from shared_seed.messages import Stream
from shared_seed.text_task import Batch, Feature, TextTask, on_device_of, without_dropout


@dataclass(frozen=True)
class AssignedBatches:
    """All rows that a run trains on, and how many a probe takes of them.

    Args:
        task: makes batches of rows.
        features: all rows, in the order that the recipe's split gives them.
        size: rows in a batch.
        seed: of the data.
    """

    task: TextTask
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
            return self.task.batch_loss(model, moved, even=False)
