"""An ordinary Lightning script, for the tests that start it as a user would: python, torchrun, several at once."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Classifier(LightningModule):
    """Two classes of points, which a line parts; dropout and BatchNorm make any slip show."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self.model(inputs), labels)
        self.log("loss", loss, on_epoch=True, sync_dist=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 24)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "step"}}


class Dying(Callback):
    """Kills its process after a number of steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def digest(module: nn.Module) -> list[str]:
    """The trained bits, one hex string a parameter."""
    return [p.detach().numpy().tobytes().hex() for p in module.parameters()]


def main() -> None:
    """Train as the arguments say; each process leaves what came out in ``out/RANK.json``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--strategy", default="shared_seed")
    parser.add_argument("--far", action="store_true", help="probe so far away that the promise decides a step")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--die-after", type=int)
    parser.add_argument("--resume")
    parser.add_argument("--listen")
    parser.add_argument("--join")
    parser.add_argument("--number", type=int)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(int(os.environ.get("LOCAL_RANK", 0)) if options.devices > 1 else 0)

    strategy: Any = options.strategy
    if options.listen or options.join or options.far:
        from shared_seed import Settings, SharedSeedStrategy

        settings = Settings(epsilon=2.0**-4) if options.far else Settings()
        if options.listen or options.join:
            changes: dict[str, Any] = {"number": options.number, "name": f"number {options.number}"}
            settings = dataclasses.replace(settings, start_with=2, **changes)
        strategy = SharedSeedStrategy(settings, listen=options.listen, join=options.join or ())
    generator = torch.Generator().manual_seed(3 + (options.number or 0))
    inputs = torch.randn(64, 6, generator=generator)
    data = TensorDataset(inputs, (inputs.sum(1) > 0).long())
    from lightning.pytorch.callbacks import ModelCheckpoint

    saving = ModelCheckpoint(options.out / "checkpoints", "{step}", every_n_train_steps=8, save_top_k=-1)
    trainer = Trainer(
        strategy=strategy,
        accelerator="cpu",
        devices=options.devices,
        max_steps=options.steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[saving, *([Dying(options.die_after)] if options.die_after else [])],
    )
    module = Classifier()
    trainer.fit(module, DataLoader(data, 8, shuffle=True), ckpt_path=options.resume)
    outcome = trainer.strategy.outcome
    result = {
        "bits": digest(module),
        "digest": outcome.digest,
        "others": outcome.others,
        "gradients": outcome.gradients,
        "streams": outcome.streams,
        "optimizer_state": len(trainer.optimizers[0].state),
        "steps": trainer.global_step,
        "loss": float(trainer.callback_metrics["loss_epoch"]),
    }
    name = options.number if options.number is not None else trainer.global_rank
    (options.out / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
