"""What a probe evaluates: the Trainer's own loss, or a reward of the model's outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from shared_seed.errors import RecipeError
from shared_seed.rows import RowLosses

Reward = Callable[[Any, Any], Any]
"""Takes the model's outputs and the batch; what it gives is maximised."""


class Objective:
    """The objective of one batch, evaluated at each side of a probe.

    Args:
        loss: the Trainer's ``compute_loss``.
        reward: what to maximise in place of minimising the loss.
        model: as the Trainer hands it to its loss.
        inputs: the batch.
        rest: whatever else the Trainer passes.
        scale: what the loss must be multiplied by to be a mean.
        row_losses: is told each row's loss, where the model classifies rows; None where the loss is another.

    Attributes:
        losses: the model's own losses so far.
        rewards: the rewards so far.
        outputs: of the last evaluation.
    """

    def __init__(
        self,
        loss: Callable[..., Any],
        reward: Reward | None,
        model: Any,
        inputs: Any,
        rest: tuple[tuple[Any, ...], dict[str, Any]],
        scale: int,
        row_losses: RowLosses | None = None,
    ) -> None:
        self._loss = loss
        self._reward = reward
        self.model = model
        self._inputs = inputs
        self._args, self._kwargs = rest
        self._scale = scale
        self._classes = _classes(inputs) if row_losses is not None and reward is None else 0
        self._row_losses = row_losses if self._classes else None
        self.losses: list[float] = []
        self.rewards: list[float] = []
        self.outputs: Any = None

    def __call__(self) -> Any:
        """What is to be minimised."""
        value = self._evaluate()
        if self._reward is None:
            return None if value is None else value * self._scale
        if isinstance(value, Tensor) and value.numel() == 1:
            self.losses.append(float(value))
        reward = _number(self._reward(self.outputs, _copy(self._inputs)))
        if reward is None:
            return None
        self.rewards.append(reward)
        return -reward

    def _evaluate(self) -> Any:
        """The Trainer's loss; keeps the outputs where they are wanted."""
        kept = self._reward is not None or bool(self._kwargs.get("return_outputs"))
        # Label smoothing and many subclasses take the labels out of what they are given.
        inputs = _copy(self._inputs)
        if not kept and self._row_losses is None:
            return self._loss(self.model, inputs, *self._args, **self._kwargs)
        try:
            found = self._loss(self.model, inputs, *self._args, **(self._kwargs | {"return_outputs": True}))
        except ValueError as error:
            if self._reward is None or "did not return a loss" not in str(error):
                raise
            self.outputs = self.model(**_copy(self._inputs))
            return None
        value, outputs = found
        if self._row_losses is not None:
            _tell(self._row_losses, outputs, self._inputs["labels"], self._classes)
        self.outputs = outputs if kept else None
        return value


def _classes(inputs: Any) -> int:
    """How many classes a batch's labels are of at least, one a row; 0 where they are none."""
    labels = inputs.get("labels") if isinstance(inputs, Mapping) else None
    if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.is_floating_point() or not len(labels):
        return 0
    least, most = torch.stack(labels.aminmax()).tolist()
    return most + 1 if least >= 0 else 0


def _tell(row_losses: RowLosses, outputs: Any, labels: Tensor, classes: int) -> None:
    """Each row's cross-entropy, where a model's outputs have as many classes as its labels."""
    logits = getattr(outputs, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(labels):
        return
    # Otherwise they are numbers, or levels of another kind of loss.
    if classes <= logits.shape[1] > 1:
        row_losses.note(nn.functional.cross_entropy(logits.float(), labels.long(), reduction="none"))


def _copy(inputs: Any) -> Any:
    return copy.copy(inputs) if isinstance(inputs, Mapping) else inputs


def _number(reward: Any) -> float | None:
    if reward is None:
        return None
    shape = tuple(getattr(reward, "shape", ()))
    if any(length != 1 for length in shape):
        raise RecipeError(
            f"reward(outputs, inputs) returned {type(reward).__name__} of shape {shape}; expected one number for "
            "the batch, which is maximised; return its mean"
        )
    return float(reward.detach()) if isinstance(reward, Tensor) else float(reward)


def classifies(trainer: Trainer) -> bool:
    """Whether the loss is a model's own, so that of a classifier it is the mean of rows' cross-entropies."""
    return type(trainer).compute_loss is Trainer.compute_loss and trainer.compute_loss_func is None


def accumulation_scale(trainer: Trainer, items: Any) -> int:
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


def outer_autocast(trainer: Trainer) -> AbstractContextManager[Any]:
    """An autocast around both probes: the weights are cast once a pair instead of once a forward."""
    if not trainer.args.bf16:
        return nullcontext()
    return torch.autocast(trainer.args.device.type, torch.bfloat16)
