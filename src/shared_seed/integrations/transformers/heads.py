"""Weights that a replaced ``forward`` reads past the modules that own them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

_FUSED = "fused_lm_head"
"""The keyword of the ``forward`` that TRL lays over a language model's, which multiplies by the head's weight."""


def read_directly(model: nn.Module) -> tuple[str, ...]:
    """Names of trainable parameters that a fused head reads; hooks on the head would not see that."""
    fused: list[Any] = [module for module in model.modules() if _is_fused(module)]
    weights = {id(module.get_output_embeddings().weight) for module in fused}
    return tuple(name for name, p in model.named_parameters() if id(p) in weights and p.requires_grad)


def _is_fused(module: Any) -> bool:
    return any(_FUSED in code.co_varnames for code in _layers(module.__dict__.get("forward")))


def _layers(function: Any) -> Iterator[Any]:
    """The code of a function, and of those that it wraps."""
    while function is not None:
        code = getattr(function, "__code__", None)
        if code is not None:
            yield code
        function = getattr(function, "__wrapped__", None)
