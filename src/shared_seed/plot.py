"""The loss curve of a run, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared_seed.files import replacing


def loss_curve(path: Path, rounds: Sequence[int], losses: Sequence[float], title: str) -> None:
    """Write a PNG: the loss of every round, pale, and its running mean.

    Args:
        path: of the PNG.
        rounds: of the points.
        losses: mean of the two probes' losses at each round.
        title: above the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    window = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(window) / window, "valid")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(rounds, losses, color="#9bb8d3", linewidth=0.6, label="each round")
    axes.plot(rounds[window - 1 :], smooth, color="#1f4e79", linewidth=2, label=f"mean of {window} rounds")
    axes.set(xlabel="round", ylabel="loss of this peer's batches", title=title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with replacing(path) as new:
        figure.savefig(new, dpi=120)
