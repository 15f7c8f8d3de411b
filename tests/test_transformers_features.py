"""The Trainer's own features work, or say that they have no effect."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

import models
from shared_seed.errors import HeadroomError
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.integrations.transformers.shadows import Shadows
from told import as_told
from trainers import ALONE, Freezing, Listening, Recorder, assert_left_alone, on_grid, rows, trainer_of


def digest_after(folder: Path, base: Any, **arguments: Any) -> str:
    callback = SharedSeedCallback(ALONE)
    trainer_of(folder, copy.deepcopy(base), callback, **arguments).train()
    assert callback.outcome is not None
    return callback.outcome.digest


def test_torch_compile_has_no_effect_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = models.llama()
    plain = digest_after(tmp_path, base)
    compiled = digest_after(tmp_path, base, torch_compile=True, torch_compile_backend="eager")
    assert compiled == plain
    assert sum("torch_compile has no effect" in record.message for record in caplog.records) == 1


def test_noise_on_embeddings_is_the_same_on_both_sides(tmp_path: Path) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(as_told(epsilon=2.0**-12, number=0), on_step=recorder)
    trainer = trainer_of(tmp_path, models.llama(), callback, neftune_noise_alpha=5.0)
    trainer.train()
    # Other noise on the other side would differ by much more than a step of 2**-12.
    assert all(abs(step.gradient) < 10 for step in recorder.steps)
    assert_left_alone(trainer)


class Drawing(nn.Module):
    """A model that draws from every generator there is."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = models.llama()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        loss = self.inner(input_ids=input_ids, attention_mask=attention_mask, labels=labels).loss
        return {"loss": loss + random.random() + float(np.random.rand()) + torch.rand(())}


def test_draws_in_the_model_are_the_same_on_both_sides(tmp_path: Path) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(as_told(epsilon=2.0**-12, number=0), on_step=recorder)
    trainer_of(tmp_path, Drawing(), callback).train()
    assert all(abs(step.gradient) < 10 for step in recorder.steps)
    assert len(set(recorder.losses)) == 4


