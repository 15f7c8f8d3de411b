"""A real Hugging Face Trainer trains without backprop."""

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
from shared_seed import log, replay
from shared_seed.errors import LogError, ManifestMismatchError
from shared_seed.folder import LOG_NAME
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.settings import Settings
from told import as_told
from trainers import ALONE, Recorder, Rows, assert_left_alone, on_grid, rows, token_mean, trainer_of, uneven_rows


@pytest.mark.parametrize(("build", "rate"), [(models.llama, 5e-3), (models.opt, 1e-2), (models.gpt2, 1e-2)])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw_torch"])
def test_the_loss_goes_down_without_gradients_or_optimizer_state(
    tmp_path: Path, build: Callable[[], Any], rate: float, optimizer: str
) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(as_told(number=0), on_step=recorder)
    trainer = trainer_of(tmp_path, build(), callback, max_steps=120, learning_rate=rate, optim=optimizer)
    result = trainer.train()
    assert len(recorder.steps) == 120
    assert sum(recorder.losses[-10:]) / 10 < recorder.losses[0] - 0.5
    assert result.training_loss == pytest.approx(sum(recorder.losses) / 120, rel=1e-3)
    assert len(trainer.optimizer.state) == 0
    assert_left_alone(trainer)
    assert callback.outcome is not None
    assert (callback.outcome.messages, callback.outcome.gradients) == (120, 120)
    assert on_grid(callback)


def test_a_promise_finds_the_learning_rate_whatever_the_trainer_says(tmp_path: Path) -> None:
    base, found = models.llama(), []
    for number, rate in enumerate((1e-6, 5e-2)):
        recorder = Recorder()
        callback = SharedSeedCallback(Settings(promise=0.02, number=0), on_step=recorder)
        given: dict[str, Any] = {"learning_rate": rate, "lr_scheduler_type": "linear"}
        trainer_of(tmp_path / str(number), copy.deepcopy(base), callback, max_steps=60, **given).train()
        assert sum(recorder.losses[-10:]) / 10 < recorder.losses[0] - 0.1
        assert recorder.steps[-1].learning_rate < recorder.steps[30].learning_rate
        found.append([step.learning_rate for step in recorder.steps[:5]])
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("build", [models.llama, models.opt])
def test_the_log_gives_the_trained_weights_again(tmp_path: Path, build: Callable[[], Any]) -> None:
    model = build()
    base = copy.deepcopy(model)
    callback = SharedSeedCallback(as_told(folder=tmp_path / "run", seed=5, number=0))
    trainer = trainer_of(tmp_path, model, callback, max_steps=6, gradient_accumulation_steps=2)
    trainer.train()
    contents = log.read(tmp_path / "run" / LOG_NAME)
    assert [len(m.codes) for m in contents.messages] == [2] * 6
    assert callback.outcome is not None
    assert contents.digest == (6, bytes.fromhex(callback.outcome.digest))
    replica = replay.rebuild(base, contents)
    assert replica.digest().hex() == callback.outcome.digest
    assert models.bits(base) == models.bits(model)


def test_replay_from_another_base_is_refused(tmp_path: Path) -> None:
    callback = SharedSeedCallback(as_told(folder=tmp_path / "run", number=0))
    trainer_of(tmp_path, models.llama(), callback).train()
    with pytest.raises(ManifestMismatchError, match="load the same base model"):
        replay.rebuild(models.llama(), log.read(tmp_path / "run" / LOG_NAME))


def test_the_run_folder_must_not_be_another_models(tmp_path: Path) -> None:
    callback = SharedSeedCallback(as_told(folder=tmp_path / "run", number=0))
    trainer_of(tmp_path, models.llama(), callback).train()
    trainer = trainer_of(tmp_path, models.llama(), SharedSeedCallback(as_told(folder=tmp_path / "run", number=0)))
    with pytest.raises((ManifestMismatchError, LogError)):
        trainer.train()
    assert_left_alone(trainer)


def test_the_same_seed_trains_the_same_bits(tmp_path: Path) -> None:
    base = models.opt()
    digests = set()
    for _ in range(2):
        callback = SharedSeedCallback(as_told(number=0))
        trainer_of(tmp_path, copy.deepcopy(base), callback).train()
        assert callback.outcome is not None
        digests.add(callback.outcome.digest)
    assert len(digests) == 1


# Losses and accumulation


def own_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """What users are told to pass: a sum over tokens, divided by the items of the whole accumulated batch."""
    kind = "sum" if num_items_in_batch is not None else "mean"
    loss = nn.functional.cross_entropy(
        outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction=kind
    )
    return loss / num_items_in_batch if num_items_in_batch is not None else loss


