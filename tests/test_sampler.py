"""In which order rows come, and that every loop has them so."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from shared_seed import data, recipe
from shared_seed.classification import Classification
from shared_seed.integrations.transformers.models import load
from shared_seed.job import Job, fit
from shared_seed.run import settings_for
from shared_seed.sampler import ByLength
from shared_seed.text_task import Batch, Feature

SIZE = 8


def lengths(rows: int = 1003, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [min(64, 5 + int(draw.expovariate(1 / 20))) for _ in range(rows)]


def longest(order: Sequence[int], of: Sequence[int]) -> list[int]:
    """The longest row of each whole batch."""
    whole = len(order) // SIZE * SIZE
    return [max(of[row] for row in order[start : start + SIZE]) for start in range(0, whole, SIZE)]


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 31, 32, 33, 400, 1003])
def test_each_epoch_has_every_row_once(rows: int) -> None:
    sampler = ByLength(lengths(rows), SIZE, 3, 4)
    assert len(sampler) == rows
    for _ in range(2):
        assert sorted(sampler) == list(range(rows))


def test_epochs_differ_and_the_same_seeds_give_the_same_ones() -> None:
    one, same, other = (ByLength(lengths(), SIZE, seed, 0) for seed in (1, 1, 2))
    epochs = [list(one) for _ in range(3)]
    assert [list(same) for _ in range(3)] == epochs
    assert len({tuple(epoch) for epoch in [*epochs, list(other)]}) == 4


def test_little_is_padded_and_long_batches_come_at_any_time() -> None:
    found = lengths()
    order, at_random = list(ByLength(found, SIZE, 1, 0)), random.Random(0).sample(range(len(found)), len(found))
    own = sum(found)
    assert SIZE * sum(longest(order, found)) < 1.1 * own
    assert SIZE * sum(longest(at_random, found)) > 1.6 * own
    maxima = longest(order, found)
    quarters = [maxima[start : start + len(maxima) // 4] for start in range(0, len(maxima) - 4, len(maxima) // 4)]
    means = [sum(quarter) / len(quarter) for quarter in quarters]
    assert max(means) < 1.5 * min(means)
    rises = sum(after > before for before, after in itertools.pairwise(maxima))
    assert 0.3 < rises / len(maxima) < 0.7


def test_peers_have_long_batches_at_the_same_time() -> None:
    ours, theirs = lengths(seed=1), lengths(seed=2)
    together = (longest(list(ByLength(x, SIZE, n, 0)), x) for n, x in enumerate((ours, theirs)))
    apart = (longest(list(ByLength(x, SIZE, n, n)), x) for n, x in enumerate((ours, theirs)))
    waited = [sum(map(max, zip(*maxima, strict=True))) for maxima in (together, apart)]
    assert waited[0] < 0.85 * waited[1]


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(ByLength(lengths(), SIZE, 1, 0))
    assert torch.equal(torch.get_rng_state(), before)


class Recorded(Classification):
    """Keeps what each batch was made of."""

    def collate(self, features: Sequence[Feature]) -> Batch:
        """As the task's own."""
        self.seen = [*getattr(self, "seen", []), tuple(tuple(feature["input_ids"]) for feature in features)]
        return super().collate(features)


def batches(folder: Path, trainer: str, number: int | None) -> list[Any]:
    """The batches that a loop takes in a run of two epochs, as it takes them."""
    folder.mkdir()
    terms = recipe.load(tiny.recipe(folder, trainer=trainer, steps=20, epsilon=2.0**-8))
    model, tokenizer = load(terms.model)
    task = Recorded(terms.task, tokenizer, model)  # type: ignore[arg-type]
    features = task.encode(data.parts(terms.dataset, terms.task, 0).train)
    settings = settings_for(terms, folder / "run", number=number)
    fit(Job(terms, settings, model, task, features, lambda session, step: None))
    return task.seen[:20]  # type: ignore[no-any-return]


def test_both_loops_take_the_same_batches_and_each_peer_its_own(tmp_path: Path) -> None:
    transformers, lightning = (batches(tmp_path / name, name, 0) for name in ("transformers", "lightning"))
    assert transformers == lightning
    assert len(set(transformers)) == 20
    for trainer, number in itertools.product(("transformers", "lightning"), (1, None)):
        other = batches(tmp_path / f"{trainer} {number}", trainer, number)
        assert not set(other) & set(transformers), "by a number of its own, or at random without one"
