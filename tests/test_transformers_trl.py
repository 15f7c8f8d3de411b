"""TRL's trainers: their loss, and their counts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import models
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.noise import Family
from told import as_told
from trainers import ALONE, Listening, Recorder, assert_left_alone, on_grid

TEXTS = ["the film was good", "the plot was bad", "it was bright", "it was dull"] * 4

QUIET = {
    "per_device_train_batch_size": 4,
    "max_steps": 4,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "constant",
    "optim": "sgd",
    "use_cpu": True,
    "bf16": False,
    "report_to": [],
    "save_strategy": "no",
    "logging_strategy": "steps",
    "logging_steps": 2,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "gradient_checkpointing": None,
    "activation_checkpointing": False,
}


def sft(folder: Path, callbacks: list[Any], **arguments: Any) -> SFTTrainer:
    torch.manual_seed(0)
    return SFTTrainer(
        model=models.llama(),
        args=SFTConfig(output_dir=str(folder / "out"), **(QUIET | arguments)),
        train_dataset=Dataset.from_dict({"text": TEXTS}),
        processing_class=models.tokenizer(),
        callbacks=callbacks,
    )


def dpo(folder: Path, callbacks: list[Any], **arguments: Any) -> DPOTrainer:
    pairs = {
        "prompt": ["the film was", "it was"] * 8,
        "chosen": [" good", " bright"] * 8,
        "rejected": [" bad", " dull"] * 8,
    }
    torch.manual_seed(0)
    model = models.llama()
    return DPOTrainer(
        model=model,
        ref_model=copy.deepcopy(model),
        args=DPOConfig(output_dir=str(folder / "out"), **(QUIET | arguments)),
        train_dataset=Dataset.from_dict(pairs),
        processing_class=models.tokenizer(),
        callbacks=callbacks,
    )


@pytest.mark.parametrize("build", [sft, dpo])
def test_metrics_and_tokens_are_counted_once(tmp_path: Path, build: Any) -> None:
    plain, ours = Listening(), Listening()
    build(tmp_path / "a", [plain], learning_rate=0.0).train()
    callback = SharedSeedCallback(as_told(epsilon=2.0**-12, number=0))
    trainer = build(tmp_path / "b", [callback, ours], learning_rate=0.0)
    trainer.train()
    assert len(plain.logs) == len(ours.logs) == 3
    for expected, told in zip(plain.logs[:2], ours.logs[:2], strict=True):
        assert told["num_tokens"] == expected["num_tokens"] > 0
        assert set(told) == set(expected) | {"projected_grad", "peers", "bytes_sent", "bytes_received"}
        for name in ("loss", "entropy", "mean_token_accuracy"):
            assert told[name] == pytest.approx(expected[name], abs=0.02), name
    assert_left_alone(trainer)


def test_supervised_fine_tuning_lowers_the_loss(tmp_path: Path) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    trainer = sft(tmp_path, [callback], max_steps=120, learning_rate=5e-3, gradient_accumulation_steps=2)
    trainer.train()
    assert sum(recorder.losses[-10:]) / 10 < recorder.losses[0] - 0.5
    assert len(trainer.optimizer.state) == 0
    assert on_grid(callback)
    assert_left_alone(trainer)


def test_preferences_are_learnt(tmp_path: Path) -> None:
    recorder, listening = Recorder(), Listening()
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    trainer = dpo(tmp_path, [callback, listening], max_steps=120, learning_rate=2e-2, beta=1.0)
    trainer.train()
    assert sum(recorder.losses[-10:]) / 10 < recorder.losses[0] - 0.02
    told = [entry for entry in listening.logs if "loss" in entry]
    assert told[-1]["rewards/margins"] > told[0]["rewards/margins"]
    assert_left_alone(trainer)


def test_a_fused_head_gets_its_direction_in_place(tmp_path: Path) -> None:
    callback = SharedSeedCallback(ALONE)
    sft(tmp_path, [callback]).train()
    assert callback.session is not None
    families = {t.name: t.family for t in callback.session.replica.weights}
    assert families["model.embed_tokens.weight"] is Family.DENSE
    assert families["model.layers.0.self_attn.q_proj.weight"] is Family.RANK1


def test_an_adapter_is_trained_by_sft(tmp_path: Path) -> None:
    recorder = Recorder()
    torch.manual_seed(0)
    trainer = SFTTrainer(
        model=models.llama(),
        args=SFTConfig(output_dir=str(tmp_path / "out"), **(QUIET | {"max_steps": 100, "learning_rate": 0.2})),
        train_dataset=Dataset.from_dict({"text": TEXTS}),
        processing_class=models.tokenizer(),
        peft_config=LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"]),
        callbacks=[SharedSeedCallback(ALONE, on_step=recorder)],
    )
    trainer.train()
    assert sum(recorder.losses[-10:]) / 10 < recorder.losses[0] - 0.05
    assert_left_alone(trainer)
