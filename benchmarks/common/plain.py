"""Plain inference: two forward passes without autograd, which is what a probe cannot do without."""

from __future__ import annotations

import torch

from common.workloads import Step, Workload


def pair(work: Workload) -> Step:
    """Two forwards inside one autocast, which casts each weight once for both."""

    def run() -> None:
        with torch.no_grad(), work.autocast():
            for _ in range(2):
                float(work.loss())

    return run


def apart(work: Workload) -> Step:
    """Two forwards with an autocast each."""

    def run() -> None:
        for _ in range(2):
            work.value()

    return run
