"""Curves of a simulation as PNGs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLOURS = ("#1f4e79", "#c0504d", "#7f7f7f", "#9bb8d3", "#6a9a3b", "#d79b2e")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """Several lines over the number of peers; ``limit`` is drawn across, with its name."""

    name: str
    title: str
    unit: str
    lines: Mapping[str, Points]
    limit: tuple[str, float] | None = None


def draw(folder: Path, plot: Plot) -> None:
    """Write a plot with both axes logarithmic: twice as steep as 45 degrees is a cost that grows as the square."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    for (name, points), colour in zip(plot.lines.items(), COLOURS[: len(plot.lines)], strict=True):
        shown = [(x, y) for x, y in points if y > 0]
        axes.loglog([x for x, _ in shown], [y for _, y in shown], "o-", color=colour, label=name, markersize=4)
    if plot.limit is not None:
        name, value = plot.limit
        axes.axhline(value, color="black", linewidth=0.8, linestyle="--", label=name)
    axes.set(xlabel="peers", ylabel=plot.unit, title=plot.title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(folder / f"{plot.name}.png", dpi=90)
