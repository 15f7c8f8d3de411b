"""Tables and curves of what has been run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from convergence.plans import HEAD, LANGUAGE

Result = dict[str, Any]
USUAL = {spec.model: spec for spec in (LANGUAGE, HEAD)}
TOLD = ("rate", "schedule", "passes", "batch", "most_tokens", "train_rows", "precision")
OURS = (
    "temperature",
    "cools",
    "promise",
    "follow",
    "rows",
    "directions",
    "peers",
    "behind",
    "dense",
    "only",
    "even",
    "coefficient",
    "epsilon",
)
"""What a name tells where it is not as usual, of any method and of ours."""


def name(result: Result) -> str:
    """What tells a run from others, seeds apart: the fields that are not as usual."""
    spec = result["spec"]
    ours, usual = spec["method"] == "ours", USUAL[spec["model"]]
    parts = [spec["model"], spec["corpus"], "LoRA" if spec["lora"] else "all"]
    parts.append("shared-seed" if ours else spec["method"])
    for field in (*TOLD, *(OURS if ours else ())):
        value = spec[field]
        if value != getattr(usual, field):
            parts.append(f"{'' if value else 'not '}{field}" if isinstance(value, bool) else f"{field} {value}")
    # A bar would end a table's cell.
    return ", ".join(parts).replace("|", " ")


def grouped(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results by :func:`name`, the seeds of each together."""
    out: dict[str, list[Result]] = {}
    for result in results:
        out.setdefault(name(result), []).append(result)
    return out


def _cell(results: Sequence[Result], field: str, scale: float) -> str:
    values = [scale * result["points"][-1][field] for result in results if result["points"][-1][field] is not None]
    if not values:
        return ""
    digits = 1 if scale == 100 else 3
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def table(results: Sequence[Result]) -> str:
    """Markdown: mean and standard deviation over seeds at the end of each run."""
    lines = ["| run | seeds | passes | accuracy, % | at the median, % | AUC | loss | seconds | stopped |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for label, own in grouped(results).items():
        last = [result["points"][-1] for result in own]
        cells = [_cell(own, "accuracy", 100), _cell(own, "median_accuracy", 100), _cell(own, "auc", 1)]
        cells += [_cell(own, "loss", 1), f"{mean(point['seconds'] for point in last):.0f}"]
        cells.append(str(sum(bool(result["stopped"]) for result in own) or ""))
        lines.append(
            f"| {label} | {len(own)} | {mean(p['passes'] for p in last):.0f} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def draw(path: Path, results: Sequence[Result]) -> None:
    """Loss and accuracy against forward passes, a line for each run, its seeds averaged."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, field, label in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("test loss", "test accuracy"), strict=True
    ):
        for shown, own in grouped(results).items():
            length = min(len(result["points"]) for result in own)
            x = [own[0]["points"][i]["passes"] for i in range(length)]
            y = [mean(result["points"][i][field] for result in own) for i in range(length)]
            axes.plot(x, y, "o-", markersize=3, linewidth=1, label=shown)
        axes.set(xlabel="forward passes of 16 rows, of each peer", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
