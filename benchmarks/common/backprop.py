"""Backpropagation with AdamW (Loshchilov and Hutter 2019), on all parameters or on a LoRA adapter's."""

from __future__ import annotations

from typing import Any

import torch

from common.workloads import Step, Workload

LEARNING_RATE = 1e-6


def adamw(model: Any) -> torch.optim.AdamW:
    """The optimizer of whatever requires grad."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], LEARNING_RATE)


def step(work: Workload, optimizer: torch.optim.Optimizer) -> Step:
    """One forward, one backward, one update."""

    def run() -> None:
        with work.autocast():
            loss = work.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return run
