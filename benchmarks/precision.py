"""How long does a forward pass take in bf16 and in fp32 here? And what `precision: auto` chooses.

    python benchmarks/precision.py recipes/quickstart.yaml

Batches are of random tokens, as many rows as in the recipe's, on a GPU if there is one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from common import machine, timing
from common.workloads import PRECISIONS, Workload, batch
from shared_seed import recipe
from shared_seed.integrations.transformers.models import load, quiet
from shared_seed.precision import Precision, resolve


def measure(path: Path, tokens: int = 32, rounds: int = 5) -> tuple[float, Precision]:
    """Print the seconds of a batch in each precision; gives bf16's seconds to fp32's, and what auto chooses."""
    quiet()
    terms = recipe.load(path).changed({"training": {"precision": "auto"}}, "auto")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, _ = load(terms.model, terms.lora, terms.training.seed, terms.weights)
    model.eval().to(device).config.use_cache = False
    ids = batch(model, terms.training.batch_size, tokens)
    works = {precision: Workload(model, ids, precision) for precision in PRECISIONS}

    def forward(work: Workload) -> None:
        with torch.no_grad(), work.autocast():
            work.model(input_ids=work.ids, logits_to_keep=1)

    times = timing.contest(
        {name: lambda work=work: forward(work) for name, work in works.items()},  # type: ignore[misc]
        rounds,
        device=device,
    )
    for name in works:
        print(f"{name}  {times.median(name):.3f} s (least {times.least(name):.3f}) for {tuple(ids.shape)} tokens")
    ratio, chosen = times.ratio("bf16", "fp32"), resolve(terms, device)
    print(f"bf16 takes {ratio:.2f} times as long as fp32; auto: {chosen}")
    return ratio, chosen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--tokens", type=int, default=32, help="a row")
    options = parser.parse_args()
    print(machine.describe())
    measure(options.recipe, options.tokens)
