"""The command line that all speed benchmarks share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import machine, target
from common.target import Target
from common.workloads import MODELS, PRECISIONS


@dataclass(frozen=True)
class Options:
    """What to measure on; ``quick`` makes everything short and rough."""

    models: tuple[str, ...] = MODELS
    precisions: tuple[str, ...] = PRECISIONS
    device: str = "cpu"
    quick: bool = False


def parser(doc: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    out = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--model", nargs="+", default=Options.models, help="names in common/workloads.py, or folders")
    out.add_argument("--dtype", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    out.add_argument("--device", default="cpu", help="cpu or cuda")
    out.add_argument("--quick", action="store_true", help="first model only, few repetitions")
    return out


def of(words: argparse.Namespace) -> Options:
    """The options that a command line gave."""
    models = tuple(words.model)[:1] if words.quick else tuple(words.model)
    return Options(models, tuple(words.dtype), words.device, words.quick)


def write(path: Path, content: dict[str, Any], device: str) -> None:
    """Write results as JSON, with the machine that they are from."""
    path.write_text(json.dumps({"machine": machine.describe(device), **content}, indent=1) + "\n")


def main(
    doc: str,
    measure: Callable[..., Sequence[Any]],
    judge: Callable[[Sequence[Any]], list[Target]],
) -> None:
    """Run one benchmark from the command line: results as they come, targets after them.

    Args:
        doc: shown by ``--help``.
        measure: takes :class:`Options`, prints as it goes, returns dataclasses.
        judge: makes targets of them.
    """
    wanted = parser(doc)
    wanted.add_argument("--json", type=Path, help="write the results here")
    words = wanted.parse_args()
    rows = measure(of(words))
    print(target.table(judge(rows)))
    if words.json:
        write(words.json, {"rows": [asdict(row) for row in rows]}, words.device)
