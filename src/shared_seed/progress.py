"""What a run tells while it goes: events as JSON lines, or a table that people watch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from shared_seed import clock
from shared_seed.terminal import Terminal

Event = dict[str, Any]
Sink = Callable[[Event], None]

PLAIN_INTERVAL = 10.0
"""Seconds between lines where output is not a terminal."""


def json_lines(out: TextIO) -> Sink:
    """A sink that writes each event as one line of JSON."""

    def sink(event: Event) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    return sink


@dataclass
class _Row:
    """What is shown of one peer."""

    status: str = "starting"
    step: Event = field(default_factory=dict)


class Display:
    """Peers in a table over a bar of rounds; lines every few seconds where nobody watches."""

    def __init__(self, title: str) -> None:
        self._console = Terminal(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)
        self._rows: dict[str, _Row] = {}
        self._bar = Progress(
            TextColumn("round", style="bold"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("rounds", total=None, start=False)
        self._title = title
        self._printed = -PLAIN_INTERVAL
        self._loss: float | None = None

    def _total(self, key: str) -> int:
        """The sum of a count over all peers shown."""
        return sum(row.step.get(key, 0) for row in self._rows.values())

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live.__enter__()
        else:
            self._console.print(self._title)
        return self

    def __exit__(self, *details: Any) -> None:
        if self._console.is_terminal:
            self._refresh()
            self._live.__exit__(*details)

    def show(self, peer: str, event: Event) -> None:
        """Take in an event of a peer."""
        row = self._rows.setdefault(peer, _Row())
        if event["event"] == "status":
            row.status = event["text"]
            if "command" in event:
                row.status += "; others join with the command above"
                self._console.print(f"{peer}: {event['text']}; join with: {event['command']}", soft_wrap=True)
            elif not self._console.is_terminal:
                self._console.print(f"{peer}: {row.status}", soft_wrap=True)
        elif event["event"] == "fault":
            self._console.print(Text.assemble(("noted", "yellow"), f" by {peer}: {event['text']}"), soft_wrap=True)
        elif event["event"] == "step":
            row.status, row.step = "training", event
            self._advance(event)
        if self._console.is_terminal:
            self._refresh()

    def _advance(self, event: Event) -> None:
        self._loss = event["loss"] if self._loss is None else 0.98 * self._loss + 0.02 * event["loss"]
        task = self._bar.tasks[0]
        if not task.started:
            self._bar.start_task(self._task)
        self._bar.update(self._task, total=event["rounds"], completed=max(task.completed, event["round"] + 1))
        now = clock.now()
        if not self._console.is_terminal and now - self._printed >= PLAIN_INTERVAL:
            self._printed = now
            left = task.time_remaining
            self._console.print(
                f"round {event['round'] + 1}/{event['rounds']}  loss {self._loss:.4f}  peers {event['peers']}  "
                f"sent {self._total('sent'):,} B  received {self._total('received'):,} B  "
                f"left {'?' if left is None else f'{left:.0f} s'}",
                soft_wrap=True,
            )

    def _refresh(self) -> None:
        table = Table(title=self._title, title_justify="left", expand=True)
        for name in ("peer", "status", "round", "loss", "gradient", "peers", "sent", "received"):
            table.add_column(name, justify="left" if name in ("peer", "status") else "right")
        for peer, row in self._rows.items():
            step = row.step
            figures = (
                [
                    f"{step['round'] + 1}/{step['rounds']}",
                    f"{step['loss']:.4f}",
                    f"{step['gradient']:+.2f}",
                    str(step["peers"]),
                    f"{step['sent']:,} B",
                    f"{step['received']:,} B",
                ]
                if step
                else [""] * 6
            )
            table.add_row(peer, row.status, *figures)
        smooth = Text(f"smoothed loss {self._loss:.4f}" if self._loss is not None else "")
        self._live.update(Group(table, smooth, self._bar))
