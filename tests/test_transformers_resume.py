"""A Trainer that resumes from a checkpoint ends with the bits of one that was never stopped."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

import models
from shared_seed import log
from shared_seed.errors import ManifestMismatchError
from shared_seed.folder import LOG_NAME, PEER_NAME
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.settings import Settings
from trainers import ALONE, Recorder, assert_left_alone, on_grid, rows, trainer_of

EVERY = {
    "save_strategy": "steps",
    "save_steps": 3,
    "max_steps": 9,
    "gradient_accumulation_steps": 2,
    "per_device_train_batch_size": 4,
    "lr_scheduler_type": "linear",
}


def checkpoint(folder: Path, step: int) -> Path:
    return folder / "out" / f"checkpoint-{step}"


def fresh(base: Any, folder: Path, callback: SharedSeedCallback, **arguments: Any) -> Trainer:
    return trainer_of(folder, copy.deepcopy(base), callback, **(EVERY | arguments))


@pytest.mark.parametrize("build", [models.opt, lambda: models.lora(models.opt())], ids=["full", "lora"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw_torch"])
def test_resuming_gives_the_bits_of_a_run_without_a_stop(
    tmp_path: Path, build: Callable[[], Any], optimizer: str
) -> None:
    base = build()
    recorder, again = Recorder(), Recorder()
    straight = SharedSeedCallback(ALONE, on_step=recorder)
    trained = fresh(base, tmp_path, straight, optim=optimizer)
    trained.train()

    resumed = SharedSeedCallback(ALONE, on_step=again)
    trainer = fresh(base, tmp_path, resumed, optim=optimizer)
    trainer.train(resume_from_checkpoint=str(checkpoint(tmp_path, 6)))
    assert models.bits(trainer.model) == models.bits(trained.model)
    assert again.losses == recorder.losses[6:]
    assert [step.round for step in again.steps] == [6, 7, 8]
    assert straight.outcome is not None
    assert resumed.outcome is not None
    assert (resumed.outcome.digest, resumed.outcome.streams) == (straight.outcome.digest, 1)
    assert resumed.outcome.messages == straight.outcome.messages == 9
    assert_left_alone(trainer)


def test_resuming_within_an_epoch_from_the_last_checkpoint(tmp_path: Path) -> None:
    base = models.opt()
    straight = SharedSeedCallback(ALONE)
    fresh(base, tmp_path / "a", straight, max_steps=10, save_steps=5).train()
    fresh(base, tmp_path / "b", SharedSeedCallback(ALONE), max_steps=10, save_steps=5).train()
    shutil.rmtree(checkpoint(tmp_path / "b", 10))
    resumed = SharedSeedCallback(ALONE)
    trainer = fresh(base, tmp_path / "b", resumed, max_steps=10, save_steps=5)
    trainer.train(resume_from_checkpoint=True)
    assert straight.outcome is not None
    assert resumed.outcome is not None
    assert resumed.outcome.digest == straight.outcome.digest


def test_a_run_may_be_made_longer_when_it_is_resumed(tmp_path: Path) -> None:
    recorder = Recorder()
    base = models.llama()
    fresh(base, tmp_path, SharedSeedCallback(ALONE), lr_scheduler_type="constant").train()
    trainer = fresh(base, tmp_path, SharedSeedCallback(ALONE, on_step=recorder), max_steps=12)
    trainer.train(resume_from_checkpoint=str(checkpoint(tmp_path, 9)))
    assert [step.round for step in recorder.steps] == [9, 10, 11]


def test_resuming_with_a_run_folder_goes_on_in_its_log(tmp_path: Path) -> None:
    base = models.llama()
    settings = Settings(number=0, folder=tmp_path / "run")

    class Stopping(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == 6

    trainer = fresh(base, tmp_path, SharedSeedCallback(settings))
    trainer.add_callback(Stopping())
    trainer.train()
    resumed = SharedSeedCallback(settings)
    fresh(base, tmp_path, resumed).train(resume_from_checkpoint=str(checkpoint(tmp_path, 6)))
    straight = SharedSeedCallback(dataclasses.replace(settings, folder=tmp_path / "another run"))
    fresh(base, tmp_path / "other", straight).train()
    assert resumed.outcome is not None
    assert straight.outcome is not None
    assert resumed.outcome.digest == straight.outcome.digest
    assert len(log.read(tmp_path / "run" / LOG_NAME).messages) == 9


def test_a_checkpoint_holds_the_runs_state(tmp_path: Path) -> None:
    fresh(models.llama(), tmp_path, SharedSeedCallback(ALONE)).train()
    for step in (3, 6, 9):
        contents = log.read(checkpoint(tmp_path, step) / LOG_NAME)
        assert len(contents.messages) == step
        assert (checkpoint(tmp_path, step) / PEER_NAME).exists()


def test_a_checkpoint_of_backprop_begins_a_new_run(tmp_path: Path) -> None:
    base = models.llama()
    trainer = fresh(base, tmp_path, SharedSeedCallback(ALONE), optim="adamw_torch")
    trainer.pop_callback(SharedSeedCallback)
    trainer.train()
    assert len(trainer.optimizer.state) > 0
    assert not (checkpoint(tmp_path, 6) / LOG_NAME).exists()
    recorder = Recorder()
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    resumed = fresh(base, tmp_path, callback, optim="adamw_torch")
    resumed.train(resume_from_checkpoint=str(checkpoint(tmp_path, 6)))
    assert [step.round for step in recorder.steps] == [0, 1, 2]
    assert recorder.losses[0] < 3.7
    assert on_grid(callback)
    assert_left_alone(resumed)


@pytest.mark.parametrize("shared", [True, False])
def test_weights_that_are_not_the_checkpoints_begin_a_new_run_or_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shared: bool
) -> None:
    base = models.llama()
    fresh(base, tmp_path, SharedSeedCallback(ALONE)).train()
    # The state of step 3 beside the weights of step 6.
    for name in (LOG_NAME, PEER_NAME):
        shutil.copy(checkpoint(tmp_path, 3) / name, checkpoint(tmp_path, 6) / name)
    recorder = Recorder()
    settings = Settings(number=0, folder=tmp_path / "run" if shared else None)
    trainer = fresh(base, tmp_path, SharedSeedCallback(settings, on_step=recorder))
    resume = str(checkpoint(tmp_path, 6))
    if shared:
        with pytest.raises(ManifestMismatchError, match=r"weights are not those.*delete its shared-seed state"):
            trainer.train(resume_from_checkpoint=resume)
    else:
        trainer.train(resume_from_checkpoint=resume)
        assert [step.round for step in recorder.steps] == [0, 1, 2]
        assert any("a new one begins from its weights" in record.message for record in caplog.records)
    assert_left_alone(trainer)


def test_restoring_callback_states_keeps_ours(tmp_path: Path) -> None:
    base = models.llama()
    more = {"eval_dataset": rows(8)}
    arguments = EVERY | {
        "eval_strategy": "steps",
        "eval_steps": 3,
        "load_best_model_at_end": True,
        "restore_callback_states_from_checkpoint": True,
    }
    first = trainer_of(tmp_path, copy.deepcopy(base), SharedSeedCallback(ALONE), trainer=more, **arguments)
    first.add_callback(EarlyStoppingCallback(9))
    first.train()
    callback = SharedSeedCallback(ALONE)
    again = trainer_of(tmp_path, copy.deepcopy(base), callback, trainer=more, **arguments)
    again.add_callback(EarlyStoppingCallback(9))
    again.train(resume_from_checkpoint=str(checkpoint(tmp_path, 6)))
    assert callback in again.callback_handler.callbacks
    assert callback.outcome is not None
    assert callback.outcome.messages == 9
    assert_left_alone(again)


def test_a_model_that_is_built_anew_for_each_training_starts_anew(tmp_path: Path) -> None:
    digests = []
    recorder = Recorder()
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    trainer = trainer_of(tmp_path, None, callback, trainer={"model_init": lambda: models.llama()})
    for _ in range(2):
        trainer.train()
        assert callback.outcome is not None
        digests.append(callback.outcome.digest)
        assert callback.session is not None
        parameters = {id(p) for p in trainer.model.parameters()}
        assert all(id(t.parameter) in parameters for t in callback.session.replica.weights)
    assert digests[0] == digests[1]
    assert_left_alone(trainer)
    assert torch.isfinite(torch.tensor(recorder.losses)).all()
