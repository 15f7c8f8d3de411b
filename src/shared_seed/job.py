"""What one peer trains, and in whose loop."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from shared_seed.batches import AssignedBatches
from shared_seed.errors import ModelError
from shared_seed.outcome import Outcome, Step
from shared_seed.recipe import Recipe, TrainerName
from shared_seed.sampler import ByLength
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.text_task import Feature, TextTask


@dataclass(frozen=True)
class Job:
    """What one peer trains: a model, a task, its own rows."""

    recipe: Recipe
    settings: Settings
    model: nn.Module
    task: TextTask
    features: list[Feature]
    on_step: Callable[[Session, Step], None]

    @property
    def carried(self) -> dict[str, Any]:
        """The recipe as the manifest carries it."""
        return carried(self.recipe)

    @property
    def assigned(self) -> AssignedBatches | None:
        """The batches that the run assigns, where the recipe asks for that."""
        training = self.recipe.training
        if training.batches == "shuffled":
            return None
        return AssignedBatches(self.task, self.features, training.batch_size, training.seed)

    def assigned_loss(self, assigned: AssignedBatches, session: Session) -> Tensor:
        """The loss on what is assigned to the session's next byte, whatever the loop's loader has fetched.

        Loaders fetch ahead, and neither round nor stream is settled before the probe: a peer that is behind jumps.
        """
        return assigned.loss(self.model, assigned.batch(session.stream, session.round, session.probes))

    def loader(self) -> DataLoader[Feature]:
        """Batches of this peer's rows on the CPU, the same in every loop."""
        training = self.recipe.training
        lengths, seed = [len(feature["input_ids"]) for feature in self.features], self._data_seed()
        return DataLoader(
            self.features,  # type: ignore[arg-type]
            training.batch_size,
            sampler=ByLength(lengths, training.batch_size, seed, training.seed),
            collate_fn=self.task.collate,
            # Otherwise each epoch takes a number from the global one.
            generator=torch.Generator().manual_seed(seed),
        )

    def _data_seed(self) -> int:
        """Each peer goes through its data in its own order: by its number or, like its identity, at random."""
        number = self.settings.number
        return secrets.randbits(62) if number is None else self.recipe.training.seed + 1000 * (1 + number)


def carried(recipe: Recipe) -> dict[str, Any]:
    """A recipe as the manifest carries it."""
    return recipe.model_dump(mode="json", exclude={"quick"})


def fit(job: Job) -> Outcome:
    """Train until the run is over, in the loop that the recipe names.

    Raises:
        SharedSeedError: whatever the session raises.
    """
    if job.recipe.training.trainer is TrainerName.TRANSFORMERS:
        from shared_seed.integrations.transformers.fit import fit as run
    else:
        from shared_seed.integrations.lightning.fit import fit as run
    outcome = run(job)
    if outcome is None:
        raise ModelError("the Trainer ended without training; the recipe's data gave it no batch")
    return outcome
