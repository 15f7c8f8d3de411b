"""The command ``shared-seed audit``."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from shared_seed import log
from shared_seed.cli_replay import bar
from shared_seed.folder import LOG_NAME
from shared_seed.messages import Stream
from shared_seed.terminal import Terminal
from shared_seed.verdict import TOLERANCE, Agreement, Correlation, Verdict, messages_needed

if TYPE_CHECKING:
    from shared_seed.audit import Audit, Options

NAMED = 3
"""Exit code where a stream does not agree."""

COLOURS = {
    Verdict.AGREES: "green",
    Verdict.UNCERTAIN: "yellow",
    Verdict.DISAGREES: "bold red",
    Verdict.BREAKS_TERMS: "bold red",
}


def audit(
    path: Annotated[Path, typer.Argument(metavar="LOG", help="A gradient log, or a run folder with one.")],
    share: Annotated[float, typer.Option(help="Share of each stream's messages to compute again.")] = 0.02,
    seed: Annotated[int | None, typer.Option(help="Chooses the messages. Default: a secret one.", min=0)] = None,
    tolerance: Annotated[
        float, typer.Option(help="How far a gradient may be off, in root mean squares of all.")
    ] = TOLERANCE,
    base: Annotated[str | None, typer.Option(help="The base model, if not where the log says.")] = None,
    public: Annotated[
        str | None, typer.Option(help="Correlate with gradients on these rows, in the recipe's columns.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Public rows for each audited message.", min=1)] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute some of other peers' gradients again, and compare with the bytes that they published.

    With `training.batches: assigned` in the recipe a byte can be checked. Otherwise it is correlated with
    gradients on public rows: those that the recipe holds out, or `--public FILE`. Exit code 3 if a stream does not
    agree.

    Examples:
    `shared-seed audit runs/quickstart`

    `shared-seed audit runs/quickstart --share 0.2 --public reviews.csv --json`
    """
    from shared_seed.integrations.transformers.models import quiet

    quiet()
    from shared_seed import audit as audits  # Late: torch takes seconds, which no other command should wait for.

    options = audits.Options(share=share, seed=seed, tolerance=tolerance, base=base, public=public, rows=rows)
    contents = log.read(path / LOG_NAME if path.is_dir() else path)
    with bar("auditing") as tell:
        found = audits.audit(contents, options, tell)
    if as_json:
        sys.stdout.write(json.dumps(as_dict(found)) + "\n")
    else:
        show(found, options, Terminal())
    if found.named:
        raise SystemExit(NAMED)


def as_dict(found: Audit) -> dict[str, Any]:
    """What an audit found, as JSON has it: streams by peer and incarnation, ``null`` for what is not known."""
    streams = []
    for report in found.streams:
        fields = {f.name: getattr(report, f.name) for f in dataclasses.fields(report)}
        stream = fields.pop("stream")
        known = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in fields.items()}
        streams.append({"peer": stream.peer.hex(), "incarnation": stream.incarnation, **known})
    return {"seed": found.seed, "assigned": found.assigned, "scale": found.scale, "streams": streams}


def show(found: Audit, options: Options, out: Terminal) -> None:
    """A table of what an audit found of each stream, and what to do about it."""
    out.print(f"seed      {found.seed}")
    out.print(f"gradients of root mean square {found.scale:.4g}; distances are in this unit")
    if found.assigned:
        columns = ("messages", "audited", "agree", "mismatch", "abstain", "worst", "broken", "verdict")
        title = f"bytes against their assigned batches, tolerance {options.tolerance:g}"
    else:
        columns = (
            "messages",
            "audited",
            "abstain",
            "same\nsign",
            "correlation",
            "z to\n0",
            "z to\nothers",
            "verdict",
        )
        title = f"bytes against gradients on {options.rows} public rows"
    # Without lines it fits into 80 columns, where names and verdicts would else be cut.
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("stream", *columns):
        table.add_column(column, no_wrap=column != "verdict")
    for report in found.streams:
        cells = _assigned_cells(report) if isinstance(report, Agreement) else _public_cells(report)
        table.add_row(str(report.stream), *cells, report.verdict.value, style=COLOURS[report.verdict])
    out.print(table)
    if not found.assigned:
        out.print(_power(found))
    out.print(_advice(found), soft_wrap=True)


def _name(stream: Stream) -> str:
    return f"{stream.peer.hex()}/{stream.incarnation}"


def _assigned_cells(report: Agreement) -> list[str]:
    counts = (report.messages, report.audited, report.agree, report.mismatch, report.abstained)
    return [*(f"{count:,}" for count in counts), f"{report.worst:.3f}", str(report.broken)]


def _public_cells(report: Correlation) -> list[str]:
    counts = (report.messages, report.audited, report.abstained)
    correlation = f"{report.r:+.2f}±{report.error:.2f}"
    scores = (f"{report.against_zero:+.1f}", f"{report.against_others:+.1f}")
    return [*(f"{count:,}" for count in counts), f"{report.same_sign:.0%}", correlation, *scores]


def _power(found: Audit) -> str:
    """How many audited messages a stream needs before this can tell anything."""
    random, flipped = messages_needed(found.honest, 0.0), messages_needed(found.honest, -found.honest)
    if random is None or flipped is None:
        return "all streams together are not correlated with these rows, so nothing can be told from them"
    return (
        f"all streams together have correlation {found.honest:+.2f}; to tell random bytes from that takes "
        f"{random:,} audited messages of a stream, to tell flipped signs {flipped:,} (in 95 of 100 cases; 1 in "
        "1,000 is wrong)"
    )


def _advice(found: Audit) -> str:
    if found.named:
        names = ", ".join(map(_name, found.named))
        reason = "" if found.assigned else " (or its rows are of another kind than the public ones)"
        return (
            f"look at {names}{reason}: audit again with a larger --share, look up whose key it is with "
            "shared-seed inspect, and take its bytes out of the run with shared-seed ban KEY"
        )
    if any(report.verdict is Verdict.UNCERTAIN for report in found.streams):
        return "no stream stands out, but not all can be told; audit again with a larger --share"
    return "all streams agree"
