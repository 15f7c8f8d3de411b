"""How much of the forward passes goes into padding? Rows at random in a batch, and rows of about one length.

    python benchmarks/padding.py recipes/quickstart.yaml

Counted on an epoch of a recipe's own rows, shared among peers. In lockstep a round takes as long as its longest
batch, so what all rounds take is counted too, also where each peer has lengths in an order of its own.
Nothing is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from shared_seed import data, recipe
from shared_seed.integrations.transformers.models import load, quiet
from shared_seed.sampler import ByLength
from shared_seed.text_tasks import build


@dataclass(frozen=True)
class Row:
    """Tokens of all peers' epoch: of the rows, of their padded batches, of each round's longest batch."""

    name: str
    own: int
    computed: int
    waited: int


def measure(path: Path, peers: int) -> list[Row]:
    """Print and return a line for each way of putting batches together."""
    quiet()
    terms = recipe.load(path)
    training = terms.training
    model, tokenizer = load(terms.model, terms.lora, training.seed, terms.weights)
    train = data.parts(terms.dataset, terms.task, training.seed).train
    lengths = [len(feature["input_ids"]) for feature in build(terms.task, tokenizer, model).encode(train)]
    shards = [data.shard(lengths, number, peers) for number in range(peers)]
    size, seed = training.batch_size, training.seed
    ways: dict[str, Sequence[Iterable[int]]] = {
        "at random": [_shuffled(s, seed + n) for n, s in enumerate(shards)],
        "transformers' LengthGroupedSampler": [
            LengthGroupedSampler(size, lengths=s, generator=torch.Generator().manual_seed(seed)) for s in shards
        ],
        "by length, each peer's own order": [ByLength(s, size, seed + n, seed + n) for n, s in enumerate(shards)],
        "by length, all peers' order": [ByLength(s, size, seed + n, seed) for n, s in enumerate(shards)],
    }
    rows = [_counted(name, orders, shards, size) for name, orders in ways.items()]
    for row in rows:
        print(
            f"{row.name:34} {row.computed:8,} tokens computed for {row.own:,}"
            f" ({1 - row.own / row.computed:.1%} padding); rounds of {peers} peers {row.waited:,}"
        )
    return rows


def _shuffled(lengths: Sequence[int], seed: int) -> list[int]:
    order: list[int] = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def _counted(name: str, orders: Sequence[Iterable[int]], shards: Sequence[Sequence[int]], size: int) -> Row:
    batches = []
    for order, lengths in zip(orders, shards, strict=True):
        tokens = [lengths[row] for row in order]
        parts = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        batches.append([len(part) * max(part) for part in parts])
    waited = sum(max(round_) for round_ in zip(*batches, strict=False))
    return Row(name, sum(map(sum, shards)), sum(map(sum, batches)), waited)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--peers", type=int, default=3)
    options = parser.parse_args()
    measure(options.recipe, options.peers)
