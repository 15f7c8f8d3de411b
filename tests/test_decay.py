"""Weight decay in the projected gradient: its step is the decay's on average."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import models
from shared_seed import decay, directions
from shared_seed.noise import Sample
from shared_seed.weights import Weights


def both_families() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))


def test_it_is_the_inner_product_with_the_direction() -> None:
    weights = Weights.of(both_families(), models.EPSILON)
    decays = {t.name: 0.1 * (t.index + 1) for t in weights}
    sample = Sample(3, 1, 2)
    expected = sum(
        decays[t.name]
        * float(
            (t.values.double().numpy() * directions.direction(t.family, sample, t.index, t.values.shape)).sum()
        )
        for t in weights
    )
    assert decay.projected(weights, decays, sample) == pytest.approx(expected, rel=1e-5)


def test_parameters_without_a_coefficient_do_not_count() -> None:
    weights = Weights.of(both_families(), models.EPSILON)
    assert decay.projected(weights, {}, Sample(3, 1, 2)) == 0.0


def test_its_step_is_that_of_weight_decay_on_average() -> None:
    """Over many directions, the mean of ``<theta, z> z`` is theta, with an error of about |theta| / sqrt(n)."""
    weights = Weights.of(nn.Linear(3, 2), models.EPSILON)
    count = 20_000
    totals = {t.name: np.zeros(tuple(t.values.shape)) for t in weights}
    for number in range(count):
        sample = Sample(9, number, 0)
        along = decay.projected(weights, {t.name: 1.0 for t in weights}, sample)
        for t in weights:
            totals[t.name] += along * directions.direction(t.family, sample, t.index, tuple(t.values.shape))
    norm = float(torch.cat([t.values.flatten() for t in weights]).norm())
    for t in weights:
        assert np.abs(totals[t.name] / count - t.values.numpy()).max() < 5 * norm / count**0.5


def test_decay_that_drowns_the_loss_is_told_when_enough_was_measured() -> None:
    loudness = decay.Loudness()
    for _ in range(loudness.ENOUGH - 1):
        loudness.note(3.0, -4.0)
    assert loudness.warning is None
    loudness.note(3.0, 4.0)
    assert loudness.warning is not None
    assert "root mean square 4 against 3 of the loss" in loudness.warning
    loudness.note(1e9, 0.0)
    assert loudness.warning is not None


def test_decay_that_is_quieter_than_the_loss_is_not_told_of() -> None:
    loudness = decay.Loudness()
    for _ in range(2 * loudness.ENOUGH):
        loudness.note(float("nan"), 100.0)
        loudness.note(3.0, 2.9)
    assert loudness.warning is None
