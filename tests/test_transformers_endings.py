"""However training ends, the Trainer is its old self afterwards."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

import models
from shared_seed.errors import RecipeError
from shared_seed.grid import EPSILON
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.weights import Weights
from told import as_told
from trainers import ALONE, Recorder, assert_left_alone, on_grid, rows, trainer_of


class Breaking(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Rows of which the n-th that is read is an error."""

    def __init__(self, error: type[BaseException], at: int) -> None:
        self.rows = rows()
        self.error = error
        self.left = at

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.rows[index]


@pytest.mark.parametrize("at", [1, 20])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_the_data_gives_the_trainer_back(tmp_path: Path, error: type[BaseException], at: int) -> None:
    callback = SharedSeedCallback(ALONE)
    trainer = trainer_of(tmp_path, models.llama(), callback, Breaking(error, at))
    with pytest.raises(error):
        trainer.train()
    assert on_grid(callback)
    assert_left_alone(trainer)


class Failing(Trainer):
    """Its fourth evaluation of a loss is an error."""

    error: type[BaseException] = ZeroDivisionError

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        # Not counted on the Trainer, whose counts go by probes.
        EVALUATED.append(float(loss))
        if len(EVALUATED) == 4:
            raise self.error
        return loss


EVALUATED: list[float] = []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_the_loss_gives_the_trainer_back_with_clean_weights(
    tmp_path: Path, error: type[BaseException]
) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    trainer = trainer_of(tmp_path, models.opt(), callback, kind=Failing)
    EVALUATED.clear()
    trainer.error = error
    with pytest.raises(error):
        trainer.train()
    assert len(recorder.steps) == 1
    assert on_grid(callback)
    assert callback.session is not None
    fresh = callback.session.replica.digest()
    callback.session.perturbation.settle()
    assert callback.session.replica.digest() == fresh
    assert_left_alone(trainer)


class BreakingCallback(TrainerCallback):
    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_in_another_callback_gives_the_trainer_back(tmp_path: Path) -> None:
    callback = SharedSeedCallback(ALONE)
    trainer = trainer_of(tmp_path, models.llama(), callback)
    trainer.add_callback(BreakingCallback())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert on_grid(callback)
    assert_left_alone(trainer)


def test_a_loss_that_is_not_finite_abstains(tmp_path: Path) -> None:
    recorder = Recorder()
    model = models.llama()
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    trainer = trainer_of(
        tmp_path,
        model,
        callback,
        trainer={"compute_loss_func": lambda outputs, labels, **_: outputs.logits.sum() * float("nan")},
        max_steps=2,
    )
    model_before = copy.deepcopy(model)
    trainer.train()
    assert [code & 0x7F for codes in recorder.codes for code in codes] == [0x7F, 0x7F]

    Weights.of(model_before, EPSILON)
    assert models.bits(model) == models.bits(model_before)


def test_one_callback_trains_twice_and_the_second_goes_on_from_the_first(tmp_path: Path) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(as_told(number=0), on_step=recorder)
    trainer = trainer_of(tmp_path, models.llama(), callback, max_steps=60, learning_rate=4e-3)
    trainer.train()
    first = callback.outcome
    trainer.train()
    assert first is not None
    assert callback.outcome is not None
    assert callback.outcome.digest != first.digest
    assert len(recorder.steps) == 120
    assert sum(recorder.losses[60:70]) < sum(recorder.losses[:10])
    assert_left_alone(trainer)


def test_one_callback_serves_another_trainer_after_a_failure(tmp_path: Path) -> None:
    callback = SharedSeedCallback(ALONE)
    broken = trainer_of(tmp_path, models.llama(), callback, Breaking(ZeroDivisionError, 20))
    with pytest.raises(ZeroDivisionError):
        broken.train()
    good = trainer_of(tmp_path, models.llama(), callback)
    good.train()
    assert callback.outcome is not None
    assert callback.outcome.messages == 4
    assert_left_alone(good)
    assert_left_alone(broken)


def test_backprop_works_after_the_callback_is_removed(tmp_path: Path) -> None:
    callback = SharedSeedCallback(ALONE)
    model = models.llama()
    trainer = trainer_of(tmp_path, model, callback, optim="adamw_torch")
    trainer.train()
    assert len(trainer.optimizer.state) == 0
    trainer.remove_callback(callback)
    before = models.bits(model)
    trainer.train()
    assert len(trainer.optimizer.state) > 0
    assert models.bits(model) != before


def test_a_callback_outside_a_trainer_says_so() -> None:
    with pytest.raises(RecipeError, match="not in training; pass it to a Trainer"):
        SharedSeedCallback().on_step_end(None, None, None)  # type: ignore[arg-type]


class BrokenStart(TrainerCallback):
    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("first", [True, False])
def test_an_error_at_the_start_of_another_callback_gives_the_trainer_back(tmp_path: Path, first: bool) -> None:
    callback, broken = SharedSeedCallback(ALONE), BrokenStart()
    trainer = trainer_of(tmp_path, models.llama(), broken if first else callback)
    trainer.add_callback(callback if first else broken)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert "on_train_begin" not in vars(broken)
    assert "call_event" not in vars(trainer.callback_handler)
    assert_left_alone(trainer)


def test_an_error_in_the_evaluation_before_the_first_step_gives_the_trainer_back(tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path,
        models.llama(),
        SharedSeedCallback(ALONE),
        trainer={"eval_dataset": Breaking(KeyboardInterrupt, 1)},
        eval_on_start=True,
        eval_strategy="steps",
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert_left_alone(trainer)


def test_an_error_while_the_best_weights_are_loaded_gives_the_trainer_back(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, models.llama(), SharedSeedCallback(ALONE))

    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left")

    trainer.store_flos = broken
    with pytest.raises(OSError, match="no space left"):
        trainer.train()
    assert_left_alone(trainer)


def test_everything_that_was_laid_over_the_trainer_is_lifted(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, models.llama(), SharedSeedCallback(ALONE))
    before = {name for name, value in vars(trainer).items() if callable(value)}
    trainer.train()
    # The card is written after training, and says how the model was trained.
    after = {name for name, value in vars(trainer).items() if callable(value)} - before
    assert after <= {"create_model_card", "model_wrapped", "optimizer", "lr_scheduler"}
