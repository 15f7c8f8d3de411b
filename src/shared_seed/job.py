"""What one peer trains, and in whose loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from shared_seed.batches import AssignedBatches
from shared_seed.errors import ModelError
from shared_seed.outcome import Outcome, Step
from shared_seed.recipe import Recipe, TrainerName
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

    @property
    def data_seed(self) -> int:
        """Each peer goes through its data in its own order."""
        return self.recipe.training.seed + 1000 * (1 + (self.settings.number or 0))


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
