"""What decides the best learning rate: curvature along random directions, and how large one row's gradient is.

    python benchmarks/curvature.py recipes/quickstart.yaml

For each epsilon and direction, three losses of the same rows. Printed are means over directions and their standard
errors: the curvature ``z H z``, a row's squared projected gradient, and the square of the expected gradient, from
pairs of different rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import nn

from shared_seed import data, recipe
from shared_seed.classification import Classification
from shared_seed.errors import RecipeError
from shared_seed.integrations.transformers.models import load
from shared_seed.noise import Sample
from shared_seed.perturbation import Perturbation
from shared_seed.recipe import Recipe
from shared_seed.task import ClassificationTask
from shared_seed.text_task import Batch, at_rest
from shared_seed.weights import Weights

EXPONENTS = (-6, -8, -10)


@dataclass(frozen=True)
class Figures:
    """Means over directions with their standard errors."""

    curvature: tuple[float, float]
    row: tuple[float, float]
    signal: tuple[float, float]


def _batches(terms: Recipe, task: Classification, rows: int) -> Iterator[Batch]:
    features = task.encode(data.parts(terms.dataset, terms.task, terms.training.seed).train)
    for start in range(0, len(features) - rows, rows):
        yield task.collate(features[start : start + rows])


def _spread(values: list[float]) -> tuple[float, float]:
    return mean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def measure(path: Path, directions: int, rows: int, exponents: tuple[int, ...] = EXPONENTS) -> dict[int, Figures]:
    """Print and return the figures for each epsilon, a power of two."""
    terms = recipe.load(path)
    if not isinstance(terms.task, ClassificationTask):
        raise RecipeError(f"{path} is no classification by label words; expected one")
    model, tokenizer = load(terms.model, terms.lora, terms.training.seed, "fp32")
    task = Classification(terms.task, tokenizer, model)
    weights = Weights.of(model, 2.0 ** min(exponents))
    found = {}
    for exponent in exponents:
        perturbation, batches = Perturbation(weights, 2.0**exponent), _batches(terms, task, rows)
        curvatures, squares, signals = [], [], []
        for number in range(directions):
            batch = next(batches)
            losses = []
            with at_rest(model, False), perturbation.along(Sample(1, number, 0)) as move:
                for sign in (1, -1, 0):
                    move(sign)
                    logits = task.logits(model, batch)
                    losses.append(nn.functional.cross_entropy(logits, batch["labels"], reduction="none"))
            plus, minus, here = losses
            gradients = (plus - minus) / (2 * perturbation.epsilon)
            curvatures.append(float((plus + minus - 2 * here).mean()) / perturbation.epsilon**2)
            squares.append(float(gradients.square().mean()))
            pairs = gradients.sum().square() - gradients.square().sum()
            signals.append(float(pairs) / (rows * (rows - 1)))
        found[exponent] = Figures(_spread(curvatures), _spread(squares), _spread(signals))
        shown = ", ".join(f"{name} {a:.4g} ± {b:.2g}" for name, (a, b) in vars(found[exponent]).items())
        print(f"epsilon 2**{exponent}: {shown}", flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--directions", type=int, default=24)
    parser.add_argument("--rows", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure(options.recipe, options.directions, options.rows)
