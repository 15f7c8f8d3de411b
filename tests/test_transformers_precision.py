"""A Trainer in bf16, and adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from shared_seed.errors import ModelError
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.settings import Settings
from trainers import ALONE, Recorder, assert_left_alone, trainer_of


@pytest.mark.parametrize("build", [models.llama, models.opt])
def test_bf16_autocast_trains_float32_weights(tmp_path: Path, build: Callable[[], Any]) -> None:
    recorder = Recorder()
    trainer = trainer_of(
        tmp_path,
        build(),
        SharedSeedCallback(Settings(epsilon=2.0**-6, number=0), on_step=recorder),
        max_steps=120,
        learning_rate=5e-3,
        bf16=True,
    )
    trainer.train()
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert sum(recorder.losses[-10:]) / 10 < recorder.losses[0] - 0.4
    assert_left_alone(trainer)


def test_fp16_is_refused(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, models.llama(), SharedSeedCallback(ALONE))
    trainer.args.fp16 = True
    with pytest.raises(ModelError, match=r"fp16 scales losses.*set bf16=True"):
        trainer.train()
    assert_left_alone(trainer)


@pytest.mark.parametrize("build", [models.llama, models.opt])
def test_an_adapter_is_trained_and_its_base_untouched(tmp_path: Path, build: Callable[[], Any]) -> None:
    recorder = Recorder()
    model = models.lora(build())
    before = models.bits(model)
    callback = SharedSeedCallback(Settings(number=0), on_step=recorder)
    trainer = trainer_of(tmp_path, model, callback, max_steps=150, learning_rate=0.1)
    trainer.train()
    changed = {name for name, values in models.bits(model).items() if values != before[name]}
    assert changed == {name for name, p in model.named_parameters() if p.requires_grad}
    assert sum(recorder.losses[-20:]) / 20 < sum(recorder.losses[:5]) / 5 - 0.05
    assert_left_alone(trainer)


def test_a_model_in_half_precision_is_refused_before_training(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, models.llama().half(), SharedSeedCallback(ALONE))
    with pytest.raises(ModelError, match=r"torch\.float16; expected torch\.float32.*or torch\.bfloat16"):
        trainer.train()
    assert_left_alone(trainer)
