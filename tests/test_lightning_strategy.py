"""A real Lightning Trainer trains without backprop under ``strategy="shared_seed"``."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, Dataset

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
    table,
    trainer_of,
)
from shared_seed import codec, log, replay
from shared_seed.errors import ModelError
from shared_seed.folder import LOG_NAME
from shared_seed.grid import EPSILON
from shared_seed.integrations.lightning import SharedSeedStrategy
from shared_seed.rate import Rate
from shared_seed.settings import Settings
from shared_seed.weights import Weights
from told import as_told

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize(("kind", "steps", "rate"), [("table", 150, 0.02), ("images", 150, 0.01)])
def test_the_loss_goes_down_without_gradients_or_optimizer_state(
    tmp_path: Path, kind: str, steps: int, rate: float, optimizer: str
) -> None:
    module = Module(convolutional() if kind == "images" else None, rate, optimizer)
    recorder = Recorder()
    strategy = SharedSeedStrategy(as_told(number=0), on_step=recorder)
    trainer = trainer_of(tmp_path, strategy, max_steps=steps)
    trainer.fit(module, batches(images() if kind == "images" else table()))
    assert len(recorder.steps) == steps == trainer.global_step
    assert sum(recorder.losses[-10:]) / 10 < 0.7 * recorder.losses[0]
    assert len(trainer.optimizers[0].state) == 0
    assert strategy.outcome is not None
    assert strategy.outcome.gradients == steps
    assert_left_alone(module)


def test_the_strategy_is_known_by_name(tmp_path: Path) -> None:
    module = Module()
    trainer = trainer_of(tmp_path, "shared_seed")
    trainer.fit(module, batches())
    assert isinstance(trainer.strategy, SharedSeedStrategy)
    assert trainer.strategy.outcome is not None
    assert trainer.strategy.outcome.messages == 4
    assert trainer.strategy.root_device == torch.device("cpu")
    assert_left_alone(module)


@pytest.mark.parametrize("accumulated", [1, 4])
def test_accumulated_batches_are_one_message_of_their_mean(tmp_path: Path, accumulated: int) -> None:
    module, recorder = Module(rate=0.0), Recorder()
    strategy = SharedSeedStrategy(as_told(epsilon=2.0**-12, number=0), on_step=recorder)
    size = 64 // accumulated
    trainer_of(tmp_path, strategy, max_steps=1, accumulate_grad_batches=accumulated).fit(
        module, batches(size=size)
    )
    assert [len(codes) for codes in recorder.codes] == [accumulated]
    inputs, labels = table().tensors
    with torch.no_grad():
        expected = float(nn.functional.cross_entropy(module.model(inputs), labels))
    assert recorder.losses == [pytest.approx(expected, rel=1e-4)]


def test_accumulation_left_over_at_the_end_of_an_epoch_is_a_shorter_message(tmp_path: Path) -> None:
    recorder = Recorder()
    strategy = SharedSeedStrategy(ALONE, on_step=recorder)
    trainer = trainer_of(tmp_path, strategy, max_steps=-1, max_epochs=2, accumulate_grad_batches=3)
    trainer.fit(Module(), batches())
    assert [len(codes) for codes in recorder.codes] == [3, 1, 3, 1]


def test_every_batch_is_evaluated_twice_and_logged_once(tmp_path: Path) -> None:
    module, logger = Module(), Counting()
    trainer_of(tmp_path, SharedSeedStrategy(ALONE), max_steps=4, logger=logger).fit(module, batches())
    assert module.evaluated.batches == [0, 0, 1, 1, 2, 2, 3, 3]
    assert module.batches == [0, 1, 2, 3]
    logged = logger.of("loss_step")
    assert len(logged) == 4
    assert logged == pytest.approx(module.evaluated.losses[0::2], rel=1e-5)
    assert logger.of("double") == pytest.approx([2 * loss for loss in module.evaluated.losses[0::2]], rel=1e-5)
    assert logger.of("loss_epoch") == [pytest.approx(sum(module.evaluated.losses[0::2]) / 4, rel=1e-5)]
    assert [step for step, metrics in logger.lines if "loss_step" in metrics] == [0, 1, 2, 3]


class Metric(Module):
    """Counts rows in a buffer, as metrics do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros((), dtype=torch.long))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.rows += len(batch[0])
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("root", ["", "model"])
def test_buffers_count_every_batch_once_also_outside_what_is_trained(tmp_path: Path, root: str) -> None:
    module = Metric()
    trainer_of(tmp_path, SharedSeedStrategy(ALONE, root=root), max_steps=4).fit(module, batches())
    assert int(module.rows) == 64


