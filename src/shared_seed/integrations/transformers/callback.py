"""Shared-seed SPSA in a Hugging Face Trainer: ``Trainer(..., callbacks=[SharedSeedCallback()])``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from shared_seed.errors import ModelError, RecipeError
from shared_seed.outcome import Outcome, Step
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.training import Training

_SHADOWED = ("compute_loss", "_run_epoch")
"""What is replaced on the Trainer's instance for the time of training."""


class SharedSeedCallback(TrainerCallback):  # type: ignore[misc]
    """Replaces backprop in the Trainer that it is given to, for the time of ``train()``.

    The Trainer's learning rate and schedule are used, its loss, its data and its precision; the optimizer
    never gets a gradient and so never allocates state. Each micro-batch of an accumulated step is a probe of
    its own, along its own direction.

    Args:
        settings: how this peer takes part; alone, without listening, by default.
        title: what the manifest calls the base model.
        recipe: carried in the manifest for peers that join.
        on_step: called with every :class:`~shared_seed.session.Step`.

    Attributes:
        session: the session in progress, or the last one.
        outcome: how the last training ended.

    Example::

        Trainer(model=model, args=args, train_dataset=data, callbacks=[SharedSeedCallback()]).train()
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        title: str = "",
        recipe: dict[str, Any] | None = None,
        on_step: Callable[[Session, Step], None] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.title = title
        self.recipe = recipe
        self.on_step = on_step
        self.session: Session | None = None
        self.outcome: Outcome | None = None
        self._undo: Callable[[], None] = lambda: None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find the Trainer that is calling, open the session, and take the place of its gradient."""
        self._leave()
        trainer = _calling_trainer(self)
        if args.fp16:
            raise ModelError("fp16 scales losses for backprop; expected bf16 or fp32; set bf16=True instead")
        self.session = Session.open(
            kwargs["model"],
            self.settings,
            Training(rounds=state.max_steps, title=self.title, recipe=self.recipe),
        )
        self._install(trainer, self.session)
        try:
            self.session.begin()
        except BaseException:
            self._leave()
            raise

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Exchange bytes and update the weights, at the learning rate of the Trainer's optimizer."""
        session = self._session()
        if session.is_over():
            return
        step = session.step(float(kwargs["optimizer"].param_groups[0]["lr"]))
        if self.on_step is not None:
            self.on_step(session, step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop where the run's last round is done."""
        if self._session().is_over():
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Exchange the last bytes and give the Trainer its own loss back."""
        try:
            self.outcome = self._session().finish()
        finally:
            self._leave()

    def _session(self) -> Session:
        if self.session is None:
            raise RecipeError("SharedSeedCallback is not in training; pass it to a Trainer and call train()")
        return self.session

    def _leave(self) -> None:
        """Undo everything; harmless when there is nothing to undo."""
        self._undo()
        self._undo = lambda: None
        if self.session is not None:
            self.session.close()

    def _install(self, trainer: Trainer, session: Session) -> None:
        """Shadow ``compute_loss`` on the instance: it covers custom losses, subclasses and label smoothing.

        What it returns is the probe's mean loss on a leaf of its own, so the Trainer's backward pass and its
        accumulation run as ever and no model parameter sees autograd.
        """
        own, run_epoch = trainer.compute_loss, trainer._run_epoch
        before = {name: trainer.__dict__[name] for name in _SHADOWED if name in trainer.__dict__}

        def compute_loss(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not model.training:
                return own(model, inputs, *args, **kwargs)
            if session.is_over():
                return torch.zeros((), device=trainer.args.device, requires_grad=True)
            scale = _accumulation_scale(trainer, kwargs.get("num_items_in_batch"))

            def loss() -> Tensor:
                copied = dict(inputs) if isinstance(inputs, Mapping) else inputs
                value: Tensor = own(model, copied, *args, **kwargs)
                return value * scale

            measured = session.measure(loss, _outer_autocast(trainer))
            device = trainer.args.device
            return torch.tensor(measured.loss / scale, device=device, requires_grad=True)

        def run_epoch_and_clean_up(*args: Any, **kwargs: Any) -> Any:
            # After an exception the Trainer tells its callbacks nothing.
            try:
                return run_epoch(*args, **kwargs)
            except BaseException:
                self._leave()
                raise

        def undo() -> None:
            for name in _SHADOWED:
                trainer.__dict__.pop(name, None)
            trainer.__dict__.update(before)

        trainer.compute_loss, trainer._run_epoch = compute_loss, run_epoch_and_clean_up
        self._undo = undo


def _calling_trainer(callback: TrainerCallback) -> Trainer:
    """The Trainer whose event we are in; events do not carry it, so it is found on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, Trainer) and callback in candidate.callback_handler.callbacks:
            return candidate
        frame = frame.f_back  # type: ignore[assignment]
    raise RecipeError("SharedSeedCallback was called by something else than a transformers.Trainer")


def _accumulation_scale(trainer: Trainer, items: Any) -> int:
    """What a micro-batch's loss must be multiplied by to be a mean.

    A Trainer that counts items divides each micro-batch's loss by the items of the whole accumulated batch.
    """
    said = getattr(trainer, "loss_is_scaled_for_ga", None)
    scaled = (
        said
        if said is not None
        else (trainer.model_accepts_loss_kwargs and items is not None) or trainer.compute_loss_func is not None
    )
    return int(getattr(trainer, "current_gradient_accumulation_steps", 1)) if scaled else 1


def _outer_autocast(trainer: Trainer) -> AbstractContextManager[Any]:
    """An autocast around both probes: the weights are cast once a pair instead of once a forward."""
    if not trainer.args.bf16:
        return nullcontext()
    return torch.autocast(trainer.args.device.type, torch.bfloat16)
