"""What a run says in the end: a table, JSON, Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from common import machine
from faulting.rejoining import rejoins
from faulting.runner import Found
from faulting.verdict import Check, judge, named


def results(found: Found) -> tuple[list[Check], dict[str, Any]]:
    """The checks, and the figures beside them."""
    options = found.options
    checks = judge(found.events, options.plan.peers, options.plan.kills)
    done = Counter(f"{e['kind']}" for e in named(found.events, "action") if e["done"])
    ends = [e for e in named(found.events, "end") if e["killed"]]
    figures = {
        "plan": asdict(options.plan),
        "lockstep": options.lockstep,
        "pause": options.pause,
        "network": found.net,
        "loss": found.loss,
        "full disks": "mounted" if found.mounting else "limited file size",
        "seconds": round(found.seconds, 1),
        "busy cores": round(found.cores, 2),
        "actions": dict(sorted(done.items())),
        "killed": {kind: sum(e["who"].startswith(kind) for e in ends) for kind in ("peer", "relay")},
        "rounds": max((e["round"] for e in named(found.events, "step")), default=0),
        "messages": max((len(e["held"]) for e in named(found.events, "replayed")), default=0),
        "rejoin": rejoins(found.events).summary(),
    }
    return checks, figures


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures as text."""
    plan, rejoin = figures["plan"], figures["rejoin"]
    rows = [
        ("swarm", f"{plan['peers']} peers, {plan['relays']} relays, seed {plan['seed']}"),
        ("mode", "lockstep" if figures["lockstep"] else "free-running"),
        ("network", f"{figures['network']}; loss: {figures['loss']}"),
        ("full disks", figures["full disks"]),
        ("time", f"{figures['seconds']:.0f} s, {figures['busy cores']:.2f} cores busy"),
        ("actions", ", ".join(f"{count} {kind}" for kind, count in figures["actions"].items())),
        ("SIGKILLs", ", ".join(f"{count} of {kind}s" for kind, count in figures["killed"].items())),
        ("run", f"{figures['rounds']} rounds, {figures['messages']} messages"),
    ]
    for name in ("all", "calm"):
        q = rejoin[name]
        times = f"p50 {q['p50']:.2f} s, p99 {q['p99']:.2f} s, max {q['max']:.2f} s" if q["count"] else "none"
        rows.append((f"rejoin, {name}", f"{q['count']} times: {times}"))
    rows.append(("rejoin, unfinished", f"{rejoin['unfinished']} ended before they were back"))
    return rows


def show(checks: Sequence[Check], figures: dict[str, Any], console: Console) -> None:
    """Print both."""
    table = Table(show_header=False, title="faults")
    for name, value in _rows(figures):
        table.add_row(name, value)
    table.add_section()
    for check in checks:
        verdict = "[green]kept[/]" if check.kept else "[red]BROKEN[/]"
        table.add_row(check.name, f"{verdict}: {check.fact}")
    console.print(table)
    for check in checks:
        for line in check.wrong:
            console.print(f"{check.name}: {line}", style="red", markup=False)


def write(checks: Sequence[Check], figures: dict[str, Any], out: Path) -> None:
    """Write ``faults.json`` and ``faults.md``."""
    out.mkdir(parents=True, exist_ok=True)
    judged = [asdict(check) for check in checks]
    content = {"machine": machine.describe(), **figures, "checks": judged}
    (out / "faults.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = ["| what | found |", "|---|---|", *(f"| {name} | {value} |" for name, value in _rows(figures))]
    lines += ["", "| promise | verdict | put to the test by |", "|---|---|---|"]
    lines += [f"| {c.name} | {'kept' if c.kept else 'BROKEN: ' + '; '.join(c.wrong)} | {c.fact} |" for c in checks]
    (out / "faults.md").write_text("\n".join(lines) + "\n")