class Counting(Trainer):
    """Counts, logs and keeps lists in its loss, as TRL's trainers do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counted = 0
        self.kept: dict[str, list[float]] = {"train": []}

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.counted += 1
        self.kept["train"].append(1.0)
        self.log({"inside": float(self.counted)})
        return loss


def test_what_a_trainer_counts_in_its_loss_counts_once(tmp_path: Path) -> None:
    listening = Listening()
    trainer = trainer_of(
        tmp_path, models.llama(), SharedSeedCallback(ALONE), kind=Counting, gradient_accumulation_steps=2
    )
    trainer.add_callback(listening)
    trainer.train()
    assert trainer.counted == 8
    assert trainer.kept == {"train": [1.0] * 8}
    assert [entry["inside"] for entry in listening.logs if "inside" in entry] == [float(n) for n in range(1, 9)]
    assert_left_alone(trainer)


class WithOutputs(Trainer):
    """A subclass whose training step looks at the outputs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shapes: list[tuple[int, ...]] = []

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        model.train()
        loss, outputs = self.compute_loss(
            model, self._prepare_inputs(inputs), return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        self.shapes.append(tuple(outputs.logits.shape))
        self.accelerator.backward(loss)
        return loss.detach()


def test_a_training_step_that_asks_for_outputs_gets_them(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, models.llama(), SharedSeedCallback(ALONE), kind=WithOutputs)
    trainer.train()
    assert trainer.shapes == [(8, 8, models.VOCABULARY)] * 4
    assert_left_alone(trainer)


class Peeking(TrainerCallback):
    """Evaluates the Trainer's loss between steps, with the model in training mode."""

    def __init__(self) -> None:
        self.trainer: Trainer | None = None
        self.values: list[tuple[float, float]] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        assert self.trainer is not None
        batch = {name: torch.stack([row[name] for row in rows(8)]) for name in rows(1)[0]}
        with torch.no_grad():
            model = self.trainer.model.train()
            self.values.append((float(self.trainer.compute_loss(model, batch)), float(model(**batch).loss)))


def test_a_loss_that_others_ask_for_is_not_a_probe(tmp_path: Path) -> None:
    recorder, peeking = Recorder(), Peeking()
    trainer = trainer_of(tmp_path, models.llama(), SharedSeedCallback(ALONE, on_step=recorder))
    peeking.trainer = trainer
    trainer.add_callback(peeking)
    trainer.train()
    assert len(peeking.values) == 4
    assert all(asked == plain for asked, plain in peeking.values)
    assert [len(codes) for codes in recorder.codes] == [1, 1, 1, 1]


def test_groups_with_learning_rates_of_their_own(tmp_path: Path) -> None:
    model = models.llama()
    before = models.bits(model)
    norms = [p for name, p in model.named_parameters() if "norm" in name]
    others = [p for name, p in model.named_parameters() if "norm" not in name]
    optimizer = torch.optim.SGD([{"params": others, "lr": 2e-3}, {"params": norms, "lr": 0.0}])
    callback = SharedSeedCallback(ALONE)
    trainer = trainer_of(
        tmp_path, model, callback, trainer={"optimizers": (optimizer, None)}, lr_scheduler_type="linear"
    )
    trainer.train()
    after = models.bits(model)
    changed = {name for name in after if after[name] != before[name]}
    assert changed
    assert not any("norm" in name for name in changed)
    assert on_grid(callback)


def test_batch_size_is_found_again_after_an_error_of_memory(tmp_path: Path) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    sizes: list[int] = []

    def loss(outputs: Any, labels: Tensor, **_: Any) -> Tensor:
        sizes.append(len(labels))
        if len(labels) > 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB.")
        return nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    trainer = trainer_of(
        tmp_path, models.llama(), callback, trainer={"compute_loss_func": loss}, auto_find_batch_size=True
    )
    trainer.train()
    assert max(sizes) == 8
    assert max(sizes[-8:]) <= 4
    assert len(recorder.steps) == 4
    assert on_grid(callback)
    assert_left_alone(trainer)


def test_parameters_that_are_frozen_on_the_way_stay_as_they_are(tmp_path: Path) -> None:
    recorder, freezing = Recorder(), Freezing()
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    trainer = trainer_of(tmp_path, models.llama(), callback)
    trainer.add_callback(freezing)
    trainer.train()
    assert len(freezing.frozen) == 2
    assert freezing.frozen.items() <= models.bits(trainer.model).items()
    assert [step.round for step in recorder.steps] == [0, 1, 0, 1]
    assert on_grid(callback)
    assert_left_alone(trainer)


def loudness(outputs: Any, inputs: Any) -> Tensor:
    """A reward without a bound."""
    return outputs.logits.square().mean()


def test_weights_that_leave_their_grid_go_on_in_a_new_run_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    callback = SharedSeedCallback(ALONE, reward=loudness, on_step=recorder)
    trainer = trainer_of(tmp_path, models.llama(), callback, max_steps=100, learning_rate=0.1)
    trainer.train()
    assert trainer.state.global_step == 100
    assert 100 - len(recorder.steps) == sum(step.round == 0 for step in recorder.steps) - 1
    assert any("as a new run on a wider grid" in record.message for record in caplog.records)
    assert on_grid(callback)
    assert_left_alone(trainer)


def test_weights_that_leave_the_grid_of_a_log_end_the_training(tmp_path: Path) -> None:
    callback = SharedSeedCallback(as_told(number=0, folder=tmp_path / "run"), reward=loudness)
    trainer = trainer_of(tmp_path, models.llama(), callback, max_steps=100, learning_rate=0.1)
    with pytest.raises(HeadroomError, match="lower the learning rate"):
        trainer.train()
    assert on_grid(callback)
    assert_left_alone(trainer)


# The parts


class Thing:
    def __init__(self) -> None:
        self.number = 1

    def method(self) -> str:
        return "own"


def test_shadows_give_methods_and_instance_attributes_back() -> None:
    thing = Thing()
    shadows = Shadows(thing)
    shadows.lay("method", lambda own: lambda: own() + " and ours")
    shadows.lay("missing", lambda own: own)
    assert thing.method() == "own and ours"
    shadows.lift()
    assert "method" not in vars(thing)
    assert thing.method() == "own"

    def theirs() -> str:
        return "theirs"

    thing.method = theirs  # type: ignore[method-assign]
    shadows.lay("method", lambda own: lambda: own() + " and ours")
    assert thing.method() == "theirs and ours"
    shadows.lift()
    shadows.lift()
    assert thing.method is theirs
