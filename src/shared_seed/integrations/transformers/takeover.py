"""What stands in place of a Trainer's methods while it trains by projected gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from shared_seed.bookkeeping import untouched
from shared_seed.errors import ModelError
from shared_seed.integrations.transformers.objective import (
    Objective,
    Reward,
    accumulation_scale,
    classifies,
    outer_autocast,
)
from shared_seed.integrations.transformers.shadows import Shadows
from shared_seed.outcome import Step
from shared_seed.session import Session

Method = Callable[..., Any]

_DATA = frozenset({"train_dataset", "eval_dataset"})
"""Attributes of a Trainer that hold no counts, and may be long."""


class Takeover:
    """Replaces the gradient of one Trainer by a session's probes.

    ``compute_loss`` is the one place that all losses go through: custom losses, label smoothing, subclasses, TRL's
    trainers. It returns the loss on a leaf of its own, so that the Trainer's backward pass and its accumulation
    run as ever while no model parameter sees autograd. Only calls from within ``training_step`` are probes; what
    evaluates the loss elsewhere gets it as it is.

    Args:
        trainer: in training.
        session: begun before the first step; another may take its place between two steps.
        reward: what to maximise, or None.
        finish: called when the training loop is through, before the best weights are loaded.
        leave: called when an exception ends the training; the Trainer tells its callbacks nothing then.
    """

    def __init__(
        self,
        trainer: Trainer,
        session: Session,
        reward: Reward | None,
        finish: Callable[[], None],
        leave: Callable[[], None],
    ) -> None:
        self._trainer = trainer
        self.session = session
        self._reward = reward
        self._finish = finish
        self._leave = leave
        self._steps: list[Step] = []
        self._rewards: list[float] = []
        self._squares: list[float] = []
        self._evaluated = 0
        self._in_step = False
        self._quiet = False
        self._shadows = Shadows(trainer)
        self._others: list[Shadows] = []

    def begin(self, callback: TrainerCallback) -> None:
        """Take the methods over, from within an event of ``callback``."""
        for name, make in (
            ("compute_loss", self._losses),
            ("training_step", self._training_steps),
            ("_get_grad_norm", self._norms),
            ("log", self._logs),
            ("_run_epoch", self._guarded),
            ("_evaluate", self._guarded),
            ("_finalize_training", self._finalized),
        ):
            self._shadows.lay(name, make)
        handler = self._trainer.callback_handler
        self._guard(handler, "call_event")
        # This event is being handed round already.
        for other in handler.callbacks[handler.callbacks.index(callback) + 1 :]:
            self._guard(other, "on_train_begin")

    def _guard(self, owner: Any, name: str) -> None:
        shadows = Shadows(owner)
        self._others.append(shadows)
        shadows.lay(name, self._guarded)

    def end(self) -> None:
        """Give the Trainer its own methods back."""
        self._shadows.lift()
        for shadows in self._others:
            shadows.lift()

    def note(self, step: Step) -> None:
        """Keep what a step reports for the Trainer's next log."""
        self._steps.append(step)
        self._squares.clear()

    # The methods

    def _losses(self, own: Method) -> Method:
        def compute_loss(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._in_step:
                return own(model, inputs, *args, **kwargs)
            if self.session.is_over():
                self._evaluated += 1
                leaf = torch.zeros((), device=self._trainer.args.device, requires_grad=True)
                return (leaf, {}) if kwargs.get("return_outputs") else leaf
            # The wrappers would send buffers over the network, or trace the hooks.
            bare = self._trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=True, keep_torch_compile=False)
            scale = accumulation_scale(self._trainer, kwargs.get("num_items_in_batch"))
            rows = self.session.row_losses if classifies(self._trainer) else None
            objective = Objective(own, self._reward, bare, inputs, (args, kwargs), scale, rows)
            loss = self._measure(objective) / scale
            if objective.losses:
                loss = _mean(objective.losses)
            leaf = torch.tensor(loss, device=self._trainer.args.device, requires_grad=True)
            return (leaf, objective.outputs) if kwargs.get("return_outputs") else leaf

        return compute_loss

    def _measure(self, objective: Objective) -> float:
        """Probe, and let the Trainer and the model count and log once; gives the mean of both sides."""
        counting = [self._trainer, *objective.model.modules()]
        again = False

        def loss() -> Any:
            nonlocal again
            if not again:
                again = True
                return objective()
            with untouched(counting, _DATA):
                self._quiet = True
                return objective()

        try:
            measured = self.session.measure(loss, outer_autocast(self._trainer))
        finally:
            self._quiet = False
        self._evaluated += 1
        if math.isfinite(measured.gradient):
            self._squares.append(measured.gradient**2)
        if objective.rewards:
            self._rewards.append(_mean(objective.rewards))
        return measured.loss

    def _training_steps(self, own: Method) -> Method:
        def training_step(*args: Any, **kwargs: Any) -> Any:
            before = self._evaluated
            self._in_step = True
            try:
                loss = own(*args, **kwargs)
            finally:
                self._in_step = False
            self._check_step(before)
            return loss

        return training_step

    def _check_step(self, before: int) -> None:
        """Make sure that the step went through our loss, and through nothing else."""
        kind = type(self._trainer).__name__
        if self._evaluated == before:
            raise ModelError(
                f"{kind}.training_step does not call compute_loss, which shared-seed needs to probe; expected the "
                "loss to be computed there; override compute_loss in place of training_step"
            )
        for tensor in self.session.replica.weights:
            if tensor.parameter.grad is not None:
                raise ModelError(
                    f"{kind}.training_step computes gradients by itself: {tensor.name!r} has one; expected that "
                    "compute_loss gives the only loss; override compute_loss in place of training_step"
                )

    def _norms(self, own: Method) -> Method:
        """The square of a projected gradient is, on average, that of the gradient's norm."""

        def grad_norm(*args: Any, **kwargs: Any) -> Any:
            return math.sqrt(_mean(self._squares)) if self._squares else None

        return grad_norm

    def _logs(self, own: Method) -> Method:
        """Reporters see what is in the logs when the Trainer calls them, maybe before it calls us."""

        def log(logs: dict[str, float], *args: Any, **kwargs: Any) -> Any:
            if self._quiet:
                return None
            if "loss" in logs and self._steps:
                logs.update(self._metrics())
            return own(logs, *args, **kwargs)

        return log

    def _metrics(self) -> dict[str, float]:
        last, traffic = self._steps[-1], self.session.traffic
        metrics: dict[str, float] = {
            "projected_grad": last.gradient,
            "peers": last.peers,
            "bytes_sent": traffic.sent,
            "bytes_received": traffic.received,
        }
        if self._rewards:
            metrics["reward"] = _mean(self._rewards)
        abstained = sum(step.abstained for step in self._steps)
        if abstained:
            metrics["abstained"] = abstained
        self._steps.clear()
        self._rewards.clear()
        return metrics

    def _guarded(self, own: Method) -> Method:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return own(*args, **kwargs)
            except BaseException:
                self._leave()
                raise

        return guarded

    def _finalized(self, own: Method) -> Method:
        """The digest is of the weights that were trained, not of the best ones, which are loaded here."""

        def finalize(*args: Any, **kwargs: Any) -> Any:
            self._finish()
            return own(*args, **kwargs)

        return self._guarded(finalize)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
