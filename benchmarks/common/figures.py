"""Curves and bars as PNGs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.target import Target

COLOURS = ("#1f4e79", "#c0504d", "#7f7f7f", "#9bb8d3")


@dataclass(frozen=True)
class Curve:
    """How a cost grows: seconds of each series at each ``x``."""

    name: str
    title: str
    label: str
    x: Sequence[float]
    seconds: Mapping[str, Sequence[float]]


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw(path: Path, curve: Curve) -> None:
    """Write a curve with both axes logarithmic: a straight line at 45 degrees is a cost in proportion."""
    figure, axes = _figure(4)
    for (name, values), colour in zip(curve.seconds.items(), COLOURS, strict=False):
        axes.loglog(curve.x, values, "o-", color=colour, label=name, markersize=4)
    axes.set(xlabel=curve.label, ylabel="seconds", title=curve.title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=100)


def bars(path: Path, targets: Sequence[Target]) -> None:
    """Write every target as a bar, so that 1 is the limit and less is better."""
    used = [t.limit / t.measured if t.at_least else t.measured / t.limit for t in targets]
    figure, axes = _figure(1 + 0.3 * len(targets))
    colours = [COLOURS[0] if target.met else COLOURS[1] for target in targets]
    axes.barh([target.what for target in targets], used, color=colours)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="of what is allowed (1 is the limit)")
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    figure.savefig(path, dpi=110)
