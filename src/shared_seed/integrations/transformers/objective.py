"""What a probe evaluates: the Trainer's own loss, or a reward of the model's outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from shared_seed.errors import RecipeError

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
    ) -> None:
        self._loss = loss
        self._reward = reward
        self.model = model
        self._inputs = inputs
        self._args, self._kwargs = rest
        self._scale = scale
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
        wanted = self._reward is not None or bool(self._kwargs.get("return_outputs"))
        # Label smoothing and many subclasses take the labels out of what they are given.
        inputs = _copy(self._inputs)
        if not wanted:
            return self._loss(self.model, inputs, *self._args, **self._kwargs)
        try:
            found = self._loss(self.model, inputs, *self._args, **(self._kwargs | {"return_outputs": True}))
        except ValueError as error:
            if self._reward is None or "did not return a loss" not in str(error):
                raise
            self.outputs = self.model(**_copy(self._inputs))
            return None
        value, self.outputs = found
        return value


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
