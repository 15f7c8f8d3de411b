"""The command ``shared-seed report``."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from shared_seed.terminal import Terminal


def report(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a gradient log.")],
    to: Annotated[
        Path | None, typer.Option("--out", "-o", help="The HTML file. Default: report.html in the folder.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Write one HTML page about a run: loss, accuracy, gradients, peers, bytes, and what else it would have cost.

    A run that has ended has it already; one under way, or a bare log, gets one of what is known. The page loads
    nothing from anywhere.

    Examples:
    `shared-seed report runs/quickstart --open`

    `shared-seed report gradients.sslog -o report.html`
    """
    from shared_seed import report as reports  # Late: no other command needs templates.

    where = reports.write(path, to)
    Terminal().print(f"report    {where} ({where.stat().st_size:,} bytes)", soft_wrap=True)
    if show:
        webbrowser.open(where.resolve().as_uri())
