"""A recipe's training in a real transformers Trainer."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from shared_seed.integrations.transformers.callback import SharedSeedCallback
from shared_seed.job import Job
from shared_seed.outcome import Outcome
from shared_seed.precision import resolve


class RecipeTrainer(Trainer):  # type: ignore[misc]
    """A Trainer that evaluates what a recipe's run assigns, where it does."""

    # The task's loss is a mean of each batch: without this, k probes a step would be multiplied by k.
    loss_is_scaled_for_ga = False

    def __init__(self, job: Job, callback: SharedSeedCallback, arguments: TrainingArguments) -> None:
        super().__init__(
            model=job.model,
            args=arguments,
            train_dataset=job.features,
            compute_loss_func=job.task.loss,
            callbacks=[callback],
        )
        self._job = job
        self._callback = callback

    def get_train_dataloader(self) -> Any:
        """The job's batches."""
        return self.accelerator.prepare(self._job.loader(lambda: self._callback.session))

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The loss of one batch, of the loader's or of the run's."""
        assigned, session = self._job.assigned, self._callback.session
        self._job.follow(session)
        if assigned is None or session is None:
            return super().compute_loss(model, inputs, *args, **kwargs)
        return self._job.assigned_loss(assigned, session)


def fit(job: Job) -> Outcome | None:
    """Train until the run is over."""
    training = job.recipe.training
    callback = SharedSeedCallback(
        job.settings,
        title=job.recipe.model,
        recipe=job.carried,
        row_losses=job.task.row_losses,
        on_step=job.on_step,
    )
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=training.steps,
            per_device_train_batch_size=training.batch_size,
            gradient_accumulation_steps=training.probes_per_step,
            learning_rate=training.base_rate,
            # The session has the schedule: a peer that goes on or joins late begins at the run's round, not at 0.
            lr_scheduler_type="constant",
            optim="sgd",
            bf16=resolve(job.recipe).bf16,
            use_cpu=not torch.cuda.is_available(),
            seed=training.seed,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = RecipeTrainer(job, callback, arguments)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return callback.outcome
