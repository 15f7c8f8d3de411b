"""A recipe's training in a real Lightning Trainer."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from shared_seed.integrations.lightning.strategy import SharedSeedStrategy
from shared_seed.job import Job
from shared_seed.outcome import Outcome
from shared_seed.precision import resolve
from shared_seed.text_task import Batch


class RecipeModule(LightningModule):  # type: ignore[misc]
    """The recipe's model and loss as Lightning wants them."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self.model = job.model

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, of the loader's or of the run's."""
        assigned, session = self.job.assigned, self.trainer.strategy.session
        self.job.follow(session)
        if assigned is not None:
            return self.job.assigned_loss(assigned, session)
        return self.job.task.batch_loss(self.model, batch)

    def configure_optimizers(self) -> Any:
        """Plain SGD, for its learning rate; the session has the schedule."""
        return torch.optim.SGD(self.parameters(), lr=self.job.recipe.training.base_rate)


def fit(job: Job) -> Outcome | None:
    """Train until the run is over."""
    training = job.recipe.training
    strategy = SharedSeedStrategy(
        job.settings,
        root="model",
        title=job.recipe.model,
        recipe=job.carried,
        row_losses=job.task.row_losses,
        on_step=job.on_step,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # from_pretrained gives models in evaluation mode, and the losses of assigned batches are taken in it.
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
        trainer = Trainer(
            strategy=strategy,
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=1,
            max_steps=training.steps,
            accumulate_grad_batches=training.probes_per_step,
            precision="bf16-mixed" if resolve(job.recipe).bf16 else "32-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(RecipeModule(job), job.loader(lambda: strategy.session))
    return strategy.outcome
