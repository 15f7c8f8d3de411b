"""The probes of a step that is not published yet."""

from __future__ import annotations

import math

from shared_seed.probe import Measurement
from shared_seed.rows import Shared, together


class Pending:
    """What has been measured since the last step.

    Attributes:
        codes: one byte a probe.
        newest: the last measurement, None before the first.
    """

    def __init__(self) -> None:
        self.codes = bytearray()
        self.newest: Measurement | None = None
        self._losses: list[float] = []
        self._gradients: list[float] = []
        self._rows: list[Shared] = []

    def note_rows(self, found: Shared | None) -> None:
        """Keep what the rows of a batch have in common along its directions, where that is known."""
        if found is not None:
            self._rows.append(found)

    def note(self, measured: Measurement, gradient: float, code: int) -> None:
        """Keep a probe: what was measured, the projected gradient that counts, and its code."""
        self.newest = measured
        self.codes.append(code)
        if math.isfinite(gradient):
            self._losses.append(measured.loss)
            self._gradients.append(gradient)

    @property
    def loss(self) -> float:
        """Mean of the probes that do not abstain, NaN without any."""
        return _mean(self._losses)

    @property
    def gradient(self) -> float:
        """Mean of the probes that do not abstain, NaN without any."""
        return _mean(self._gradients)

    @property
    def rows(self) -> Shared | None:
        """What rows have in common, of all batches together; None where no batch has told."""
        return together(self._rows)

    @property
    def abstained(self) -> int:
        """How many probes had a loss that was not finite, or none."""
        return len(self.codes) - len(self._gradients)

    def clear(self) -> None:
        """Forget them all."""
        self.newest = None
        self.codes.clear()
        self._losses.clear()
        self._gradients.clear()
        self._rows.clear()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
