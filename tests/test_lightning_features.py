"""What a Lightning user has beside the bare loop keeps working under ``strategy="shared_seed"``."""

from __future__ import annotations

import copy
import importlib
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BackboneFinetuning, EarlyStopping, TQDMProgressBar
from torch import nn

import models
from lit import (
    ALONE,
    Counting,
    Module,
    Recorder,
    Validated,
    assert_left_alone,
    batches,
    convolutional,
    images,
    trainer_of,
)
from shared_seed.errors import ModelError
from shared_seed.grid import EPSILON
from shared_seed.integrations.lightning import SharedSeedStrategy
from shared_seed.settings import Settings
from shared_seed.weights import Weights
from told import as_told

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]


class Optimized(Module):
    """Has any optimizer."""

    def __init__(self, optimizer: Any, **more: Any) -> None:
        super().__init__(**more)
        self.build = optimizer

    def configure_optimizers(self) -> Any:
        return self.build(self)


def notices(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(
        record.getMessage()
        for record in caplog.records
        if "shared" in record.getMessage().lower()
        or "weight_decay" in record.getMessage()
        or "gradient_clip" in record.getMessage()
    )


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Any:
    """What was told so far."""
    # Lightning's loggers do not propagate unless the root has handlers.
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(caplog.handler)
    yield lambda: notices(caplog)
    logger.removeHandler(caplog.handler)


def test_unused_moments_are_told_in_one_line(tmp_path: Path, said: Any) -> None:
    module = Optimized(lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=0))
    trainer_of(tmp_path, "shared_seed").fit(module, batches())
    (line,) = set(said().splitlines())
    assert line == (
        "shared-seed finds the learning rate, and takes AdamW's as its schedule; its moments are not used and "
        "take no memory; Settings(promise=None) goes by AdamW's own rate"
    )


def test_plain_sgd_needs_no_notice(tmp_path: Path, said: Any) -> None:
    trainer_of(tmp_path, SharedSeedStrategy(as_told())).fit(Module(), batches())
    assert said() == ""


def test_clipping_by_norm_is_told_to_have_no_effect(tmp_path: Path, said: Any) -> None:
    trainer_of(tmp_path, "shared_seed", gradient_clip_val=0.5).fit(Module(), batches())
    assert "gradient_clip_val=0.5 has no effect" in said()


def test_weight_decay_shrinks_the_weights(tmp_path: Path) -> None:
    """A loss that does not depend on the weights leaves the decay alone at work."""

    class Indifferent(Optimized):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return torch.zeros(())

    def optimizer(module: Any) -> Any:
        return torch.optim.SGD(module.parameters(), lr=2e-3, weight_decay=0.5)

    module = Indifferent(optimizer)
    before = float(torch.cat([p.detach().flatten() for p in module.parameters()]).norm())
    trainer_of(tmp_path, SharedSeedStrategy(ALONE), max_steps=400, max_epochs=-1).fit(module, batches())
    after = float(torch.cat([p.detach().flatten() for p in module.parameters()]).norm())
    # exp(-2e-3 * 0.5 * 400) = 0.67, with the noise of 400 directions on top.
    assert 0.55 < after / before < 0.8


def test_each_parameter_group_has_its_own_learning_rate(tmp_path: Path) -> None:
    def optimizer(module: Any) -> Any:
        first, last = module.model[0], module.model[3]
        groups = [{"params": first.parameters(), "lr": 1e-3}, {"params": last.parameters(), "lr": 1e-1}]
        return torch.optim.SGD(groups)

    module = Optimized(optimizer)
    before = copy.deepcopy(module)
    Weights.of(before, EPSILON)
    strategy = SharedSeedStrategy(ALONE)
    trainer_of(tmp_path, strategy, max_steps=1).fit(module, batches())
    moved = {
        name: float((p - q).detach().abs().max())
        for (name, p), (_, q) in zip(module.named_parameters(), before.named_parameters(), strict=True)
    }
    assert moved["model.3.weight"] == pytest.approx(100 * moved["model.0.weight"], rel=1e-3)
    # LayerNorm is in no group, so it is not trained.
    assert moved["model.2.weight"] == moved["model.2.bias"] == 0


