"""Small LightningModules, data and Trainers that the tests of the Lightning plugin share."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import models
from recorder import Recorder as Recorder
from shared_seed.weights import Weights
from told import as_told

ALONE = as_told(number=0)
"""With a number, a run is the same every time."""


def table(rows: int = 64) -> TensorDataset:
    """Two classes that a line parts."""
    inputs = torch.randn(rows, 6, generator=torch.Generator().manual_seed(3))
    return TensorDataset(inputs, (inputs.sum(1) > 0).long())


def images(rows: int = 32) -> TensorDataset:
    """Bright on the left, or on the right."""
    pixels = torch.rand(rows, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    labels = torch.arange(rows) % 2
    pixels[labels == 0, :, :, :3] += 1
    pixels[labels == 1, :, :, 3:] += 1
    return TensorDataset(pixels, labels)


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(64, 2)
    )


class Module(LightningModule):
    """Classifies, logs, and remembers what it was called with."""

    def __init__(self, model: nn.Module | None = None, rate: float = 0.02, optimizer: str = "SGD") -> None:
        super().__init__()
        self.model = model or models.mlp(6, 8, 2)
        self.rate = rate
        self.optimizer = optimizer
        self.batches: list[int] = []
        self.evaluated: Any = SimpleNamespace(batches=[], losses=[])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self.model(inputs), labels)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log_dict({"double": 2 * loss})
        self.batches.append(batch_idx)
        # Out of sight of the strategy, which lets what is on the module count once.
        self.evaluated.batches.append(batch_idx)
        self.evaluated.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> Any:
        return getattr(torch.optim, self.optimizer)(self.parameters(), lr=self.rate)


class Validated(Module):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        inputs, labels = batch
        self.log("validation", nn.functional.cross_entropy(self.model(inputs), labels))

    test_step = validation_step


class Counting(Logger):
    """Counts what arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int | None, dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "counting"

    @property
    def version(self) -> int:
        return 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.lines.append((step, metrics))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def of(self, name: str) -> list[float]:
        return [metrics[name] for _, metrics in self.lines if name in metrics]


def trainer_of(folder: Path, strategy: Any, **arguments: Any) -> Trainer:
    defaults = {
        "default_root_dir": folder,
        "accelerator": "cpu",
        "devices": 1,
        "max_steps": 4,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    return Trainer(strategy=strategy, **(defaults | arguments))


def batches(data: Dataset[Any] | None = None, size: int = 16) -> DataLoader[Any]:
    return DataLoader(data or table(), size)


def assert_left_alone(module: LightningModule) -> None:
    assert models.hooks(module) == 0
    assert not {"log", "log_dict"} & set(module.__dict__)
    assert all(p.grad is None for p in module.parameters())
    assert not any(thread.name == "shared-seed-swarm" for thread in threading.enumerate())
    before = models.bits(module)
    Weights.of(module, models.EPSILON)
    assert models.bits(module) == before
