"""How loud is weight decay in a projected gradient? Its rms beside that of the loss's, along the same directions.

python benchmarks/decay_noise.py recipes/quickstart.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from shared_seed import data, decay, recipe
from shared_seed.integrations.transformers.models import load
from shared_seed.noise import Sample
from shared_seed.perturbation import Perturbation
from shared_seed.probe import Probe
from shared_seed.text_tasks import build
from shared_seed.weights import Weights

LEARNING_RATE = 5e-5
"""Where a recipe has it found: near what is found for the quickstart."""

COEFFICIENT = 0.01
"""AdamW's default in torch."""


def measure(path: Path, directions: int) -> tuple[float, float]:
    """Print and return the rms of the loss's projected gradients, and of the decay's."""
    terms = recipe.load(path)
    model, tokenizer = load(terms.model, terms.lora, terms.training.seed, terms.weights)
    task = build(terms.task, tokenizer, model)
    train = data.split(data.load(terms.dataset), terms.task, terms.training.seed).train
    size = terms.training.batch_size
    weights = Weights.of(model, terms.training.epsilon)
    probe = Probe(model, Perturbation(weights, terms.training.epsilon))
    decays = {t.name: COEFFICIENT for t in weights}
    losses, shrinks = [], []
    for number in range(directions):
        batch = task.collate(task.encode(train[number * size : (number + 1) * size]))
        sample = Sample(1, number, 0)

        def loss(batch: dict[str, torch.Tensor] = batch) -> torch.Tensor:
            return task.batch_loss(model, batch)

        losses.append(probe.measure(loss, sample).gradient)
        shrinks.append(decay.projected(weights, decays, sample))
    of_loss, of_decay = (float(np.sqrt(np.mean(np.square(values)))) for values in (losses, shrinks))
    print(f"rms over {directions} directions: loss {of_loss:.3g}, weight decay {COEFFICIENT:g} {of_decay:.3g}")
    training = terms.training
    steps, rate = training.steps, training.base_rate if terms.promise is None else LEARNING_RATE
    print(f"{steps} steps at {rate:g} would shrink the weights by {100 * steps * rate * COEFFICIENT:.2g} %")
    return of_loss, of_decay


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--directions", type=int, default=16)
    options = parser.parse_args()
    measure(options.recipe, options.directions)