def test_frozen_parameters_stay(tmp_path: Path) -> None:
    module = Module(convolutional())
    module.model[0].requires_grad_(False)
    before = models.bits(module.model[0])
    trainer_of(tmp_path, SharedSeedStrategy(ALONE)).fit(module, batches(images()))
    assert models.bits(module.model[0]) == before
    assert not any(p.requires_grad for p in module.model[0].parameters())
    assert_left_alone(module)


class Tuned(Module):
    """A backbone and a head, as Lightning's finetuning callback expects."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = self.model[:3]
        self.head = self.model[3]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.02)


@pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist")
def test_a_backbone_that_is_unfrozen_on_the_way_is_trained_from_then_on(tmp_path: Path) -> None:
    module, recorder = Tuned(), Recorder()
    kept: list[str] = []

    class Watching(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            kept.append(str(models.bits(module.backbone)))

    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=2, backbone_initial_lr=0.01, verbose=False)
    strategy = SharedSeedStrategy(ALONE, on_step=recorder)
    trainer_of(tmp_path, strategy, max_steps=-1, max_epochs=4, callbacks=[finetuning, Watching()]).fit(
        module, batches()
    )
    assert kept[0] == kept[1]
    assert len(set(kept[1:])) == 3
    assert len(recorder.steps) == 16
    assert_left_alone(module)


def test_what_is_trained_may_not_change_under_a_run_with_a_log(tmp_path: Path) -> None:
    class Freezing(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                module.model[0].weight.requires_grad_(False)

    strategy = SharedSeedStrategy(Settings(folder=tmp_path / "run"))
    with pytest.raises(ModelError, match="has changed during a run that other peers or a log share"):
        trainer_of(tmp_path, strategy, callbacks=[Freezing()]).fit(Module(), batches())


def test_early_stopping_stops(tmp_path: Path) -> None:
    class Flat(Validated):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("validation", torch.ones(()))

    stopping = EarlyStopping("validation", patience=2)
    strategy = SharedSeedStrategy(ALONE)
    trainer = trainer_of(tmp_path, strategy, max_steps=-1, max_epochs=50, callbacks=[stopping])
    trainer.fit(Flat(), batches(), batches())
    assert trainer.current_epoch == 3
    assert strategy.outcome is not None
    assert strategy.outcome.messages == 12


class Measured(Module):
    """Keeps a metric and returns more than a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=2)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, labels = batch
        logits = self.model(inputs)
        self.accuracy(logits, labels)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_a_metric_of_torchmetrics_counts_every_batch_once(tmp_path: Path) -> None:
    module, logger = Measured(), Counting()
    counts: list[int] = []

    class Watching(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            counts.append(int(module.accuracy.update_count))

    trainer_of(tmp_path, SharedSeedStrategy(ALONE), logger=logger, callbacks=[Watching()]).fit(module, batches())
    assert counts == [1, 2, 3, 4]
    (accuracy,) = logger.of("accuracy")
    assert 0 <= accuracy <= 1


def test_a_reward_that_has_no_gradient_is_maximised(tmp_path: Path) -> None:
    """Accuracy is flat almost everywhere; a wide step sees it all the same."""
    rewards: list[float] = []

    def accuracy(output: Any, batch: Any) -> float:
        rewards.append(float((output["logits"].argmax(1) == batch[1]).float().mean()))
        return rewards[-1]

    module, recorder = Measured(), Recorder()
    strategy = SharedSeedStrategy(as_told(epsilon=2.0**-3), reward=accuracy, on_step=recorder)
    trainer = trainer_of(tmp_path, strategy, max_steps=150, max_epochs=-1)
    trainer.fit(module, batches(size=64))
    assert sum(rewards[-20:]) / 20 > sum(rewards[:20]) / 20 + 0.15
    assert sum(recorder.losses[-10:]) / 10 == pytest.approx(-sum(rewards[-20:]) / 20)
    # What the Trainer logs as the loss stays the loss.
    assert float(trainer.callback_metrics.get("loss", 0)) >= 0


def test_loggers_get_the_projected_gradient_peers_and_bytes(tmp_path: Path) -> None:
    logger, recorder = Counting(), Recorder()
    strategy = SharedSeedStrategy(ALONE, show=True, on_step=recorder)
    trainer_of(tmp_path, strategy, logger=logger, log_every_n_steps=2).fit(Module(), batches())
    found = logger.of("projected_grad")
    assert found == [step.gradient for step in recorder.steps][1::2]
    assert logger.of("peers") == [1, 1]
    assert logger.of("bytes_sent") == logger.of("bytes_received") == [0, 0]


def test_the_progress_bar_shows_peers_and_projected_gradient_while_training(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    class Bar(TQDMProgressBar):
        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            super().on_train_batch_end(trainer, module, *args)
            seen.append(dict(self.get_metrics(trainer, module)))

    bar = Bar(refresh_rate=1)
    module, recorder = Module(), Recorder()
    strategy = SharedSeedStrategy(ALONE, show=True, on_step=recorder)
    trainer_of(tmp_path, strategy, enable_progress_bar=True, callbacks=[bar]).fit(module, batches())
    assert [metrics["peers"] for metrics in seen] == [1] * 4
    assert [float(m["projected_grad"]) for m in seen] == pytest.approx(
        [step.gradient for step in recorder.steps], rel=1e-2
    )
    assert "get_metrics" not in bar.__dict__


def test_accumulated_batches_have_directions_of_their_own(tmp_path: Path) -> None:
    recorder = Recorder()
    strategy = SharedSeedStrategy(ALONE, on_step=recorder)
    trainer_of(tmp_path, strategy, max_steps=1, accumulate_grad_batches=4).fit(Module(), batches())
    (codes,) = recorder.codes
    assert len(codes) == len(set(codes)) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"precision": "16-true"}, "precision='16-true' keeps trainable weights neither in float32"),
        ({"precision": "64-true"}, "precision='64-true' keeps trainable weights neither in float32"),
        ({"sync_batchnorm": True}, "sync_batchnorm=True needs the activations of all processes"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(tmp_path: Path, arguments: Any, said: str) -> None:
    module = Module()
    with pytest.raises(ModelError, match=said):
        trainer_of(tmp_path, "shared_seed", **arguments).fit(module, batches())
    assert module.evaluated.batches == []


def test_losses_that_are_not_finite_abstain_and_are_told_of_once(tmp_path: Path, said: Any) -> None:
    module, recorder = Module(), Recorder()
    Weights.of(module, EPSILON)
    before = models.bits(module)
    module.training_step = lambda batch, batch_idx: module.model(batch[0]).mean() * float("nan")  # type: ignore[method-assign]
    trainer_of(tmp_path, SharedSeedStrategy(ALONE, on_step=recorder)).fit(module, batches())
    assert [step.abstained for step in recorder.steps] == [1] * 4
    assert models.bits(module) == before


def test_what_a_module_prints_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Printing(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.print(f"batch {batch_idx}")
            return super().training_step(batch, batch_idx)

    trainer_of(tmp_path, "shared_seed").fit(Printing(), batches())
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("batch")]
    assert printed == ["batch 0", "batch 1", "batch 2", "batch 3"]


def test_detect_anomaly_stops_at_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    module = Module()
    module.training_step = lambda batch, batch_idx: module.model(batch[0]).mean() * float("nan")  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="detect_anomaly: the loss is nan on one side of the probe"):
        trainer_of(tmp_path, "shared_seed", detect_anomaly=True).fit(module, batches())
    del module.training_step
    assert_left_alone(module)


