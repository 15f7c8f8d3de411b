"""What cannot be trained is refused before anything has changed, with a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback
from transformers.optimization import Adafactor, AdafactorSchedule

import models
from shared_seed.errors import ModelError
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.settings import Settings
from trainers import ALONE, Freezing, assert_left_alone, trainer_of


class Pretending(TrainerCallback):
    """Lets the Trainer seem to be set up in a way that this machine cannot have."""

    def __init__(self, change: Callable[[Trainer], None]) -> None:
        self.change = change
        self.trainer: Trainer | None = None

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        assert self.trainer is not None
        self.change(self.trainer)


def attribute(name: str, value: Any) -> Callable[[Trainer], None]:
    return lambda trainer: setattr(trainer, name, value)


def argument(name: str, value: Any) -> Callable[[Trainer], None]:
    return lambda trainer: setattr(trainer.args, name, value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (argument("fp16", True), r"fp16 scales losses.*set bf16=True instead"),
        (attribute("is_deepspeed_enabled", True), r"DeepSpeed shards.*leave args\.deepspeed out.*torchrun"),
        (attribute("is_fsdp_enabled", True), r"FSDP shards the weights.*leave args\.fsdp out.*torchrun"),
        (attribute("is_fsdp_xla_enabled", True), r"FSDP shards the weights"),
        (attribute("is_distributed_loading_by_transformers", True), r"sharded over processes.*without tp_plan"),
        (argument("_n_gpu", 2), r"2 GPUs.*DataParallel.*torchrun --nproc-per-node 2.*CUDA_VISIBLE_DEVICES"),
        (argument("optim", "adalomo"), r"optim='adalomo' updates the weights during a backward.*set optim='sgd'"),
        (argument("optim", "galore_adamw_layerwise"), r"during a backward pass"),
        (argument("gradient_accumulation_steps", 256), r"steps=256.*more than 255.*use larger batches"),
    ],
)
def test_a_set_up_that_cannot_work_is_refused(
    tmp_path: Path, change: Callable[[Trainer], None], sentence: str
) -> None:
    model = models.llama()
    before = models.bits(model)
    pretending = Pretending(change)
    trainer = trainer_of(tmp_path, model, pretending)
    pretending.trainer = trainer
    trainer.add_callback(SharedSeedCallback(ALONE))
    with pytest.raises(ModelError, match=sentence):
        trainer.train()
    assert models.bits(model) == before
    assert_left_alone(trainer)


def test_an_optimizer_that_finds_its_own_learning_rate_is_refused(tmp_path: Path) -> None:
    model = models.llama()
    optimizer = Adafactor(model.parameters(), relative_step=True, warmup_init=True, lr=None)
    callback = SharedSeedCallback(ALONE)
    trainer = trainer_of(
        tmp_path, model, callback, trainer={"optimizers": (optimizer, AdafactorSchedule(optimizer))}
    )
    with pytest.raises(ModelError, match=r"relative_step.*lr=1e-3"):
        trainer.train()
    assert_left_alone(trainer)


def test_lbfgs_is_refused_through_accelerates_wrapper(tmp_path: Path) -> None:
    model = models.llama()
    optimizer = torch.optim.LBFGS(model.parameters())
    trainer = trainer_of(tmp_path, model, SharedSeedCallback(ALONE), trainer={"optimizers": (optimizer, None)})
    with pytest.raises(ModelError, match="LBFGS searches along lines"):
        trainer.train()
    assert_left_alone(trainer)


class Backprop(Trainer):
    """A subclass that takes its gradients by itself."""

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = model(**self._prepare_inputs(inputs)).loss
        loss.backward()
        return loss.detach()


class Both(Trainer):
    """A subclass that adds a gradient to that of its loss."""

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(model, inputs, *args, **kwargs)
        model(**self._prepare_inputs(inputs)).logits.square().mean().backward()
        return loss


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Backprop, r"Backprop\.training_step does not call compute_loss.*override compute_loss"),
        (Both, r"Both\.training_step computes gradients by itself.*override compute_loss"),
    ],
)
def test_a_training_step_of_its_own_is_refused(tmp_path: Path, kind: type[Trainer], sentence: str) -> None:
    trainer = trainer_of(tmp_path, models.llama(), SharedSeedCallback(ALONE), kind=kind)
    with pytest.raises(ModelError, match=sentence):
        trainer.train()
    trainer.model.zero_grad()
    assert_left_alone(trainer)


def test_parameters_that_are_frozen_on_the_way_are_noticed_where_others_share_the_run(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, models.llama(), SharedSeedCallback(Settings(number=0, folder=tmp_path / "run")))
    trainer.add_callback(Freezing())
    with pytest.raises(ModelError, match=r"has changed during a run that other peers or a log share"):
        trainer.train()
    assert trainer.state.global_step == 2
    assert_left_alone(trainer)


class Twice(torch.nn.Module):
    """Reads a Linear's weight without calling the Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = models.llama()
        self.extra = torch.nn.Linear(48, 48)

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> Any:
        out = self.inner(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        logits = out.logits @ self.extra.weight
        return {"loss": out.loss + self.extra(logits).square().mean(), "logits": logits}


def test_a_weight_that_is_read_past_its_module_is_named(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, Twice(), SharedSeedCallback(ALONE))
    with pytest.raises(ModelError, match=r"'extra\.weight' outside the module.*dense=\['extra\.weight'\]"):
        trainer.train()
    assert_left_alone(trainer)