class OldStyle(nn.Module):
    """A model whose forward takes no keyword arguments, so that its losses are means of micro-batches."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.inner(input_ids=input_ids, attention_mask=attention_mask).logits
        if labels is None:
            return {"logits": logits}
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return {"loss": loss, "logits": logits}


@pytest.mark.parametrize("accumulated", [1, 4])
@pytest.mark.parametrize("loss", ["the model's", "a function"])
def test_accumulated_losses_are_means_over_all_tokens(tmp_path: Path, accumulated: int, loss: str) -> None:
    recorder = Recorder()
    model = models.llama()
    data = uneven_rows()
    trainer = trainer_of(
        tmp_path,
        model,
        SharedSeedCallback(as_told(epsilon=2.0**-12, number=0), on_step=recorder),
        data,
        trainer={"compute_loss_func": own_loss} if loss == "a function" else None,
        max_steps=1,
        learning_rate=0.0,
        per_device_train_batch_size=16 // accumulated,
        gradient_accumulation_steps=accumulated,
    )
    result = trainer.train()
    assert [len(codes) for codes in recorder.codes] == [accumulated]
    expected = token_mean(model, data)
    assert recorder.losses == [pytest.approx(expected, rel=1e-4)]
    assert result.training_loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("accumulated", [1, 4])
def test_accumulated_losses_of_an_old_style_model_are_means_of_micro_batches(
    tmp_path: Path, accumulated: int
) -> None:
    recorder = Recorder()
    model = OldStyle(models.llama())
    data = rows(16)
    trainer = trainer_of(
        tmp_path,
        model,
        SharedSeedCallback(as_told(epsilon=2.0**-12, number=0), on_step=recorder),
        data,
        max_steps=1,
        learning_rate=0.0,
        per_device_train_batch_size=16 // accumulated,
        gradient_accumulation_steps=accumulated,
    )
    result = trainer.train()
    assert [len(codes) for codes in recorder.codes] == [accumulated]
    expected = token_mean(model.inner, data)
    assert recorder.losses == [pytest.approx(expected, rel=1e-4)]
    assert result.training_loss == pytest.approx(expected, rel=1e-4)


def test_the_last_accumulation_of_an_epoch_may_be_shorter(tmp_path: Path) -> None:
    recorder = Recorder()
    model = models.llama()
    data = rows(24)
    trainer_of(
        tmp_path,
        model,
        SharedSeedCallback(ALONE, on_step=recorder),
        data,
        max_steps=-1,
        num_train_epochs=1,
        learning_rate=0.0,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
    ).train()
    assert [len(codes) for codes in recorder.codes] == [2, 1]
    for loss in recorder.losses:
        assert loss == pytest.approx(token_mean(model, data), rel=0.05)


def test_label_smoothing_is_in_the_measured_loss(tmp_path: Path) -> None:
    recorder = Recorder()
    model, data = models.llama(), rows(8)
    trainer = trainer_of(
        tmp_path,
        model,
        SharedSeedCallback(as_told(epsilon=2.0**-12, number=0), on_step=recorder),
        data,
        max_steps=1,
        learning_rate=0.0,
        label_smoothing_factor=0.3,
    )
    trainer.train()
    batch = {name: torch.stack([row[name] for row in data]) for name in data[0]}
    with torch.no_grad():
        log_p = model(input_ids=batch["input_ids"]).logits[:, :-1].log_softmax(-1)
    picked = log_p.gather(-1, batch["labels"][:, 1:, None]).mean()
    expected = -(0.7 * picked + 0.3 * log_p.mean())
    assert recorder.losses == [pytest.approx(float(expected), rel=1e-4)]


class Doubling(Trainer):
    """A subclass with a loss of its own, which takes things out of its inputs."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = 2 * nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return (loss, outputs) if return_outputs else loss


def test_a_subclass_keeps_its_own_loss(tmp_path: Path) -> None:
    recorder = Recorder()
    model, data = models.llama(), rows(8)
    trainer = trainer_of(
        tmp_path,
        model,
        SharedSeedCallback(as_told(epsilon=2.0**-12, number=0), on_step=recorder),
        data,
        kind=Doubling,
        max_steps=1,
        learning_rate=0.0,
    )
    trainer.train()
    assert recorder.losses == [pytest.approx(2 * token_mean(model, data), rel=1e-3)]
    assert_left_alone(trainer)


def test_a_loss_set_on_the_instance_is_given_back(tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = trainer_of(tmp_path, models.llama(), SharedSeedCallback(ALONE, on_step=recorder))
    own = trainer.compute_loss

    def tripled(*args: Any, **kwargs: Any) -> Any:
        return 3 * own(*args, **kwargs)

    trainer.compute_loss = tripled
    trainer.train()
    assert trainer.compute_loss is tripled
    assert recorder.losses[0] > 6


def test_the_learning_rate_follows_the_trainers_schedule(tmp_path: Path) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    trainer_of(tmp_path, models.llama(), callback, lr_scheduler_type="linear", learning_rate=4e-3).train()
    assert [step.learning_rate for step in recorder.steps] == pytest.approx([4e-3, 3e-3, 2e-3, 1e-3])
    assert [step.round for step in recorder.steps] == [0, 1, 2, 3]


class Watching(TrainerCallback):
    """Notes, at every evaluation, its loss and what the loss is at the weights as they stand."""

    def __init__(self, data: Rows) -> None:
        self.data = data
        self.told: list[float] = []
        self.found: list[float] = []
        self.bits: list[dict[str, bytes]] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        self.told.append(kwargs["metrics"]["eval_loss"])
        training = model.training
        self.found.append(token_mean(model.eval(), self.data))
        model.train(training)


def test_evaluation_during_training_sees_clean_weights_and_its_own_loss(tmp_path: Path) -> None:
    data = rows(16)
    watching, recorder = Watching(data), Recorder()
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    trainer = trainer_of(
        tmp_path,
        models.opt(),
        callback,
        trainer={"eval_dataset": data},
        eval_strategy="steps",
        eval_steps=2,
        max_steps=6,
        per_device_eval_batch_size=16,
    )
    trainer.add_callback(watching)
    trainer.train()
    assert len(watching.told) == 3
    assert watching.told == pytest.approx(watching.found, rel=1e-4)
    assert on_grid(callback)
    assert len(recorder.steps) == 6
