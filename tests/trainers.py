"""Trainers of small models, and what must be left of them after training."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import models
from recorder import Recorder as Recorder
from shared_seed.integrations.transformers import SharedSeedCallback
from told import as_told

Rows = list[dict[str, Tensor]]

ALONE = as_told(number=0)
"""With a number, a run is the same every time."""


def rows(count: int = 32, length: int = 8) -> Rows:
    """Sentences that count upwards in steps of one among eight words: learnable."""
    generator = torch.Generator().manual_seed(2)
    starts = torch.randint(0, 8, (count,), generator=generator)
    ids = [3 + (start + torch.arange(length)) % 8 for start in starts]
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row.clone()} for row in ids]


class Listening(TrainerCallback):
    """Keeps what reporters are told; before ours in the list of callbacks."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append(dict(logs))


class Freezing(TrainerCallback):
    """Stops training the embedding and the last norm after the second step, and keeps what they are then."""

    def __init__(self) -> None:
        self.frozen: dict[str, bytes] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            model = kwargs["model"]
            for parameter in (model.get_input_embeddings().weight, model.model.norm.weight):
                parameter.requires_grad_(False)
            names = {name for name, p in model.named_parameters() if not p.requires_grad}
            self.frozen = {name: bits for name, bits in models.bits(model).items() if name in names}


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
    assert not [thread for thread in threading.enumerate() if thread.name == "shared-seed-swarm"]


def on_grid(callback: SharedSeedCallback) -> bool:
    assert callback.session is not None
    weights = callback.session.replica.weights
    return all(bool((t.values.double() / t.grid.unit % 1 == 0).all()) for t in weights)


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
