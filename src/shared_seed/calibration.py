"""How long a step takes on this machine, measured."""

from __future__ import annotations

import os
import statistics
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from shared_seed import clock
from shared_seed.errors import ModelError
from shared_seed.precision import resolve
from shared_seed.recipe import Recipe
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.training import Training

WARM_UP, TIMED = 1, 3
"""Steps that are not counted, since kernels are compiled and memory is paged in, and steps that are."""

SHARE = 0.8
"""Of the machine's memory that a calibration may take."""


def seconds_a_step(recipe: Recipe, needed: int) -> float:
    """Median seconds of a step of a peer alone, on batches of random tokens at full length.

    Args:
        recipe: what to train; its base model must be on this machine.
        needed: bytes of memory that it is estimated to take.

    Raises:
        ModelError: the model is not on this machine, or too large for it; or it cannot be trained.
    """
    from shared_seed.integrations.transformers.models import load_for, quiet

    quiet()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    there = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else _memory()
    if needed > SHARE * there:
        raise ModelError(f"it needs more than {SHARE:.0%} of the {there / 1e9:.0f} GB of this machine's {device}")
    model, _ = load_for(recipe, offline=True)
    if recipe.weights != "4bit":
        model.to(device)
    model.config.use_cache = False
    training = recipe.training
    settings = Settings(epsilon=training.epsilon, promise=recipe.promise, directions=training.directions)
    session = Session.open(model, settings, Training(rounds=WARM_UP + TIMED))
    try:
        session.begin()
        times = [_step(session, model, recipe, seed) for seed in range(WARM_UP + TIMED)]
    finally:
        session.close()
    return statistics.median(times[WARM_UP:])


def _step(session: Session, model: torch.nn.Module, recipe: Recipe, seed: int) -> float:
    training = recipe.training
    generator = torch.Generator().manual_seed(seed)
    shape = (training.probes_per_step, training.batch_size, recipe.task.most_tokens)
    device = next(model.parameters()).device
    batches = torch.randint(_vocabulary(model), shape, generator=generator).to(device)
    began = clock.now()
    for ids in batches:
        session.measure(lambda ids=ids: _loss(model, ids, recipe), _autocast(device, recipe))  # type: ignore[misc]
    session.step(training.base_rate)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock.now() - began


def _loss(model: torch.nn.Module, ids: Tensor, recipe: Recipe) -> Tensor:
    if hasattr(recipe.task, "words"):
        last: Tensor = model(input_ids=ids, logits_to_keep=1).logits[:, -1].float()
        return torch.nn.functional.cross_entropy(last, ids[:, -1])
    loss: Tensor = model(input_ids=ids, labels=ids).loss
    return loss


def _autocast(device: torch.device, recipe: Recipe) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if resolve(recipe, device.type).bf16 else nullcontext()


def _vocabulary(model: torch.nn.Module) -> int:
    return int(model.config.vocab_size)  # type: ignore[arg-type, union-attr]


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
