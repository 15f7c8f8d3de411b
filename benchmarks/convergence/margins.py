"""What rows ask for: gradients of two labels' margins, thinned out, and how far batches of them lower a loss."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convergence.bench import Bench, Feature

Array = NDArray[np.float64]
LAYER = re.compile(r"layers\.(\d+)\.")

BATCH = 16
"""Rows of a batch, as many of each label."""


@dataclass(frozen=True)
class Margins:
    """Of some rows, half of them of each label.

    Attributes:
        gradients: float32 [rows, numbers], of the margin by some numbers of each parameter, at random and scaled
            so that products of rows are right on average.
        margins: [rows], the second label's logit less the first's.
        signs: [rows], 1 for the second label and -1 for the first.
        layers: int [numbers].
    """

    gradients: NDArray[np.float32]
    margins: Array
    signs: Array
    layers: NDArray[np.int64]


def measure(bench: Bench, rows: int, every: int = 211) -> Margins:
    """By backpropagation, a row at a time, keeping one number of ``every``.

    Args:
        bench: a model with two labels, whose layers' parameters are taken.
        rows: to train on, even; the first ones after a shuffle.
        every: of small parameters, one number of 8 is kept.
    """
    draw = random.Random(0)
    parameters = dict(bench.model.named_parameters())
    trained = [(int(layer[1]), p) for name, p in parameters.items() if (layer := LAYER.search(name))]
    bench.model.requires_grad_(False)
    for _, parameter in trained:
        parameter.requires_grad_()
    chosen = list(_evenly(bench.train, draw))[:rows]
    kept = [
        slice(draw.randrange(every), None, every) if p.numel() > 24 * every else slice(None, None, 8)
        for _, p in trained
    ]
    found, margins = [], []
    for feature in chosen:
        bench.model.zero_grad()
        logits = bench.logits(bench.batch([feature])[0])[0]
        margin = logits[1] - logits[0]
        margin.backward()  # type: ignore[no-untyped-call]
        found.append(torch.cat([_thinned(p, part) for (_, p), part in zip(trained, kept, strict=True)]).numpy())
        margins.append(float(margin.detach()))
    layers = [
        np.full(len(range(*part.indices(p.numel()))), layer)
        for (layer, p), part in zip(trained, kept, strict=True)
    ]
    signs = np.array([1.0 if label else -1.0 for _, label in chosen])
    return Margins(np.stack(found), np.array(margins), signs, np.concatenate(layers))


def _evenly(features: list[Feature], draw: random.Random) -> Iterator[Feature]:
    labels = [[feature for feature in features if feature[1] == label] for label in (1, 0)]
    for rows in labels:
        draw.shuffle(rows)
    for pair in zip(*labels, strict=False):
        yield from pair


def _thinned(parameter: torch.nn.Parameter, part: slice) -> Tensor:
    assert parameter.grad is not None
    thinned = parameter.grad.flatten()[part]
    return thinned * float((parameter.numel() / thinned.numel()) ** 0.5)


def gain(found: Margins, temperature: float, layers: range | None = None) -> float:
    """What one gradient of a batch gains at best, in nats of a loss that no shift of all margins changes.

    Along a random direction, ``(g G)**2 / (2 E|g_batch|**2 tr H)``, with G the gradient of the mean of
    ``log(1 + exp(m_j - m_i))`` over rows i of the second label and j of the first, ``g`` that of the loss at the
    temperature, with even batches, and H the Fisher information of the loss at 1.

    Args:
        found: rows.
        temperature: that margins are divided by in training.
        layers: which alone are trained; all by default.
    """
    kept = slice(None) if layers is None else np.isin(found.layers, layers)
    rows = found.gradients[:, kept]
    products = (rows @ rows.T).astype(np.float64)
    own, signs = np.diag(products), found.signs
    weights = signs * _chance(-signs * found.margins / temperature)
    wanted = ranking(found.margins, signs)
    along = weights @ products @ wanted - np.sum(weights * wanted * own)
    chance = _chance(found.margins)
    curvature = np.mean(own * chance * (1 - chance))
    square = _batch_square(products * np.outer(weights, weights), signs)
    return float((along / len(signs)) ** 2 / (2 * square * curvature))


def ranking(margins: Array, signs: Array) -> Array:
    """Minus the derivative of the ranking loss by each margin."""
    first, second = signs < 0, signs > 0
    wrong = _chance(margins[first][None, :] - margins[second][:, None])
    wanted = np.zeros_like(margins)
    wanted[second], wanted[first] = wrong.mean(1) / second.sum(), -wrong.mean(0) / first.sum()
    return wanted


def _chance(margins: Array) -> Array:
    """Of the second label."""
    chance: Array = 1 / (1 + np.exp(-margins))
    return chance


def _batch_square(products: Array, signs: Array) -> float:
    """Expected square of the mean of a batch of rows, as many of each label, drawn without repetition."""
    half = BATCH // 2
    total = float(np.trace(products)) / len(signs) * BATCH
    for sign in (1, -1):
        block = products[np.ix_(signs == sign, signs == sign)]
        pairs = len(block) * (len(block) - 1)
        total += half * (half - 1) * float(block.sum() - np.trace(block)) / pairs
    across = products[np.ix_(signs > 0, signs < 0)]
    return (total + 2 * half * half * float(across.mean())) / BATCH**2
