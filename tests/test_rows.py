"""What rows of a batch have in common."""

from __future__ import annotations

import itertools
import math
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared_seed.errors import RecipeError
from shared_seed.rows import RowLosses, Shared, shared, together, without_curvature

BATCHES = st.lists(st.tuples(st.floats(-9, 9), st.integers(0, 3)), min_size=1, max_size=20)


def slowly(gradients: list[float], labels: list[int]) -> float:
    """The mean product of two rows of a batch, each of a label that is drawn by its share."""
    total, rows = 0.0, range(len(labels))
    for one, other in itertools.product(sorted(set(labels)), repeat=2):
        firsts, seconds = ([row for row in rows if labels[row] == label] for label in (one, other))
        products = [gradients[i] * gradients[j] for i in firsts for j in seconds if i != j]
        if products:
            total += len(firsts) * len(seconds) / len(labels) ** 2 * math.fsum(products) / len(products)
    return total


@given(BATCHES)
def test_it_is_the_mean_product_of_two_rows_by_labels(batch: list[tuple[float, int]]) -> None:
    gradients, labels = [gradient for gradient, _ in batch], [label for _, label in batch]
    found = shared(np.array([gradients]), labels)
    assert found.signal == pytest.approx(slowly(gradients, labels), abs=1e-9)
    assert found.square == pytest.approx(math.fsum(g * g for g in gradients) / len(gradients))
    assert (found.rows, found.directions) == (len(batch), 1)


@given(st.lists(st.lists(st.floats(-9, 9), min_size=5, max_size=5), min_size=1, max_size=4))
def test_directions_count_alike(gradients: list[list[float]]) -> None:
    labels = [0, 0, 1, 1, 1]
    each = [shared(np.array([row]), labels) for row in gradients]
    found = shared(np.array(gradients), labels)
    assert found.signal == pytest.approx(sum(one.signal for one in each) / len(each), abs=1e-9)
    assert together(each) == Shared(
        pytest.approx(found.signal, abs=1e-9), pytest.approx(found.square, abs=1e-9), 5, len(each)
    )


def test_it_is_right_on_average_where_each_batch_has_its_share_of_labels() -> None:
    generator = np.random.default_rng(0)
    means, labels = np.array([3.0, -2.0]), [0] * 4 + [1] * 12
    found = [shared(means[labels][None] + generator.normal(0, 2, (1, 16)), labels).signal for _ in range(4000)]
    assert np.mean(found) == pytest.approx((means[labels].mean()) ** 2, abs=4 * np.std(found) / 4000**0.5)


@pytest.mark.parametrize("directions", [1, 3])
def test_who_listens_hears_the_rows_of_a_probe(directions: int) -> None:
    told, labels, epsilon = RowLosses(), torch.tensor([0, 1, 0]), 2.0**-3
    losses = torch.tensor([[1.0, 2.0, 3.0], [1.5, 1.0, 3.25], [0.5, 2.0, 3.5], [1.0, 3.0, 2.5]])[: 1 + directions]
    told.note(torch.full((3,), 9.0), labels)
    with told.heard():
        for one in losses:
            told.note(one, labels)
    told.note(torch.full((3,), 9.0), labels)
    gradients = (losses[:1] - losses[1:]).double().numpy() / (2 * epsilon)
    if directions > 1:
        gradients = without_curvature(-2 * gradients)
    expected = shared(gradients, labels.tolist())
    # What the mean over the directions has taken is no direction of its own.
    assert told.shared(epsilon, directions) == replace(expected, directions=max(1, directions - 1))
    assert told.shared(epsilon, directions) is None, "asked twice"


@given(st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_what_curvature_adds_to_a_row_along_every_direction_is_not_seen(added: list[float]) -> None:
    gradients = np.array([[1.0, -2.0, 3.0], [0.5, 2.0, -1.0], [-1.5, 0.0, 4.0], [2.0, 1.0, 0.0]])
    found, plain = (shared(without_curvature(g)) for g in (gradients + added, gradients))
    assert (found.signal, found.square) == pytest.approx((plain.signal, plain.square))


def test_without_curvature_products_are_right_on_average() -> None:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(4000):
        gradients = generator.normal(0, 1, (4, 1)) + generator.normal(0, 2, (4, 8)) + 5
        one = shared(without_curvature(gradients))
        found.append((one.signal, one.square))
    error = np.std(found, axis=0) / len(found) ** 0.5
    assert np.abs(np.mean(found, axis=0) - (1, 5)) == pytest.approx(0, abs=4 * max(error))


def test_rows_tell_how_much_higher_a_loss_is_that_is_another_than_before() -> None:
    told = RowLosses()
    with told.heard():
        for loss in (torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])):
            told.note(loss, None, loss / 2)
    found = told.shared(1.0, 1)
    assert found is not None
    assert found.shift == 0.75, "at the first evaluation"
    assert together([found, replace(found, shift=0.25)]) == replace(found, directions=2, shift=0.5)


def test_rows_without_labels_are_paired_with_all_others() -> None:
    told, losses = RowLosses(), torch.tensor([[1.0, 2.0, 3.0], [1.5, 1.0, 3.25]])
    with told.heard():
        for one in losses:
            told.note(one)
    assert told.shared(0.5, 1) == shared((losses[:1] - losses[1:]).double().numpy())


@pytest.mark.parametrize(
    ("losses", "labels"), [(torch.tensor(1.0), None), (torch.ones(2, 3), None), (torch.ones(2), torch.ones(3))]
)
def test_what_are_no_losses_of_rows_is_refused(losses: torch.Tensor, labels: torch.Tensor | None) -> None:
    with pytest.raises(RecipeError, match="one number a row"):
        RowLosses().note(losses, labels)


def test_nothing_is_known_of_a_probe_that_told_nothing_or_was_broken_off() -> None:
    told, labels = RowLosses(), torch.tensor([0, 1])
    assert told.shared(1.0, 1) is None
    with told.heard():
        pass
    assert told.shared(1.0, 1) is None
    with told.heard():
        told.note(torch.ones(2), labels)
    assert told.shared(1.0, 1) is None, "one evaluation has no difference"
    with suppress(KeyboardInterrupt), told.heard():
        told.note(torch.ones(2), labels)
        told.note(torch.zeros(2), labels)
        raise KeyboardInterrupt
    assert told.shared(1.0, 1) is None
    with told.heard():
        told.note(torch.ones(2), labels)
        told.note(torch.ones(1), labels[:1])
    assert told.shared(1.0, 1) is None, "two batches"
    with told.heard():
        for losses in (torch.ones(2), torch.tensor([1.0, math.inf])):
            told.note(losses, labels)
    assert told.shared(1.0, 1) is None, "a loss that is not finite"
    with told.heard():
        for _ in range(4):
            told.note(torch.ones(2), labels)
    assert told.shared(1.0, 1) is None, "two heads of a model, say, each of which tells"
    assert together([]) is None
