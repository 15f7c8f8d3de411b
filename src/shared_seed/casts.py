"""What autocast keeps of weights between the evaluations of a probe.

Casting a model's weights takes a processor as long as their products with a small batch. Inside one autocast,
torch keeps the cast of a leaf that asks for grad until the outermost autocast ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from shared_seed.interrupts import deferred


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """An autocast around this casts each weight once, and knows none from before, when it may have been another.

    Whoever writes weights inside must have them not ask for grad meanwhile, and must bring back the same bits.
    Frozen ones on the CPU are made to ask for it, from which nothing comes in ``no_grad``; on other devices, where
    memory is dear and casts are fast, they are cast as they come. So are those that are loaded for each use.

    Args:
        model: whose parameters are as they were in the end.
    """
    torch.clear_autocast_cache()
    frozen = []
    if torch.is_autocast_enabled("cpu"):
        frozen = [p for p in model.parameters() if p.device.type == "cpu" and _is_frozen(p)]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        with deferred():
            for parameter in frozen:
                parameter.requires_grad_(False)


def _is_frozen(parameter: nn.Parameter) -> bool:
    return parameter.dtype == torch.float32 and not parameter.requires_grad and not parameter.is_inference()
