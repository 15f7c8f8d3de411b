"""Accuracy against forward passes, seconds and bytes: shared-seed, MeZO and backpropagation on real text.

    python benchmarks/converge.py --list                     # the parts of the lab, and how many runs each has
    python benchmarks/converge.py rate --out docs/convergence
    python benchmarks/converge.py --quick --out /tmp/lab     # a few steps of one part

Runs are written down as they end, and what is written down is not run again: stop it when you like, and go on with
the same command. Tables and curves are drawn from what there is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from common import machine
from convergence import curves
from convergence.course import Ledger
from convergence.plans import PLANS
from convergence.spec import Spec


def quickened(specs: Sequence[Spec]) -> list[Spec]:
    """The same, so short that nothing is learnt."""
    return [replace(spec, passes=24, test_rows=40) for spec in specs[:2]]


def main() -> None:
    """Do what the command line asks for."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("parts", nargs="*", metavar="PART", help="of the lab; all by default")
    words.add_argument("--out", type=Path, default=Path("docs/convergence"))
    words.add_argument("--list", action="store_true", help="say what there is")
    words.add_argument("--draw", action="store_true", help="only tables and curves of what has been run")
    words.add_argument("--quick", action="store_true", help="a few steps of two runs of each part")
    words.add_argument("--threads", type=int, default=1)
    chosen = words.parse_args()
    unknown = sorted(set(chosen.parts) - set(PLANS))
    if unknown:
        words.error(f"no part is called {unknown[0]!r}; expected {', '.join(PLANS)}")
    torch.set_num_threads(chosen.threads)
    print(machine.describe())
    ledger = Ledger(chosen.out / "runs.jsonl")
    for name in chosen.parts or PLANS:
        specs = quickened(PLANS[name]) if chosen.quick else PLANS[name]
        if chosen.list:
            print(f"{name:12} {len(specs):3} runs, {len(ledger.of(specs))} done")
            continue
        if not chosen.draw:
            ledger.complete(specs)
        if results := ledger.of(specs):
            print(curves.table(results))
            curves.draw(chosen.out / f"{name}.png", results)
    if chosen.draw:
        everything = ledger.of(spec for specs in PLANS.values() for spec in specs)
        curves.draw(chosen.out / "all.png", everything)


if __name__ == "__main__":
    main()
