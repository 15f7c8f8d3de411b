"""A Trainer that trains all weights of a model in bfloat16, with their low bits beside them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

import models
from shared_seed.errors import LogError
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.notices import COARSE
from shared_seed.snapshot import LOW_NAME, Snapshot
from told import as_told
from trainers import ALONE, Freezing, Recorder, assert_left_alone, on_grid, trainer_of

EVERY = {"save_strategy": "steps", "save_steps": 3, "max_steps": 9, "gradient_accumulation_steps": 2}


def fresh(base: Any, folder: Path, callback: SharedSeedCallback, **arguments: Any) -> Trainer:
    return trainer_of(folder, copy.deepcopy(base).bfloat16(), callback, **(EVERY | arguments))


def checkpoint(folder: Path, step: int) -> Path:
    return folder / "out" / f"checkpoint-{step}"


@pytest.mark.parametrize("autocast", [False, True])
def test_the_loss_goes_down(tmp_path: Path, autocast: bool) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(as_told(epsilon=2.0**-6, number=0), on_step=recorder)
    trainer = trainer_of(
        tmp_path, models.llama().bfloat16(), callback, max_steps=120, learning_rate=5e-3, bf16=autocast
    )
    trainer.train()
    assert {p.dtype for p in trainer.model.parameters()} == {torch.bfloat16}
    assert sum(recorder.losses[-10:]) / 10 < recorder.losses[0] - 0.4
    assert on_grid(callback)
    assert_left_alone(trainer)


@pytest.mark.parametrize("build", [models.opt, models.llama, models.gpt2])
def test_resuming_gives_the_bits_of_a_run_without_a_stop(tmp_path: Path, build: Callable[[], Any]) -> None:
    base = build()
    recorder, again = Recorder(), Recorder()
    straight, resumed = SharedSeedCallback(ALONE, on_step=recorder), SharedSeedCallback(ALONE, on_step=again)
    trained = fresh(base, tmp_path, straight)
    trained.train()
    trainer = fresh(base, tmp_path, resumed)
    trainer.train(resume_from_checkpoint=str(checkpoint(tmp_path, 6)))
    assert models.bits(trainer.model) == models.bits(trained.model)
    assert again.losses == recorder.losses[6:]
    assert straight.outcome is not None
    assert resumed.outcome is not None
    assert resumed.outcome.digest == straight.outcome.digest
    assert resumed.outcome.messages == 9
    assert_left_alone(trainer)


def test_checkpoints_hold_the_low_bits_and_only_where_there_are_some(tmp_path: Path) -> None:
    callback = SharedSeedCallback(ALONE)
    fresh(models.llama(), tmp_path / "half", callback).train()
    assert callback.session is not None
    low = callback.session.replica.weights.low()
    last = Snapshot.load(checkpoint(tmp_path / "half", 9))
    assert last is not None
    assert set(last.low) == set(low)
    assert all(torch.equal(last.low[name], low[name]) for name in low)
    assert any(bits.any() for bits in low.values())
    trainer_of(tmp_path / "whole", models.llama(), SharedSeedCallback(ALONE), **EVERY).train()
    assert not (checkpoint(tmp_path / "whole", 9) / LOW_NAME).exists()


@pytest.mark.parametrize("what", ["missing", "damaged", "loaded as float32"])
def test_low_bits_that_do_not_belong_begin_a_new_run_or_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    base = models.llama()
    fresh(base, tmp_path, SharedSeedCallback(ALONE)).train()
    low = checkpoint(tmp_path, 6) / LOW_NAME
    recorder = Recorder()
    trainer = fresh(base, tmp_path, SharedSeedCallback(ALONE, on_step=recorder))
    if what == "missing":
        low.unlink()
    elif what == "damaged":
        low.write_bytes(low.read_bytes()[:-100])
        with pytest.raises(LogError, match=r"are damaged.*resume from an earlier checkpoint"):
            trainer.train(resume_from_checkpoint=str(checkpoint(tmp_path, 6)))
        return
    else:
        trainer.model.float()
    trainer.train(resume_from_checkpoint=str(checkpoint(tmp_path, 6)))
    assert [step.round for step in recorder.steps] == [0, 1, 2]
    assert any("a new one begins from its weights" in record.message for record in caplog.records)


def test_a_run_that_begins_anew_within_a_training_keeps_the_low_bits(tmp_path: Path) -> None:
    callback = SharedSeedCallback(ALONE)
    seen: list[tuple[int, dict[str, Tensor]]] = []

    class Looking(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.look(state)

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.look(state)

        def look(self, state: Any) -> None:
            assert callback.session is not None
            run = id(callback.session)
            seen.append((run, {t.name: t.values.clone() for t in callback.session.replica.weights}))

    trainer = trainer_of(tmp_path, models.llama().bfloat16(), callback)
    trainer.add_callback(Freezing())
    trainer.add_callback(Looking())
    trainer.train()
    _, (_, before), (_, second), (third, after) = seen[1], seen[2], seen[3], seen[4]
    assert third != seen[3][0]
    assert set(after) < set(second)
    assert all(torch.equal(after[name], second[name]) for name in after)
    assert any((after[name] != after[name].bfloat16().float()).any() for name in after)
    assert set(before) == set(second)


def test_a_loss_in_half_precision_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def coarse(outputs: Any, labels: Tensor, **kwargs: Any) -> Tensor:
        return nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    trainer_of(tmp_path, models.llama().bfloat16(), SharedSeedCallback(ALONE)).train()
    assert COARSE not in caplog.messages
    callback = SharedSeedCallback(ALONE)
    trainer_of(
        tmp_path, models.llama().bfloat16(), callback, trainer={"compute_loss_func": coarse}, bf16=True
    ).train()
    assert COARSE not in caplog.messages
    callback = SharedSeedCallback(ALONE)
    trainer_of(tmp_path, models.llama().bfloat16(), callback, trainer={"compute_loss_func": coarse}).train()
    assert caplog.messages.count(COARSE) == 1


def test_an_adapter_on_a_base_in_bfloat16_has_no_low_bits(tmp_path: Path) -> None:
    callback = SharedSeedCallback(ALONE)
    model = models.lora(models.llama().bfloat16())
    trainer = trainer_of(tmp_path, model, callback, learning_rate=0.1)
    trainer.train()
    assert callback.session is not None
    assert {t.parameter.dtype for t in callback.session.replica.weights} == {torch.float32}
    assert callback.session.replica.weights.low() == {}
    assert_left_alone(trainer)
