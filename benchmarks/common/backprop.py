"""Backpropagation with AdamW (Loshchilov and Hutter 2019), on all parameters or on a LoRA adapter's."""

from __future__ import annotations

import torch

from common.workloads import Step, Workload

LEARNING_RATE = 1e-6


def step(work: Workload) -> Step:
    """One forward, one backward, one update of whatever requires grad."""
    trained = [p for p in work.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE)

    def run() -> None:
        with work.autocast():
            loss = work.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return run
