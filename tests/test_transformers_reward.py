"""Any function of the model's outputs is an objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from shared_seed.errors import RecipeError
from shared_seed.integrations.transformers import SharedSeedCallback
from told import as_told
from trainers import ALONE, Listening, Recorder, assert_left_alone, rows, token_mean, trainer_of


def hits(outputs: Any, inputs: Any) -> Tensor:
    """The share of tokens that the model would have guessed: flat almost everywhere."""
    guessed = outputs.logits[:, :-1].argmax(-1) == inputs["labels"][:, 1:]
    return guessed.float().mean()


def test_a_reward_without_a_derivative_is_maximised(tmp_path: Path) -> None:
    recorder, listening = Recorder(), Listening()
    callback = SharedSeedCallback(as_told(epsilon=2.0**-4, number=0), reward=hits, on_step=recorder)
    trainer = trainer_of(
        tmp_path,
        models.llama(),
        callback,
        max_steps=250,
        learning_rate=2e-2,
        per_device_train_batch_size=32,
        logging_strategy="steps",
        logging_steps=25,
    )
    trainer.add_callback(listening)
    trainer.train()
    told = [entry for entry in listening.logs if "loss" in entry]
    assert told[0]["reward"] < 0.05
    assert told[-1]["reward"] > 0.1
    # What is logged as the loss is the model's own still.
    assert 2 < told[0]["loss"] < 5
    assert told[-1]["reward"] == pytest.approx(-sum(recorder.losses[-25:]) / 25)
    assert_left_alone(trainer)


def test_the_measured_reward_is_that_of_the_whole_batch_with_its_labels(tmp_path: Path) -> None:
    recorder = Recorder()
    model, data = models.llama(), rows(8)

    def negative_loss(outputs: Any, inputs: Any) -> float:
        assert set(inputs) == {"input_ids", "attention_mask", "labels"}
        logits, labels = outputs.logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten()
        return -float(nn.functional.cross_entropy(logits, labels))

    callback = SharedSeedCallback(as_told(epsilon=2.0**-12, number=0), reward=negative_loss, on_step=recorder)
    trainer_of(
        tmp_path,
        model,
        callback,
        data,
        max_steps=1,
        learning_rate=0.0,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=4,
        label_smoothing_factor=0.1,
    ).train()
    assert recorder.losses == [pytest.approx(token_mean(model, data), rel=1e-4)]


class Speechless(nn.Module):
    """A model without a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = models.llama()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return {"logits": self.inner(input_ids=input_ids, attention_mask=attention_mask).logits}


def test_a_reward_alone_trains_a_model_without_a_loss(tmp_path: Path) -> None:
    recorder = Recorder()
    data = [{name: row[name] for name in ("input_ids", "attention_mask")} for row in rows()]
    first = models.llama()

    def reward(outputs: Any, inputs: Any) -> Tensor:
        return -outputs["logits"].square().mean()

    model = Speechless()
    callback = SharedSeedCallback(ALONE, reward=reward, on_step=recorder)
    trainer = trainer_of(tmp_path, model, callback, data, max_steps=80, learning_rate=1e-2)
    result = trainer.train()
    assert recorder.losses[-1] < recorder.losses[0]
    assert result.training_loss == pytest.approx(sum(recorder.losses) / 80, rel=1e-3)
    assert models.bits(model.inner) != models.bits(first)


def test_a_batch_without_a_reward_abstains(tmp_path: Path) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(ALONE, reward=lambda outputs, inputs: None, on_step=recorder)
    model = models.llama()
    trainer = trainer_of(tmp_path, model, callback, max_steps=2)
    trainer.train()
    assert [step.abstained for step in recorder.steps] == [1, 1]


def test_a_reward_must_be_one_number(tmp_path: Path) -> None:
    callback = SharedSeedCallback(ALONE, reward=lambda outputs, inputs: torch.ones(8))
    trainer = trainer_of(tmp_path, models.llama(), callback)
    with pytest.raises(RecipeError, match=r"returned Tensor of shape \(8,\); expected one number.*its mean"):
        trainer.train()
    assert_left_alone(trainer)
