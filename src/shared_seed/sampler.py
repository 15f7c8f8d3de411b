"""In which order a peer goes through its rows: at random, but with rows of about one length in a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Generator
from torch.utils.data import Sampler

SORTED = 50
"""Batches whose rows are sorted by length at once, at most, as in transformers' ``LengthGroupedSampler``."""

LEAST_PARTS = 4
"""Into so many parts, at least, an epoch is cut before each is sorted, so that short data stay mixed too."""


class ByLength(Sampler[int]):
    """Rows in random order, of about one length within a batch, so that little is padded; each epoch anew.

    Batches of all lengths come mixed, but peers with the same ``order_seed`` take long ones at the same time:
    in lockstep nobody waits for who has the longest rows. transformers' own sampler goes from long to short, so
    that a run of few steps may see no short rows, and its Trainer gives it the global generator, which is seeded
    alike in all peers.

    Args:
        lengths: of the rows, in tokens.
        batch_size: rows in a batch.
        seed: which rows meet in a batch.
        order_seed: in which order lengths come.
        labels: of the rows; each batch gets its share of each label. None where rows have none.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        order_seed: int,
        labels: Sequence[int] | None = None,
    ) -> None:
        self.lengths = lengths
        self.labels = [0] * len(lengths) if labels is None else labels
        self.batch_size = batch_size
        self._rows = Generator().manual_seed(seed)
        self._order = Generator().manual_seed(order_seed)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """The rows of the next epoch; a last batch that is not full is one of rows of any length."""
        rows = self._spread(torch.randperm(len(self.lengths), generator=self._rows).tolist())
        batches = len(rows) // self.batch_size
        part = self.batch_size * min(SORTED, max(1, batches // LEAST_PARTS))
        full = batches * self.batch_size
        for start in range(0, full, part):
            yield from self._mixed(rows[start : min(start + part, full)])
        yield from rows[full:]

    def batches(self) -> Iterator[list[int]]:
        """The rows of each batch, epoch after epoch without an end; the last one of an epoch may not be full."""
        while self.lengths:
            epoch = iter(self)
            while batch := list(islice(epoch, self.batch_size)):
                yield batch

    def _mixed(self, rows: list[int]) -> Iterator[int]:
        """Whole batches of rows sorted by length, and even in labels, in random order."""
        ordered = self._spread(sorted(rows, key=lambda row: self.lengths[row]))
        for batch in torch.randperm(len(ordered) // self.batch_size, generator=self._order).tolist():
            yield from ordered[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _spread(self, rows: Sequence[int]) -> list[int]:
        """The rows of each label in the order that they are in, evenly spread from the first to the last."""
        by_label: dict[int, list[int]] = {}
        for row in rows:
            by_label.setdefault(self.labels[row], []).append(row)
        placed = [
            ((place + 0.5) / len(alike), row) for alike in by_label.values() for place, row in enumerate(alike)
        ]
        return [row for _, row in sorted(placed)]


class Onward(Sampler[list[int]]):
    """The batches of a whole training as one epoch, from wherever its peer has got to.

    Loops know of epochs before they know how far a peer has got, and end a step early where an epoch ends: in the
    middle of one, they could not go on with the same batches in the same steps.

    Args:
        batches: how many a loop takes from the beginning to the end of the training.
        begin: tells the order, and how many of its batches are done; asked when the first one is wanted.
    """

    def __init__(self, batches: int, begin: Callable[[], tuple[ByLength, int]]) -> None:
        self.batches = batches
        self._begin = begin

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        """The batches that are not done yet; there is no end to them."""
        order, done = self._begin()
        yield from islice(order.batches(), done, None)
