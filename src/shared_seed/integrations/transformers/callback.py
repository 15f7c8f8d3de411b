"""Shared-seed SPSA in a Hugging Face Trainer: ``Trainer(..., callbacks=[SharedSeedCallback()])``."""

from __future__ import annotations

import dataclasses
import glob
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from shared_seed import notices
from shared_seed.errors import HeadroomError, ModelError, RecipeError
from shared_seed.integrations.transformers import card, checkpoint
from shared_seed.integrations.transformers.checks import check_usable, without_effect
from shared_seed.integrations.transformers.heads import read_directly
from shared_seed.integrations.transformers.objective import Reward
from shared_seed.integrations.transformers.takeover import Takeover
from shared_seed.launch import NEAR, Place, open_together
from shared_seed.meter import Meter
from shared_seed.optimizer import Groups
from shared_seed.outcome import Outcome, Step
from shared_seed.rows import RowLosses
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.training import Training
from shared_seed.usage import Usage

logger = logging.getLogger(__name__)


class SharedSeedCallback(TrainerCallback):  # type: ignore[misc]
    """Replaces backprop in the Trainer that it is given to, for the time of ``train()``.

    The Trainer's learning rates and schedule are used, its loss, its data and its precision; the optimizer never
    gets a gradient and so never allocates state. Each micro-batch of an accumulated step is a probe of its own,
    along its own direction. When training ends, also by an error, the Trainer has its own methods again; only its
    model card goes on saying how the model was trained.

    Logged besides the Trainer's own values, to every reporter: ``projected_grad`` of the last step, ``peers`` that
    took part in it, ``bytes_sent`` and ``bytes_received`` so far, ``reward`` if there is one, ``abstained`` probes
    if there were any. ``grad_norm`` is the root mean square of a step's projected gradients, which estimates the
    gradient's norm. ``max_grad_norm`` has no effect.

    Under ``torchrun`` every process is a peer. Their steps add up: N peers at a learning rate go N times as far as
    one, so divide it by N to go as far.

    Checkpoints hold the run's state too, and ``resume_from_checkpoint`` goes on to the same bits. From a
    checkpoint that backprop has made, a new run begins.

    Args:
        settings: how this peer takes part; alone, without listening, by default.
        title: what the manifest calls the base model.
        recipe: carried in the manifest for peers that join.
        row_losses: see the attribute; one of its own by default.
        reward: ``reward(outputs, inputs)`` gives a number for a batch, which is maximised in place of minimising
            the loss; it need not be differentiable. ``None`` where a batch has none.
        on_step: called with every :class:`~shared_seed.session.Step`.

    Attributes:
        row_losses: may be told, by whatever computes the loss of a batch, that of each of its rows, where rows
            have one number each, as in classification: the learning rate is then found in a few steps.
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
        reward: Reward | None = None,
        row_losses: RowLosses | None = None,
        on_step: Callable[[Session, Step], None] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.title = title
        self.recipe = recipe
        self.reward = reward
        self.row_losses = row_losses or RowLosses()
        self.on_step = on_step
        self.session: Session | None = None
        self.outcome: Outcome | None = None
        self._takeover: Takeover | None = None
        self._groups: Groups | None = None
        self._place = Place()
        self._meter: Meter | None = None
        self._usage = Usage()
        self._said: set[str] = set()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find the Trainer that is calling, open the session, and take the place of its gradient."""
        self._leave()
        self.outcome = None
        trainer, resumed_from = _calling_trainer(self)
        check_usable(trainer)
        self._place = Place(args.process_index, args.world_size, _host())
        model = kwargs["model"]
        try:
            session = self._open(state, resumed_from, **kwargs)
            self._takeover = Takeover(trainer, session, self.reward, self._finish, self._leave)
            self._takeover.begin(self)
            session.begin()
            self._meter = Meter()
        except BaseException:
            self._leave()
            raise
        card.author(trainer, self._ended, lambda: self in trainer.callback_handler.callbacks)
        card.tag(model)
        self._say(without_effect(trainer, model))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make sure that the optimizer still trains what the run trains."""
        session, _, groups = self._training()
        if not groups.hold(_bare(kwargs["optimizer"])):
            if not session.settings.private:
                raise ModelError(notices.CHANGED)
            self._go_on_anew(state, **kwargs)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Exchange bytes and update the weights, at the learning rate of the Trainer's optimizer."""
        session, takeover, groups = self._training()
        if session.is_over():
            return
        try:
            step = session.step(groups.learning_rate(_bare(kwargs["optimizer"])))
        except HeadroomError as error:
            if not session.settings.private:
                raise
            self._say([notices.WIDER.format(error=error)])
            session.outgrow()
            self._go_on_anew(state, **kwargs)
            return
        takeover.note(step)
        self._measure()
        self._say(notices.of_step(session, step))
        if self.on_step is not None:
            self.on_step(session, step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop where the run's last round is done."""
        if self._training()[0].is_over():
            control.should_training_stop = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the run's state into the checkpoint."""
        if self._takeover is not None and self.session is not None:
            checkpoint.keep(self.session, args, state)

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the run's state into a checkpoint that is about to be uploaded, before the event of its saving."""
        self.on_save(args, state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the Trainer its own methods back."""
        try:
            if self.outcome is None:
                self._finish()
        finally:
            self._leave()

    # Inside

    def _open(
        self, state: TrainerState, resumed_from: str | None, low: Mapping[str, Tensor] | None = None, **kwargs: Any
    ) -> Session:
        """Open a session for what is left of the training, from a checkpoint or with an earlier run's low bits."""
        model, place = kwargs["model"], self._place
        direct = tuple(glob.escape(name) for name in read_directly(model))
        settings = dataclasses.replace(self.settings, dense=(*self.settings.dense, *direct))
        resume = checkpoint.load(Path(resumed_from), place, settings) if resumed_from else None
        left = max(1, state.max_steps - state.global_step)
        found = settings.promise is not None and self.recipe is None
        self._groups = Groups.of(_bare(kwargs["optimizer"]), model, left, found=found)
        self._say(self._groups.notices)
        training = Training(
            rounds=left + (resume.round if resume else 0),
            title=self.title,
            recipe=self.recipe,
            row_losses=self.row_losses,
            groups=self._groups,
            resume=resume,
            low=low or {},
        )
        self.session = open_together(model, settings, training, place, lambda sentence: self._say([sentence]))
        return self.session

    def _go_on_anew(self, state: TrainerState, **kwargs: Any) -> None:
        """End a run that nobody else knows of, and begin another from its weights."""
        session, takeover, _ = self._training()
        session.close()
        takeover.session = self._open(state, None, session.replica.weights.low(), **kwargs)
        takeover.session.begin()

    def _finish(self) -> None:
        """Exchange the last bytes and compare digests."""
        self.outcome = self._training()[0].finish()
        self._measure()

    def _measure(self) -> None:
        """Read the counters of memory and energy, which wrap around if nobody does."""
        if self._meter is not None:
            self._usage = self._meter.read()

    def _ended(self) -> card.Ended | None:
        """How the last training ended, for its card."""
        return None if self.outcome is None else card.Ended(self.outcome, self._usage)

    def _training(self) -> tuple[Session, Takeover, Groups]:
        if self.session is None or self._takeover is None or self._groups is None:
            raise RecipeError("SharedSeedCallback is not in training; pass it to a Trainer and call train()")
        return self.session, self._takeover, self._groups

    def _leave(self) -> None:
        """Undo everything; harmless when there is nothing to undo."""
        if self._takeover is not None:
            self._takeover.end()
            self._takeover = None
        if self.session is not None:
            self.session.close()

    def _say(self, sentences: Iterable[str]) -> None:
        """Show sentences that have not been shown yet."""
        for sentence in sentences:
            if self._place.rank == 0 and sentence not in self._said:
                self._said.add(sentence)
                logger.warning(sentence)


def _calling_trainer(callback: TrainerCallback) -> tuple[Trainer, str | None]:
    """The Trainer whose event we are in, and the checkpoint that it resumes from.

    Events carry neither, so both are found on the stack.
    """
    frame = sys._getframe(1)
    while frame is not None:
        names = frame.f_locals
        candidate = names.get("self")
        if isinstance(candidate, Trainer) and callback in candidate.callback_handler.callbacks:
            return candidate, names.get("resume_from_checkpoint")
        frame = frame.f_back  # type: ignore[assignment]
    raise RecipeError("SharedSeedCallback was called by something else than a transformers.Trainer")


def _host() -> str:
    """Where other ranks reach rank 0, as torch's own rendezvous does."""
    one_machine = os.environ.get("LOCAL_WORLD_SIZE", "") == os.environ.get("WORLD_SIZE", "1")
    return NEAR if one_machine else os.environ.get("MASTER_ADDR", NEAR)


def _bare(optimizer: Any) -> Any:
    """A torch optimizer without accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)
