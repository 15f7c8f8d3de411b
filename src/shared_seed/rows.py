"""What single rows of a batch ask for, where a task tells their losses.

Along a direction, every row has a projected gradient of its own, from the evaluations that a probe makes anyway.
What rows have in common is the signal; its share in a row's gradient is the number that a learning rate is found
by (:mod:`shared_seed.rate`), and pairs of rows estimate it without bias (a U-statistic, Hoeffding 1948).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared_seed.errors import RecipeError

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Shared:
    """What rows of one batch have in common along some directions.

    Attributes:
        signal: mean square of the gradient that rows have in common, without bias; may be negative.
        square: mean square of a row's gradient.
        rows: of the batch.
        directions: that both are means of, less those that went into what was taken off.
        shift: nats that the loss is higher by than that of the step before would be, where it is another.
    """

    signal: float
    square: float
    rows: int
    directions: int
    shift: float = 0.0


def shared(gradients: Numbers, labels: Sequence[int] | None = None) -> Shared:
    """From the projected gradients of rows.

    Batches have their share of each label, so their rows are drawn within labels: pairs of each two labels, and
    of each with itself, count by the labels' shares. A label's only row has no partner; what it would have in
    common with others of its label is left out.

    Args:
        gradients: [directions, rows].
        labels: of the rows; None where they are all alike.
    """
    directions, count = gradients.shape
    kinds = np.zeros(count, np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    member = np.equal.outer(np.arange(kinds.max(initial=0) + 1), kinds)
    sums, squares = gradients @ member.T, gradients**2 @ member.T
    each = member.sum(1)
    # (sum of a label's rows)**2 holds each row with itself, which says nothing of what is in common.
    within = (sums**2 - squares) * (each**2 / np.maximum(each * (each - 1), 1))
    signal = (gradients.sum(1) ** 2 - (sums**2).sum(1) + within.sum(1)) / count**2
    return Shared(float(signal.mean()), float((gradients**2).mean()), count, directions)


def without_curvature(gradients: Numbers) -> Numbers:
    """What of projected gradients from one side is gradient.

    Curvature adds nearly the same along all directions to a row's, and rows have it in common. Without their mean
    over the directions, and larger by what that has taken from their squares, all products are without bias.

    Args:
        gradients: [directions, rows], two directions or more.
    """
    count = len(gradients)
    above: Numbers = gradients - gradients.mean(0)
    above *= math.sqrt(count / (count - 1))
    return above


def together(found: Sequence[Shared]) -> Shared | None:
    """Of several batches, each along directions of its own; None without any."""
    if not found:
        return None
    weights = [one.directions for one in found]
    signal, square, rows, shift = np.average(
        [(one.signal, one.square, one.rows, one.shift) for one in found], axis=0, weights=weights
    )
    return Shared(float(signal), float(square), round(rows), sum(weights), float(shift))


class RowLosses:
    """Losses of rows, between a task, which tells those of every evaluation, and a session, which listens to those
    of a probe.
    """

    def __init__(self) -> None:
        self._told: list[Tensor] | None = None
        self._heard: list[Tensor] = []
        self._labels: Tensor | None = None
        self._shift: Tensor | None = None

    def note(self, losses: Tensor, labels: Tensor | None = None, before: Tensor | None = None) -> None:
        """Of one evaluation; forgotten where nobody listens.

        Args:
            losses: [rows].
            labels: int64 [rows], where every batch has its share of each label; None where rows are drawn alike.
            before: [rows], what the loss of the step before would be, where that is another loss.

        Raises:
            RecipeError: the shapes are others.
        """
        if losses.ndim != 1 or (labels is not None and labels.shape != losses.shape):
            theirs = "" if labels is None else f", labels {tuple(labels.shape)}"
            raise RecipeError(
                f"row_losses.note() got losses of shape {tuple(losses.shape)}{theirs}; expected one number a row, "
                'as cross_entropy(logits, labels, reduction="none") gives'
            )
        if self._told is not None:
            self._told.append(losses.detach())
            self._labels = labels
            if before is not None and self._shift is None:
                self._shift = (losses - before).mean().detach()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Listen to what follows, for :meth:`shared`."""
        self._told, self._heard, self._labels, self._shift = [], [], None, None
        try:
            yield
            self._heard = self._told
        finally:
            self._told = None

    def shared(self, epsilon: float, directions: int) -> Shared | None:
        """What the rows of the batch that was listened to have in common.

        Args:
            epsilon: distance of the probe's points.
            directions: of the probe. One has an evaluation on either side; of several, each has one, after one at
                the weights (:mod:`shared_seed.probe`).

        Returns:
            None if rows were not told once an evaluation, all of them the same number, and all finite.
        """
        heard, labels = self._heard, self._labels
        self._heard = []
        if len(heard) != 1 + directions or len({losses.shape for losses in heard}) > 1:
            return None
        losses = torch.stack(heard).cpu().double().numpy()
        if not np.isfinite(losses).all():
            return None
        first, others = losses[:1], losses[1:]
        if directions == 1:
            gradients = (first - others) / (2 * epsilon)
        else:
            gradients = without_curvature((others - first) / epsilon)
        found = shared(gradients, None if labels is None else labels.tolist())
        shift = 0.0 if self._shift is None else float(self._shift)
        return replace(found, directions=max(1, directions - 1), shift=shift)