@pytest.mark.parametrize("root", ["", "model"])
def test_batch_norm_advances_once_a_batch(tmp_path: Path, root: str) -> None:
    module = Module(convolutional())
    trainer_of(tmp_path, SharedSeedStrategy(ALONE, root=root), max_steps=2).fit(module, batches(images()))
    norm = module.model[1]
    assert int(norm.num_batches_tracked) == 2
    assert bool(torch.isfinite(norm.running_var).all())


def test_a_trainable_parameter_outside_the_root_is_refused(tmp_path: Path) -> None:
    module = Module()
    module.temperature = nn.Parameter(torch.ones(1))
    with pytest.raises(ModelError, match="'temperature' lies outside root='model'"):
        trainer_of(tmp_path, SharedSeedStrategy(ALONE, root="model")).fit(module, batches())
    assert models.hooks(module) == 0


class Scheduled(Module):
    interval = "step"

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.08)
        halving = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": halving, "interval": self.interval}}


@pytest.mark.parametrize(
    ("interval", "expected"), [("step", [0.08, 0.04, 0.02, 0.01]), ("epoch", [0.08, 0.08, 0.04, 0.04])]
)
def test_the_learning_rate_follows_the_scheduler(tmp_path: Path, interval: str, expected: list[float]) -> None:
    module, recorder = Scheduled(), Recorder()
    module.interval = interval
    trainer = trainer_of(tmp_path, SharedSeedStrategy(ALONE, on_step=recorder), max_steps=4, max_epochs=9)
    trainer.fit(module, batches(size=32))
    assert [step.learning_rate for step in recorder.steps] == pytest.approx(expected)


def test_a_promise_finds_the_learning_rate_and_the_scheduler_gives_its_shape(tmp_path: Path) -> None:
    module, recorder = Scheduled(), Recorder()
    settings = Settings(directions=1, epsilon=2.0**-6, folder=tmp_path / "run", number=0)
    strategy = SharedSeedStrategy(settings)
    strategy.on_step = recorder
    trainer_of(tmp_path, strategy, max_steps=4, max_epochs=9).fit(module, batches(size=32))
    followed = Rate(0.01, 2.0**-6, 0)
    expected = []
    for step, message in zip(recorder.steps, log.read(tmp_path / "run" / LOG_NAME).messages, strict=True):
        followed.note(message.codes)
        followed.learn(step.loss)
        expected.append(0.5**message.number * followed.value())
        followed.went([message])
    assert [step.learning_rate for step in recorder.steps] == pytest.approx(expected)


class Returning(Module):
    """Returns something else than a loss."""

    def __init__(self, returned: Any) -> None:
        super().__init__()
        self.returned = returned

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return self.returned(loss)


class Outputs(Callback):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any) -> None:
        self.seen.append(outputs)


def test_a_dict_with_a_loss_passes_the_rest_on(tmp_path: Path) -> None:
    outputs = Outputs()
    module = Returning(lambda loss: {"loss": loss, "note": "kept"})
    trainer_of(tmp_path, SharedSeedStrategy(ALONE), callbacks=[outputs]).fit(module, batches())
    assert [out["note"] for out in outputs.seen] == ["kept"] * 4
    for i, out in enumerate(outputs.seen):
        assert float(out["loss"]) == pytest.approx(module.evaluated.losses[2 * i], rel=1e-5)


@pytest.mark.parametrize("returned", [lambda loss: {"los": loss}, lambda loss: "loss"])
def test_a_step_without_a_loss_is_refused_as_ever(tmp_path: Path, returned: Any) -> None:
    module = Returning(returned)
    with pytest.raises(MisconfigurationException, match=r"(?i)in automatic.optimization, .*training_step"):
        trainer_of(tmp_path, SharedSeedStrategy(ALONE)).fit(module, batches())
    assert_left_alone(module)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_step_that_returns_none_is_skipped_and_moves_nothing(tmp_path: Path) -> None:
    module, recorder = Returning(lambda loss: None), Recorder()
    trainer = trainer_of(tmp_path, SharedSeedStrategy(ALONE, on_step=recorder))
    Weights.of(module, EPSILON)
    before = models.bits(module)
    trainer.fit(module, batches())
    assert trainer.global_step == 4
    assert module.evaluated.batches == [0, 1, 2, 3]
    assert [step.abstained for step in recorder.steps] == [1] * 4
    assert models.bits(module) == before


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_one_of_several_accumulated_batches_may_have_no_loss(tmp_path: Path) -> None:
    recorder = Recorder()
    module = Returning(lambda loss: None)
    module.returned = lambda loss: loss if module.batches[-1] % 2 else None
    strategy = SharedSeedStrategy(ALONE, on_step=recorder)
    trainer_of(tmp_path, strategy, max_steps=2, accumulate_grad_batches=2).fit(module, batches())
    assert [step.abstained for step in recorder.steps] == [1, 1]
    assert [[codec.is_abstention(code) for code in codes] for codes in recorder.codes] == [[True, False]] * 2


