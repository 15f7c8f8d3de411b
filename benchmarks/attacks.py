"""What do hostile peers do to a run, and what does each defence stop? Test accuracy on real sentences.

    python benchmarks/attacks.py                      # twenty minutes or so; writes docs/attacks/
    python benchmarks/attacks.py --quick --out /tmp/attacks

One process plays ten peers, each with its shard of the Rotten Tomatoes sentences, three of them hostile, with the
project's own weights, probes, messages, aggregation and replay. Every run also takes the hostile peers' messages
back at its end, and checks that the weights have the digest of a replay without them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from common import options
from hostility import reviews
from hostility.behaviour import ATTACKS, Attack
from hostility.game import Defence, Outcome, Scale, play
from hostility.reviews import Reviews
from shared_seed.manifest import Aggregation

DEFENCES = (
    Defence("sum, learning rates up to 1", limited=False),
    Defence("sum"),
    Defence("clip", Aggregation(kind="clip")),
    Defence("clip, factor 1", Aggregation(kind="clip", factor=1.0)),
    Defence("trimmed", Aggregation(kind="trimmed")),
    Defence("sum, banned halfway", banned=True),
)
EXCLUDED = "sum, excluded at the end"
"""The runs of ``sum`` again, after the hostile peers' messages were taken back."""

COLOURS = ("#9bb8d3", "#1f4e79", "#c0504d", "#e3a5a3", "#6a9a3b", "#d79b2e", "#7f7f7f")
QUICK = Scale(rounds=20, seeds=1)


@dataclass(frozen=True)
class Row:
    """One attack on one defence; ``hostile`` of ``peers``, and an outcome a seed."""

    attack: str
    defence: str
    hostile: int
    peers: int
    outcomes: Sequence[Outcome]

    @property
    def accuracies(self) -> list[float]:
        """At the end, one a seed."""
        return [outcome.accuracy for outcome in self.outcomes]

    @property
    def excluded(self) -> list[float]:
        """Without the hostile peers' messages, one a seed."""
        return [outcome.excluded for outcome in self.outcomes]


@dataclass(frozen=True)
class Cell:
    """Accuracies to show, and how many of the runs stopped before their last round."""

    accuracies: Sequence[float]
    stopped: int = 0

    @property
    def centre(self) -> float:
        """The mean."""
        return mean(self.accuracies)

    @property
    def spread(self) -> float:
        """The standard deviation between seeds."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    def __str__(self) -> str:
        note = f" ({self.stopped} stopped)" if self.stopped else ""
        return f"{100 * self.centre:.1f} ± {100 * self.spread:.1f}{note}"


def cells(rows: Sequence[Row], scale: Scale) -> dict[str, dict[str, Cell]]:
    """By attack and defence, with a column for exclusion at the end."""
    out: dict[str, dict[str, Cell]] = {}
    for row in rows:
        stopped = sum(outcome.rounds < scale.rounds for outcome in row.outcomes)
        line = out.setdefault(row.attack, {})
        line[row.defence] = Cell(row.accuracies, stopped)
        if row.defence == "sum":
            line[EXCLUDED] = Cell(row.excluded)
    return out


def table(rows: Sequence[Row], scale: Scale) -> str:
    """Markdown: an attack a line, a defence a column; where a limit of learning rates changes nothing, a dash."""
    names = [*(defence.name for defence in DEFENCES), EXCLUDED]
    lines = ["| attack | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for attack, line in cells(rows, scale).items():
        lines.append(f"| {attack} | " + " | ".join(str(line.get(name, "-")) for name in names) + " |")
    return "\n".join(lines) + "\n"


def draw(path: Path, rows: Sequence[Row], scale: Scale) -> None:
    """A line an attack, a dot a defence, as wide as the seeds' spread."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = cells(rows, scale)
    figure = Figure(figsize=(8, 0.9 + 0.45 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    names = [*(defence.name for defence in DEFENCES), EXCLUDED]
    for i, (name, colour) in enumerate(zip(names, COLOURS, strict=True)):
        here = [(y, line[name]) for y, line in enumerate(found.values()) if name in line]
        axes.errorbar(
            [100 * cell.centre for _, cell in here],
            [y + 0.1 * (i - 3) for y, _ in here],
            xerr=[100 * cell.spread for _, cell in here],
            fmt="o",
            markersize=4,
            color=colour,
            label=name,
        )
    axes.axvline(50, color="black", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set(xlabel="test accuracy, %", title="Hostile peers by attack and defence")
    axes.grid(axis="x", alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=90)


def measure(data: Reviews, scale: Scale, attacks: Sequence[Attack] = ATTACKS) -> list[Row]:
    """Run every attack on every defence that it can tell apart; prints a line each."""
    rows = []
    for attack in attacks:
        for defence in DEFENCES:
            if not defence.limited and not attack.loud:
                continue
            began = time.perf_counter()
            outcomes = play(data, scale, attack, defence)
            row = Row(attack.name, defence.name, attack.hostile, attack.peers, outcomes)
            rows.append(row)
            exact = sum(outcome.in_place is True for outcome in outcomes)
            print(
                f"{attack.name:28} {defence.name:28} {', '.join(f'{100 * a:.1f}' for a in row.accuracies)} %;"
                f" excluded {', '.join(f'{100 * a:.1f}' for a in row.excluded)} %, taken back exactly in {exact}"
                f" of {len(outcomes)}; {min(o.rounds for o in outcomes)} rounds or more;"
                f" {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    return rows


def write(out: Path, rows: Sequence[Row], scale: Scale) -> None:
    """Leave table, plot and figures in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "attacks.md").write_text(table(rows, scale))
    draw(out / "attacks.png", rows, scale)
    options.write(out / "attacks.json", {"scale": asdict(scale), "rows": [asdict(row) for row in rows]}, "cpu")


def main() -> None:
    """Do what the command line asks for."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--out", type=Path, default=Path("docs/attacks"))
    words.add_argument("--quick", action="store_true", help="one seed, twenty rounds: too few to learn much")
    chosen = words.parse_args()
    torch.set_num_threads(1)
    scale = QUICK if chosen.quick else Scale()
    rows = measure(reviews.load(), scale)
    print(table(rows, scale))
    write(chosen.out, rows, scale)


if __name__ == "__main__":
    main()
