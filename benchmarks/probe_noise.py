"""How much of a projected gradient is rounding? The same directions in fp32 and bf16, at several epsilon.

python benchmarks/probe_noise.py recipes/quickstart.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from shared_seed import data, recipe
from shared_seed.integrations.transformers.models import load
from shared_seed.noise import Sample
from shared_seed.perturbation import Perturbation
from shared_seed.probe import Probe
from shared_seed.text_tasks import build
from shared_seed.weights import Weights

EXPONENTS = (-10, -9, -8, -7, -6)
"""Powers of two to try as epsilon."""


def measure(path: Path, directions: int, exponents: tuple[int, ...] = EXPONENTS) -> dict[tuple[str, int], float]:
    """Print and return, by precision and exponent, the rms difference from fp32 at the smallest epsilon.

    The figure is relative to the rms of those reference gradients: 0 is perfect, 1 is all noise.
    """
    terms = recipe.load(path)
    model, tokenizer = load(terms.model, terms.lora, terms.training.seed, terms.weights)
    task = build(terms.task, tokenizer, model)
    train = data.split(data.load(terms.dataset), terms.task, terms.training.seed).train
    size = terms.training.batch_size
    gradients: dict[tuple[str, int], list[float]] = {}
    weights = Weights.of(model, 2.0 ** max(exponents))
    for exponent in exponents:
        probe = Probe(model, Perturbation(weights, 2.0**exponent))
        for number in range(directions):
            batch = task.collate(task.encode(train[number * size : (number + 1) * size]))
            for precision in ("fp32", "bf16"):
                context = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
                measured = probe.measure(
                    lambda batch=batch: task.batch_loss(model, batch),  # type: ignore[misc]
                    Sample(1, number, 0),
                    context,
                )
                gradients.setdefault((precision, exponent), []).append(measured.gradient)
    truth = np.array(gradients["fp32", min(exponents)])
    scale = float(np.sqrt(np.mean(truth**2)))
    errors = {
        key: float(np.sqrt(np.mean((np.array(values) - truth) ** 2))) / scale for key, values in gradients.items()
    }
    print(f"rms projected gradient {scale:.2f}, {directions} directions")
    for (precision, exponent), error in sorted(errors.items()):
        print(f"{precision}  epsilon 2**{exponent}  relative difference {error:.3f}")
    return errors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--directions", type=int, default=16)
    options = parser.parse_args()
    measure(options.recipe, options.directions)
