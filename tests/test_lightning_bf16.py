"""Lightning's ``precision="bf16-true"``: all weights in bfloat16, with their low bits beside them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

import models
from lit import ALONE, Module, Recorder, assert_left_alone, batches, trainer_of
from shared_seed import SharedSeedStrategy
from shared_seed.notices import COARSE
from shared_seed.settings import Settings


class Fine(Module):
    """Computes its loss in float32."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self.model(inputs).float(), labels)
        self.log("loss", loss)
        return loss


def fresh(kind: type[Module] = Fine) -> Module:
    torch.manual_seed(1)
    return kind(models.mlp(6, 8, 2))


def test_the_loss_goes_down(tmp_path: Path) -> None:
    module, recorder = fresh(), Recorder()
    strategy = SharedSeedStrategy(Settings(epsilon=2.0**-6, number=0), on_step=recorder)
    trainer_of(tmp_path, strategy, max_steps=150, precision="bf16-true").fit(module, batches())
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert sum(recorder.losses[-10:]) / 10 < 0.7 * recorder.losses[0]
    assert_left_alone(module)


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_resuming_gives_the_bits_of_a_run_without_a_stop(tmp_path: Path, precision: str) -> None:
    whole, again = Recorder(), Recorder()
    modules, outcomes = [], []
    for recorder, resume in ((whole, None), (again, tmp_path / "step=4.ckpt")):
        module = fresh().bfloat16()
        strategy = SharedSeedStrategy(ALONE, on_step=recorder)
        arguments = {"precision": precision, "max_steps": 12, "enable_checkpointing": True}
        keeping = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
        trainer = trainer_of(tmp_path, strategy, callbacks=[keeping], **arguments)
        trainer.fit(module, batches(), ckpt_path=resume)
        modules.append(module)
        outcomes.append(strategy.outcome)
    assert models.bits(modules[0]) == models.bits(modules[1])
    assert again.losses == whole.losses[4:]
    assert outcomes[0] is not None
    assert outcomes[1] is not None
    assert outcomes[0].digest == outcomes[1].digest
    assert "low" in torch.load(tmp_path / "step=4.ckpt", weights_only=True)["shared_seed"]


def test_a_loss_in_half_precision_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(caplog.handler)
    try:
        trainer_of(tmp_path, SharedSeedStrategy(ALONE), precision="bf16-true").fit(fresh(), batches())
        assert COARSE not in caplog.messages
        trainer_of(tmp_path, SharedSeedStrategy(ALONE), precision="bf16-true").fit(fresh(Module), batches())
        assert COARSE in caplog.messages
    finally:
        logger.removeHandler(caplog.handler)
