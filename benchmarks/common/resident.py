"""One way of using a model in a process of its own, which then states its own peak of memory.

    python -m common.resident WAY FOLDER ROWS TOKENS STEPS DEVICE

Nothing is imported that the way does not need, since libraries count too.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.workloads import Workload, adapt, batch, build

Way = Callable[[Any, list[Tensor]], None]


def _inference(model: Any, batches: list[Tensor], lora: bool = False) -> None:
    model = adapt(model) if lora else model
    for ids in batches:
        Workload(model, ids).value()


def _ours(model: Any, batches: list[Tensor], lora: bool = False) -> None:
    from common import ours

    model = adapt(model) if lora else model
    session = ours.open_session(model)
    for ids in batches:
        ours.step(Workload(model, ids), session)()
    session.close()


def _mezo(model: Any, batches: list[Tensor]) -> None:
    from common import mezo

    for ids in batches:
        mezo.step(Workload(model, ids))()


def _adamw(model: Any, batches: list[Tensor], lora: bool = False) -> None:
    from common import backprop

    model = adapt(model) if lora else model
    optimizer = backprop.adamw(model)
    for ids in batches:
        backprop.step(Workload(model, ids), optimizer)()


def _trainer(model: Any, batches: list[Tensor], ours: bool = False, lora: bool = False) -> None:
    from transformers import Trainer, TrainingArguments

    rows = [{"input_ids": ids, "labels": ids} for some in batches for ids in some.cpu()]
    model = adapt(model) if lora else model
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=len(batches),
            per_device_train_batch_size=len(batches[0]),
            per_device_eval_batch_size=len(batches[0]),
            prediction_loss_only=True,
            learning_rate=2e-6,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=model.device.type == "cpu",
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=rows)
        if not ours:
            trainer.evaluate(rows)
            return
        from shared_seed import SharedSeedCallback

        trainer.add_callback(SharedSeedCallback())
        trainer.train()


WAYS: dict[str, Way] = {
    "inference": _inference,
    "inference, LoRA": partial(_inference, lora=True),
    "ours": _ours,
    "ours, LoRA": partial(_ours, lora=True),
    "MeZO": _mezo,
    "AdamW": _adamw,
    "AdamW, LoRA": partial(_adamw, lora=True),
    "Trainer, inference": _trainer,
    "Trainer, ours": partial(_trainer, ours=True),
    "Trainer, ours, LoRA": partial(_trainer, ours=True, lora=True),
}


def _peak() -> int:
    """The process's largest resident set so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main(words: Iterable[str]) -> None:
    """Load, use, and print as JSON the peak of everything and that after loading, in bytes."""
    way, folder, rows, length, steps, device = words
    model = build(folder, device)
    batches = [batch(model, int(rows), int(length), seed) for seed in range(int(steps))]
    if device == "cpu":
        loading = _peak()
        # Makes VmHWM begin anew (man 5 proc): loading may have needed more than anything that follows.
        Path("/proc/self/clear_refs").write_text("5")
        WAYS[way](model, batches)
        after = _peak()
    else:
        loading = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        WAYS[way](model, batches)
        after = torch.cuda.max_memory_allocated()
    print(json.dumps({"peak": max(loading, after), "after_loading": after}))


if __name__ == "__main__":
    main(sys.argv[1:])