def test_join_and_listen_are_shorthands_of_the_settings() -> None:
    strategy = SharedSeedStrategy(Settings(name="me"), join="tcp://there:5555", listen="tcp://127.0.0.1:5555")
    assert strategy.settings == Settings(name="me", join=("tcp://there:5555",), listen="tcp://127.0.0.1:5555")
    assert SharedSeedStrategy(join=["tcp://a:1", "tcp://b:2"]).settings.join == ("tcp://a:1", "tcp://b:2")


def test_lightning_trains_under_its_other_name_too(tmp_path: Path) -> None:
    import pytorch_lightning

    class Plain(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = models.mlp(6, 8, 2)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.02)

    module = Plain()
    before = models.bits(module)
    trainer = pytorch_lightning.Trainer(
        strategy="shared_seed",
        accelerator="cpu",
        max_steps=4,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, batches())
    assert type(trainer.strategy).__module__ == "shared_seed.integrations.pytorch_lightning"
    assert trainer.strategy.outcome.messages == 4
    assert models.bits(module) != before


@pytest.mark.parametrize("home", ["lightning", "pytorch_lightning"])
def test_the_class_is_found_again_by_its_name(home: str) -> None:
    kind = importlib.import_module(f"shared_seed.integrations.{home}").SharedSeedStrategy
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert "reward" in kind.__doc__