class FromIterator(Module):
    """Fetches its batches itself."""

    def training_step(self, dataloader_iter: Iterator[Any]) -> Any:  # type: ignore[override]
        (inputs, labels), batch_idx, _ = next(dataloader_iter)
        self.evaluated.batches.append((batch_idx, float(inputs.sum())))
        return nn.functional.cross_entropy(self.model(inputs), labels)


@pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor")
@pytest.mark.filterwarnings("ignore:Found `dataloader_iter` argument in the `training_step`")
def test_a_step_that_fetches_its_batch_sees_the_same_at_both_sides(tmp_path: Path) -> None:
    module = FromIterator()
    trainer_of(tmp_path, SharedSeedStrategy(ALONE), max_steps=3).fit(module, batches())
    seen = module.evaluated.batches
    assert seen[0::2] == seen[1::2]
    assert [index for index, _ in seen[0::2]] == [0, 1, 2]
    assert len({total for _, total in seen}) == 3


class Manual(Module):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Two(Module):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD([p], lr=0.1) for p in list(self.parameters())[:2]]


class NoOptimizer(Module):
    def configure_optimizers(self) -> Any:
        return None


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`")
def test_without_an_optimizer_nothing_is_trained_as_ever(tmp_path: Path) -> None:
    module = NoOptimizer()
    before = models.bits(module)
    strategy = SharedSeedStrategy(ALONE)
    trainer_of(tmp_path, strategy).fit(module, batches())
    assert module.evaluated.batches == [0, 1, 2, 3]
    assert models.bits(module) == before
    assert strategy.outcome is None


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Manual(), "needs automatic optimization"),
        (
            Module(optimizer="LBFGS"),
            r"LBFGS searches along lines of its own, .*; expected one optimizer such as torch.optim.SGD",
        ),
        (Module(models.mlp(6, 8, 2).to(torch.float64)), "torch.float64; expected torch.float32"),
    ],
    ids=["manual", "LBFGS", "float64"],
)
def test_what_cannot_be_trained_is_refused_with_a_sentence(
    tmp_path: Path, module: LightningModule, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        trainer_of(tmp_path, SharedSeedStrategy(ALONE)).fit(module, batches())
    assert models.hooks(module) == 0
    assert not any(thread.name == "shared-seed-swarm" for thread in threading.enumerate())


def test_several_optimizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises((ModelError, RuntimeError), match="optimizer"):
        trainer_of(tmp_path, SharedSeedStrategy(ALONE)).fit(Two(), batches())


def test_bf16_mixed_trains_float32_weights(tmp_path: Path) -> None:
    module, recorder = Module(), Recorder()
    strategy = SharedSeedStrategy(as_told(epsilon=2.0**-6, number=0), on_step=recorder)
    trainer_of(tmp_path, strategy, max_steps=150, precision="bf16-mixed").fit(module, batches())
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert sum(recorder.losses[-10:]) / 10 < 0.7 * recorder.losses[0]
    assert len({step.gradient for step in recorder.steps}) > 100
    assert_left_alone(module)


def test_bf16_mixed_measures_what_copies_with_moved_weights_have(tmp_path: Path) -> None:
    module, recorder = Module(convolutional(), rate=0.0), Recorder()
    epsilon = 2.0**-5
    strategy = SharedSeedStrategy(as_told(epsilon=epsilon, number=0), on_step=recorder)

    class Evaluating(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, *args: Any) -> None:
            module.model.eval()

    trainer = trainer_of(tmp_path, strategy, max_steps=12, precision="bf16-mixed", callbacks=[Evaluating()])
    trainer.fit(module, DataLoader(images(), 32))
    plain = Recorder()
    again = Module(copy.deepcopy(module.model).train(), rate=0.0)
    strategy = SharedSeedStrategy(as_told(epsilon=epsilon, number=0), on_step=plain)
    trainer_of(tmp_path, strategy, max_steps=12, callbacks=[Evaluating()]).fit(again, DataLoader(images(), 32))
    exact = torch.tensor([step.gradient for step in plain.steps])
    found = torch.tensor([step.gradient for step in recorder.steps])
    assert float((found - exact).norm() / exact.norm()) < 0.2


def test_validation_sees_clean_weights_in_evaluation_mode(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Checking(Callback):
        def on_validation_start(self, trainer: Any, module: Any) -> None:
            strategy = trainer.strategy
            assert not module.training
            if strategy.session is not None:
                weights = strategy.session.replica.weights
                seen.append(all(bool((t.values.double() / t.grid.unit % 1 == 0).all()) for t in weights))

    module, logger = Validated(), Counting()
    trainer = trainer_of(
        tmp_path,
        SharedSeedStrategy(ALONE),
        logger=logger,
        callbacks=[Checking()],
        val_check_interval=2,
        max_steps=4,
    )
    trainer.fit(module, batches(), batches())
    assert seen == [True, True]
    assert len(logger.of("validation")) == 2


def test_testing_and_predicting_need_no_session(tmp_path: Path) -> None:
    module = Validated()
    trainer = trainer_of(tmp_path, SharedSeedStrategy(ALONE))
    (found,) = trainer.test(module, batches(), verbose=False)
    inputs, labels = table().tensors
    with torch.no_grad():
        expected = float(nn.functional.cross_entropy(module.model(inputs), labels))
    assert found["validation"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("root", ["", "model"])
def test_the_log_gives_the_trained_weights_again(tmp_path: Path, root: str) -> None:
    module = Module(convolutional())
    base = copy.deepcopy(module)
    strategy = SharedSeedStrategy(as_told(folder=tmp_path / "run", number=0), root=root)
    trainer_of(tmp_path, strategy, max_steps=6, accumulate_grad_batches=2).fit(module, batches(images(), 4))
    contents = log.read(tmp_path / "run" / LOG_NAME)
    replica = replay.rebuild(base.get_submodule(root), contents)
    assert strategy.outcome is not None
    assert replica.digest().hex() == strategy.outcome.digest
    trained = {name: p.tolist() for name, p in module.named_parameters()}
    assert {name: p.tolist() for name, p in base.named_parameters()} == trained


class Failing(Module):
    error: type[BaseException] = ZeroDivisionError

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        if len(self.evaluated.batches) == 4:
            raise self.error
        return loss


@pytest.mark.parametrize(
    ("error", "raised"), [(ZeroDivisionError, ZeroDivisionError), (KeyboardInterrupt, SystemExit)]
)
def test_an_error_in_the_step_leaves_clean_weights(
    tmp_path: Path, error: type[BaseException], raised: type[BaseException]
) -> None:
    module, recorder = Failing(), Recorder()
    module.error = error
    with pytest.raises((raised, error)):
        trainer_of(tmp_path, SharedSeedStrategy(ALONE, on_step=recorder)).fit(module, batches())
    assert len(recorder.steps) == 1
    assert_left_alone(module)


class Breaking(Dataset[Any]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        if index == 40:
            raise ZeroDivisionError
        return table()[index]


def test_an_error_in_the_data_leaves_clean_weights(tmp_path: Path) -> None:
    module, recorder = Module(), Recorder()
    with pytest.raises(ZeroDivisionError):
        trainer_of(tmp_path, SharedSeedStrategy(ALONE, on_step=recorder)).fit(module, batches(Breaking()))
    assert len(recorder.steps) == 2
    assert_left_alone(module)


def test_a_strategy_trains_twice_in_one_trainer(tmp_path: Path) -> None:
    module, recorder = Module(), Recorder()
    strategy = SharedSeedStrategy(ALONE, on_step=recorder)
    trainer = trainer_of(tmp_path, strategy, max_steps=3)
    trainer.fit(module, batches())
    first = strategy.outcome
    trainer.fit_loop.epoch_loop.max_steps = 6
    trainer.fit(module, batches())
    assert first is not None
    assert strategy.outcome is not None
    assert strategy.outcome.digest != first.digest
    assert len(recorder.steps) == 6
    assert_left_alone(module)


def clipping(tmp_path: Path, algorithm: str, recorder: Recorder) -> Trainer:
    strategy = SharedSeedStrategy(ALONE, on_step=recorder)
    return trainer_of(tmp_path, strategy, gradient_clip_val=0.5, gradient_clip_algorithm=algorithm)


def test_clipping_by_norm_does_no_harm(tmp_path: Path) -> None:
    module, recorder = Module(), Recorder()
    clipping(tmp_path, "norm", recorder).fit(module, batches())
    assert len(recorder.steps) == 4
    assert_left_alone(module)


def test_clipping_by_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected gradient_clip_val=None"):
        clipping(tmp_path, "value", Recorder()).fit(Module(), batches())


def test_checkpoints_hold_the_trained_weights(tmp_path: Path) -> None:
    module = Module()
    trainer = trainer_of(tmp_path, SharedSeedStrategy(ALONE))
    trainer.fit(module, batches())
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    loaded = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert {n: v.tolist() for n, v in loaded["state_dict"].items()} == {
        n: v.tolist() for n, v in module.state_dict().items()
    }
    assert loaded["global_step"] == 4
