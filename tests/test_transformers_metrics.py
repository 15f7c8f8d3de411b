"""What is logged, evaluated, and kept as the best."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import EarlyStoppingCallback, TrainerCallback

import models
from shared_seed.integrations.transformers import SharedSeedCallback
from trainers import ALONE, Listening, Recorder, assert_left_alone, on_grid, rows, trainer_of

LOGGED = {"projected_grad", "peers", "bytes_sent", "bytes_received", "grad_norm", "loss", "learning_rate"}


def test_reporters_that_come_first_are_told_our_metrics(tmp_path: Path) -> None:
    recorder, listening = Recorder(), Listening()
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    trainer = trainer_of(tmp_path, models.llama(), callback, logging_strategy="steps", logging_steps=2)
    trainer.callback_handler.callbacks.insert(0, listening)
    trainer.train()
    told = [entry for entry in listening.logs if "loss" in entry]
    assert len(told) == 2
    assert all(set(entry) >= LOGGED for entry in told)
    assert [entry["projected_grad"] for entry in told] == [recorder.steps[1].gradient, recorder.steps[3].gradient]
    assert [entry["grad_norm"] for entry in told] == pytest.approx([abs(e["projected_grad"]) for e in told])
    assert [entry["loss"] for entry in told] == pytest.approx(
        [sum(recorder.losses[:2]) / 2, sum(recorder.losses[2:]) / 2], rel=1e-4
    )
    assert {(e["peers"], e["bytes_sent"], e["bytes_received"]) for e in told} == {(1, 0, 0)}
    assert not any("reward" in entry or "abstained" in entry for entry in told)
    assert not any("peers" in entry for entry in listening.logs if "train_runtime" in entry)
    assert_left_alone(trainer)


def test_tensorboard_gets_our_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer = trainer_of(
        tmp_path,
        models.llama(),
        SharedSeedCallback(ALONE),
        logging_strategy="steps",
        logging_steps=1,
        report_to=["tensorboard"],
    )
    trainer.train()
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    for name in ("projected_grad", "peers", "bytes_sent", "bytes_received", "grad_norm"):
        assert [event.step for event in board.Scalars(f"train/{name}")] == [1, 2, 3, 4], name


def test_abstaining_probes_are_counted_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listening = Listening()
    trainer = trainer_of(
        tmp_path,
        models.llama(),
        SharedSeedCallback(ALONE),
        trainer={"compute_loss_func": lambda outputs, labels, **_: outputs.logits.sum() * float("inf")},
        logging_strategy="steps",
        logging_steps=2,
    )
    trainer.add_callback(listening)
    trainer.train()
    assert [entry["abstained"] for entry in listening.logs if "loss" in entry] == [2, 2]
    assert sum("such probes abstain" in record.message for record in caplog.records) == 1


# Evaluation and the best weights


class Notes(TrainerCallback):
    """What the weights were at every evaluation."""

    def __init__(self) -> None:
        self.bits: list[dict[str, bytes]] = []
        self.losses: list[float] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bits.append(models.bits(kwargs["model"]))
        self.losses.append(kwargs["metrics"]["eval_loss"])


@pytest.mark.parametrize("adapter", [False, True])
def test_the_best_weights_are_loaded_after_the_digest_is_stated(tmp_path: Path, adapter: bool) -> None:
    notes = Notes()
    callback = SharedSeedCallback(ALONE)
    trainer = trainer_of(
        tmp_path,
        models.lora(models.llama()) if adapter else models.llama(),
        callback,
        trainer={"eval_dataset": rows(8)},
        max_steps=8,
        learning_rate=0.05,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
    )
    trainer.add_callback(notes)
    trainer.train()
    best = int(np.argmin(notes.losses))
    assert best != 7
    assert models.bits(trainer.model) == notes.bits[best]
    assert trainer.state.best_metric == notes.losses[best]
    assert callback.outcome is not None
    assert callback.outcome.messages == 8
    # The run's digest is that of its last weights, which the last checkpoint holds.
    assert callback.session is not None
    trainer._load_from_checkpoint(str(tmp_path / "out" / "checkpoint-8"))
    assert callback.session.replica.digest().hex() == callback.outcome.digest
    assert_left_alone(trainer)


def test_early_stopping_ends_the_run(tmp_path: Path) -> None:
    callback = SharedSeedCallback(ALONE)
    trainer = trainer_of(
        tmp_path,
        models.llama(),
        callback,
        trainer={"eval_dataset": rows(8)},
        max_steps=40,
        learning_rate=0.0,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
    )
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
    trainer.train()
    assert trainer.state.global_step == 3
    assert callback.outcome is not None
    assert callback.outcome.messages == 3
    assert_left_alone(trainer)


def test_a_schedule_that_waits_for_plateaus_sets_the_learning_rate(tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = trainer_of(
        tmp_path,
        models.llama(),
        SharedSeedCallback(ALONE, on_step=recorder),
        trainer={"eval_dataset": rows(8)},
        max_steps=6,
        learning_rate=1e-12,
        eval_strategy="steps",
        eval_steps=1,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs={"patience": 0, "factor": 0.5, "eps": 0.0},
    )
    trainer.args.metric_for_best_model = "loss"
    trainer.train()
    rates = [step.learning_rate for step in recorder.steps]
    assert rates[0] == 1e-12
    assert rates[-1] < rates[0]


def test_metrics_of_predictions_are_computed_with_clean_weights(tmp_path: Path) -> None:
    data = rows(16)
    seen: list[float] = []

    def accuracy(prediction: Any) -> dict[str, float]:
        hits = prediction.predictions[:, :-1].argmax(-1) == prediction.label_ids[:, 1:]
        seen.append(float(hits.mean()))
        return {"accuracy": seen[-1]}

    callback = SharedSeedCallback(ALONE)
    trainer = trainer_of(
        tmp_path,
        models.llama(),
        callback,
        data,
        trainer={"eval_dataset": data, "compute_metrics": accuracy},
        max_steps=60,
        learning_rate=5e-3,
        eval_strategy="steps",
        eval_steps=30,
    )
    trainer.train()
    logged = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    assert logged == seen
    assert on_grid(callback)
    trainer.evaluate()
    assert seen[-1] == seen[-2]


# What the user is told


def told_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in caplog.records if r.name.startswith("shared_seed") and r.levelno == logging.WARNING]


def test_settings_without_effect_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = SharedSeedCallback(ALONE)
    trainer = trainer_of(
        tmp_path,
        models.llama(),
        callback,
        optim="adamw_torch",
        max_grad_norm=0.5,
        activation_checkpointing=True,
        weight_decay=0.1,
    )
    trainer.train()
    said = told_of(caplog)
    trainer.train()
    assert told_of(caplog) == said
    for words in ("max_grad_norm=0.5 has no effect", "only costs time", "AdamW's learning rate", "weight_decay"):
        assert sum(words in sentence for sentence in said) == 1, words


def test_weight_decay_that_drowns_the_loss_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = trainer_of(
        tmp_path, models.llama(), SharedSeedCallback(ALONE), max_steps=20, weight_decay=30.0, learning_rate=1e-3
    )
    trainer.train()
    assert sum("mostly weight decay" in sentence for sentence in told_of(caplog)) == 1


def test_nothing_is_said_where_all_has_its_effect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer_of(tmp_path, models.llama(), SharedSeedCallback(ALONE)).train()
    assert told_of(caplog) == []


def test_gradient_checkpointing_gives_the_same_bits(tmp_path: Path) -> None:
    base = models.opt()
    digests = []
    for checkpointing in (False, True):
        callback = SharedSeedCallback(ALONE)
        trainer_of(tmp_path, copy.deepcopy(base), callback, activation_checkpointing=checkpointing).train()
        assert callback.outcome is not None
        digests.append(callback.outcome.digest)
    assert digests[0] == digests[1]
