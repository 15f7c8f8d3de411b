"""What a run will take, before it begins: parameters, memory, bytes on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shared_seed.facts import MEMORY, QUANTISED
from shared_seed.identity import SIGNATURE_SIZE
from shared_seed.messages import Message, Stream
from shared_seed.meter import peak_memory
from shared_seed.precision import resolve
from shared_seed.recipe import Recipe
from shared_seed.signed import Signed

TRAINED = 4
"""Bytes of a trained parameter: float32, or bfloat16 with its low bits."""

KERNELS = 120_000_000
"""Bytes of numba and LLVM, which compile at the first step (docs/speed.md)."""

CAST = 2
"""Bytes of a parameter that autocast has made bfloat16 for the products."""


@dataclass(frozen=True)
class Parameters:
    """How many numbers a model has, tied ones once, and how many of them are trained."""

    total: int
    trained: int

    @classmethod
    def of(cls, model: nn.Module) -> Parameters:
        """Count a model's, which may be on the meta device."""
        counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
        return cls(sum(n for n, _ in counts), sum(n for n, trained in counts if trained))


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a step.

    Attributes:
        weights: all parameters with what belongs to them (low bits, scales of quantised ones).
        casts: copies in the dtype of the products.
        activations: of one batch at full length; nothing is kept for a backward pass.
        libraries: what this process takes without a model, and what compiles at the first step.
    """

    weights: int
    casts: int
    activations: int
    libraries: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.casts + self.activations + self.libraries

    @classmethod
    def of(cls, model: nn.Module, recipe: Recipe) -> Memory:
        """Estimate a recipe's, for a transformers model that may be on the meta device."""
        quantised = _quantised(model, recipe)
        weights = sum(_kept(p, id(p) in quantised, recipe) for p in model.parameters())
        libraries = (peak_memory() or 0) + KERNELS
        return cls(int(weights), _casts(model, recipe), _activations(model, recipe), libraries)


def _quantised(model: Any, recipe: Recipe) -> set[int]:
    """The parameters, by identity, that get 4 bits: those of all Linear layers but the head and adapters."""
    if recipe.weights != "4bit":
        return set()
    head = model.get_output_embeddings()
    linear = (m for m in model.modules() if isinstance(m, nn.Linear) and m is not head)
    return {id(m.weight) for m in linear if not m.weight.requires_grad}


def _kept(parameter: nn.Parameter, quantised: bool, recipe: Recipe) -> float:
    if quantised:
        return QUANTISED * parameter.numel()
    return (TRAINED if parameter.requires_grad else MEMORY[recipe.weights]) * parameter.numel()


def _casts(model: nn.Module, recipe: Recipe) -> int:
    """Those of float32 matrices are kept for a step, on a GPU of trained ones alone (:mod:`shared_seed.casts`);
    others are cast one at a time.
    """
    matrices = {m.weight for m in model.modules() if isinstance(m, nn.Linear)}
    if not resolve(recipe).bf16:
        return 0
    if recipe.weights == "fp32" and not torch.cuda.is_available():
        return CAST * sum(p.numel() for p in matrices)
    float32 = recipe.lora is not None or recipe.weights == "fp32"
    kept = sum(p.numel() for p in matrices if p.requires_grad and float32)
    frozen = (p for p in matrices if not p.requires_grad and recipe.weights != "bf16")
    quantised = _quantised(model, recipe)
    passing = [p.numel() for p in frozen if recipe.weights == "fp32" or id(p) in quantised]
    return CAST * (kept + max(passing, default=0))


def _activations(model: Any, recipe: Recipe) -> int:
    """The block that takes most: residual, norm, projections and the inner layer of a batch; then the logits."""
    config = model.config
    hidden: int = config.hidden_size
    inner: int = getattr(config, "intermediate_size", 0) or getattr(config, "ffn_dim", 4 * hidden)
    size = 2 if resolve(recipe).bf16 else 4
    tokens = recipe.training.batch_size * recipe.task.most_tokens
    block: int = tokens * (3 * 4 * hidden + 4 * size * hidden + 3 * size * inner)
    # A label word needs the logits of the last position alone.
    positions = recipe.training.batch_size if hasattr(recipe.task, "words") else tokens
    logits: int = positions * config.vocab_size * (size + 4)
    return max(block, logits)


@dataclass(frozen=True)
class Wire:
    """Bytes of gradient messages in one step, without heartbeats, which go by time, and without TCP/IP headers.

    Attributes:
        message: of a peer's signed message to one subscriber.
        received: by each peer from the others.
        log: by which the gradient log grows at most: signatures are left out where a later one proves a message.
    """

    message: int
    received: int
    log: int

    @classmethod
    def of(cls, probes: int, peers: int) -> Wire:
        """Of a step of so many probes of each of so many peers."""
        said = Message(Stream(bytes(12)), 0, 0, 1.0, bytes(probes))
        size = len(Signed(said, bytes(SIGNATURE_SIZE)).encode())
        return cls(size, size * (peers - 1), size * peers)
