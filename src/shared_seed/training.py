"""What a Trainer says of the training to come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from shared_seed.optimizer import Groups
from shared_seed.rows import RowLosses
from shared_seed.snapshot import Snapshot

MOST_ROUNDS = (1 << 32) - 1
"""Stands for training without an end."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training, as the Trainer's owner means it.

    Args:
        rounds: steps to make; a peer that joins takes the run's.
        title: what the manifest calls the base model.
        recipe: carried in the manifest for peers that join.
        groups: learning rates and weight decay by parameter; by default all that require grad, alike.
        evaluated: what the loss evaluates, where that is more than the model: its buffers are kept too.
        resume: go on from here, with a model that holds these weights already.
        row_losses: which whoever computes the loss may tell.
        low: low bits of bfloat16 parameters, where a new run begins from an earlier one's weights.
    """

    rounds: int
    title: str = ""
    recipe: dict[str, Any] | None = None
    groups: Groups | None = None
    evaluated: nn.Module | None = None
    resume: Snapshot | None = None
    row_losses: RowLosses = field(default_factory=RowLosses)
    low: Mapping[str, Tensor] = field(default_factory=dict)
