"""What one peer trains, and in whose loop."""

from __future__ import annotations

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
from shared_seed.sampler import ByLength, Onward
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

    def follow(self, session: Session | None) -> None:
        """Tell the task how far the run is, before its loss."""
        if session is not None:
            self.task.follow(session.round, session.manifest.rounds)

    def assigned_loss(self, assigned: AssignedBatches, session: Session) -> Tensor:
        """The loss on what is assigned to the session's next byte, whatever the loop's loader has fetched.

        Loaders fetch ahead, and neither round nor stream is settled before the probe: a peer that is behind jumps.
        """
        return assigned.loss(self.model, assigned.batch(session.stream, session.round, session.probes))

    def loader(self, session: Callable[[], Session | None]) -> DataLoader[Feature]:
        """Batches of this peer's rows on the CPU, the same in every loop.

        They go on behind those that the peer has published, in whatever process; what it had measured and not
        published is measured again.

        Args:
            session: gives this peer's, which has begun when the first batch is wanted.
        """
        training = self.recipe.training
        lengths = [len(feature["input_ids"]) for feature in self.features]
        labels = [feature.get("label", 0) for feature in self.features]

        def begin() -> tuple[ByLength, int]:
            begun = session()
            assert begun is not None
            order = ByLength(lengths, training.batch_size, self._data_seed(begun), training.seed, labels)
            return order, begun.published * training.probes_per_step

        return DataLoader(
            self.features,  # type: ignore[arg-type]
            batch_sampler=Onward(training.steps * training.probes_per_step, begin),
            collate_fn=self.task.collate,
            # Otherwise it takes a number from the global one.
            generator=torch.Generator(),
        )

    def _data_seed(self, session: Session) -> int:
        """Each peer goes through its data in its own order: by its number, else by its name, which is random."""
        number = self.settings.number
        if number is None:
            return int.from_bytes(session.stream.peer[:8], "little")
        return self.recipe.training.seed + 1000 * (1 + number)


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
