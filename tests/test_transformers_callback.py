"""A real Hugging Face Trainer trains without backprop, and is its old self afterwards."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import models
from shared_seed import log, replay
from shared_seed.errors import LogError, ManifestMismatchError, ModelError, RecipeError
from shared_seed.folder import LOG_NAME
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.outcome import Step
from shared_seed.session import Session
from shared_seed.settings import Settings

Rows = list[dict[str, Tensor]]

ALONE = Settings(number=0)
"""With a number, a run is the same every time."""

THREADS: set[threading.Thread] = set()
"""Those that ran before the test."""


@pytest.fixture(autouse=True)
def _threads_before() -> None:
    THREADS.clear()
    THREADS.update(threading.enumerate())


def rows(count: int = 32, length: int = 8) -> Rows:
    """Sentences that count upwards in steps of one among eight words: learnable."""
    generator = torch.Generator().manual_seed(2)
    starts = torch.randint(0, 8, (count,), generator=generator)
    ids = [3 + (start + torch.arange(length)) % 8 for start in starts]
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row.clone()} for row in ids]


class Recorder:
    """Keeps every step and what the model was then."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.codes: list[bytes] = []

    def __call__(self, session: Session, step: Step) -> None:
        self.steps.append(step)
        self.codes = [m.codes for m in session.protocol.messages]

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]


def trainer_of(
    folder: Path,
    model: Any,
    callback: TrainerCallback,
    data: Any = None,
    kind: type[Trainer] = Trainer,
    trainer: dict[str, Any] | None = None,
    **arguments: Any,
) -> Trainer:
    defaults = {
        "output_dir": str(folder / "out"),
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "learning_rate": 2e-3,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return kind(
        model=model,
        args=TrainingArguments(**(defaults | arguments)),
        train_dataset=rows() if data is None else data,
        callbacks=[callback],
        **(trainer or {}),
    )


def assert_left_alone(trainer: Trainer) -> None:
    assert "compute_loss" not in trainer.__dict__
    assert trainer.compute_loss.__func__ is type(trainer).compute_loss
    assert models.hooks(trainer.model) == 0
    assert all(p.grad is None for p in trainer.model.parameters())
    assert set(threading.enumerate()) <= THREADS


def on_grid(callback: SharedSeedCallback) -> bool:
    assert callback.session is not None
    weights = callback.session.replica.weights
    return all(bool((t.values.double() / t.grid.unit % 1 == 0).all()) for t in weights)


@pytest.mark.parametrize(("build", "rate"), [(models.llama, 5e-3), (models.opt, 1e-2), (models.gpt2, 1e-2)])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw_torch"])
def test_the_loss_goes_down_without_gradients_or_optimizer_state(
    tmp_path: Path, build: Callable[[], Any], rate: float, optimizer: str
) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(Settings(number=0), on_step=recorder)
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


@pytest.mark.parametrize("build", [models.llama, models.opt])
def test_the_log_gives_the_trained_weights_again(tmp_path: Path, build: Callable[[], Any]) -> None:
    model = build()
    base = copy.deepcopy(model)
    callback = SharedSeedCallback(Settings(folder=tmp_path / "run", seed=5, number=0))
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
    callback = SharedSeedCallback(Settings(folder=tmp_path / "run", number=0))
    trainer_of(tmp_path, models.llama(), callback).train()
    with pytest.raises(ManifestMismatchError, match="load the same base model"):
        replay.rebuild(models.llama(), log.read(tmp_path / "run" / LOG_NAME))


def test_the_run_folder_must_not_be_another_models(tmp_path: Path) -> None:
    callback = SharedSeedCallback(Settings(folder=tmp_path / "run", number=0))
    trainer_of(tmp_path, models.llama(), callback).train()
    trainer = trainer_of(tmp_path, models.llama(), SharedSeedCallback(Settings(folder=tmp_path / "run", number=0)))
    with pytest.raises((ManifestMismatchError, LogError)):
        trainer.train()
    assert_left_alone(trainer)


def test_the_same_seed_trains_the_same_bits(tmp_path: Path) -> None:
    base = models.opt()
    digests = set()
    for _ in range(2):
        callback = SharedSeedCallback(Settings(number=0))
        trainer_of(tmp_path, copy.deepcopy(base), callback).train()
        assert callback.outcome is not None
        digests.add(callback.outcome.digest)
    assert len(digests) == 1


# Losses and accumulation


def token_mean(model: Any, data: Rows) -> float:
    """The mean loss over all predicted tokens of all rows, one row at a time."""
    total, count = 0.0, 0
    with torch.no_grad():
        for row in data:
            logits = model(input_ids=row["input_ids"][None]).logits[0, :-1]
            wanted = row["labels"][1:]
            total += float(nn.functional.cross_entropy(logits, wanted, reduction="sum"))
            count += int((wanted != -100).sum())
    return total / count


def uneven_rows() -> Rows:
    data = rows(16)
    for i, row in enumerate(data):
        row["labels"][: i % 6] = -100
    return data


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
        SharedSeedCallback(Settings(epsilon=2.0**-12, number=0), on_step=recorder),
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
        SharedSeedCallback(Settings(epsilon=2.0**-12, number=0), on_step=recorder),
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
        SharedSeedCallback(Settings(epsilon=2.0**-12, number=0), on_step=recorder),
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
        SharedSeedCallback(Settings(epsilon=2.0**-12, number=0), on_step=recorder),
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


# Precision and adapters


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


def test_a_model_in_bf16_is_refused_before_training(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, models.llama().to(torch.bfloat16), SharedSeedCallback(ALONE))
    with pytest.raises(ModelError, match=r"expected torch\.float32"):
        trainer.train()
    assert_left_alone(trainer)


# Evaluation during training


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


# How training may end


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
    """Its third loss is an error."""

    calls = 0
    error: type[BaseException] = ZeroDivisionError

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.calls += 1
        if self.calls == 4:
            raise self.error
        return loss


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_the_loss_gives_the_trainer_back_with_clean_weights(
    tmp_path: Path, error: type[BaseException]
) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    trainer = trainer_of(tmp_path, models.opt(), callback, kind=Failing)
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
    from shared_seed.weights import Weights

    Weights.of(model_before, callback.settings.epsilon)
    assert models.bits(model) == models.bits(model_before)


def test_one_callback_trains_twice_and_the_second_goes_on_from_the_first(tmp_path: Path) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(Settings(number=0), on_step=recorder)
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
