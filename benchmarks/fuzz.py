"""Do hostile bytes break anything? Every parser and the protocol are fed with damaged frames and files.

    python benchmarks/fuzz.py --minutes 1                          # every target, a minute each
    python benchmarks/fuzz.py --minutes 10 --target wire --engine atheris --keep found

What is fed must be refused by an error of this package, or be accepted and mean the same when it is written
and parsed again; a peer must hold what its log says, and nothing may grow beyond its bound, take long or raise
anything else. Inputs that break a promise are written to ``--keep`` and make the program fail.

With ``--engine atheris`` (`pip install shared-seed[fuzz]`) inputs are bred by what code they reach; without it,
valid inputs and those in tests/corpus are damaged at random.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from fuzzing.mutation import mutated
from fuzzing.targets import TARGETS, Target

CORPUS = Path(__file__).parent.parent / "tests" / "corpus"

SLOW = 1.0
"""Seconds of one input beyond which it is a finding."""


@dataclass
class Findings:
    """What fuzzing one target has come to."""

    target: str
    inputs: int = 0
    accepted: int = 0
    slowest: float = 0.0
    broken: dict[str, bytes] = field(default_factory=dict)
    """By what went wrong, the first input that did it."""

    def line(self) -> str:
        """One line for people."""
        return (
            f"{self.target:14} {self.inputs:10,} inputs  {self.accepted:9,} accepted  "
            f"slowest {1000 * self.slowest:6.1f} ms  {len(self.broken)} broken promises"
        )


def seeds_of(name: str) -> list[bytes]:
    """The valid inputs of a target, and what of the corpus goes in the same way."""
    kept = {
        "wire": ("frames",),
        "catchup": ("frames",),
        "messages": ("frames",),
        "log": ("logs",),
        "snapshot": ("logs",),
        "manifest": ("manifests",),
        "invite": ("invites",),
        "peer": ("peers",),
    }
    paths = [path for kind in kept.get(name, ()) for path in sorted((CORPUS / kind).glob("*.bin"))]
    before = b"\x00" if name == "catchup" else b""
    small = [before + path.read_bytes() for path in paths if path.stat().st_size <= TARGETS[name].largest]
    return TARGETS[name].seeds() + small


def feed(target: Target, data: bytes, found: Findings) -> None:
    """Feed one input and note what happens."""
    begun = time.perf_counter()
    try:
        found.accepted += target.takes(data)
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
        found.broken.setdefault(f"{type(error).__name__} at {where}", data)
    took = time.perf_counter() - begun
    found.inputs += 1
    found.slowest = max(found.slowest, took)
    if took > SLOW:
        found.broken.setdefault("slow", data)


def measure(name: str, seconds: float, seed: int = 1) -> Findings:
    """Fuzz one target by damage at random for a time; the inputs follow from the seed alone."""
    target, chance, found = TARGETS[name], random.Random(seed), Findings(name)
    seeds = seeds_of(name)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        feed(target, mutated(chance, seeds, target.largest), found)
    return found


def keep(found: Findings, folder: Path) -> None:
    """Write down the inputs that broke promises."""
    folder.mkdir(parents=True, exist_ok=True)
    for why, data in found.broken.items():
        path = folder / f"{found.target}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
        path.write_bytes(data)
        print(f"  {path}: {why}")


def breed(name: str, seconds: float, folder: Path) -> int:
    """Fuzz one target with atheris, in a process of its own; its exit code."""
    words = [sys.executable, str(Path(__file__).parent / "fuzzing" / "bred.py"), name, str(folder)]
    corpus = folder / f"corpus-{name}"
    corpus.mkdir(parents=True, exist_ok=True)
    for data in seeds_of(name):
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    limits = [f"-max_total_time={max(1, round(seconds))}", f"-max_len={TARGETS[name].largest}", "-timeout=5"]
    limits += [f"-artifact_prefix={folder}/{name}-", "-print_final_stats=1", "-rss_limit_mb=4096"]
    return subprocess.run([*words, *limits, str(corpus)], check=False).returncode


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--target", choices=sorted(TARGETS), action="append", help="by default all")
    words.add_argument("--minutes", type=float, default=1.0, help="for each target")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--engine", choices=("random", "atheris"), default="random")
    words.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="where inputs are written")
    return words


def main() -> int:
    """Do what the command line asks for; 1 if a promise was broken."""
    words = parser().parse_args()
    failed = False
    for name in words.target or TARGETS:
        if words.engine == "atheris":
            failed |= breed(name, 60 * words.minutes, words.keep) != 0
            continue
        found = measure(name, 60 * words.minutes, words.seed)
        print(found.line(), flush=True)
        if found.broken:
            keep(found, words.keep)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
