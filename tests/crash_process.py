"""Runs a recipe in children that die at one of their accesses to the run folder, and runs it again after each.

Prints a line of JSON for each place to die at. One process that has imported everything forks the others, so that
many deaths take seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from shared_seed import cli
from shared_seed.integrations.transformers import fit
from shared_seed.run import take_part

EVENTS = ("open", "os.rename", "os.mkdir", "os.remove")
LOADED = (fit, take_part)


def run(recipe: str, folder: Path, die_at: int | None) -> None:
    """Run the command; die by SIGKILL before the n-th access to the folder that may change something."""
    seen = 0

    def count(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in EVENTS or not str(args[0]).startswith(str(folder)):
            return
        if event == "open" and not int(str(args[2])) & (os.O_WRONLY | os.O_RDWR):
            return
        if seen == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    sys.addaudithook(count)
    sys.argv = ["shared-seed", "run", recipe, "-o", str(folder), "--progress", "json"]
    try:
        cli.main()
    except SystemExit as end:
        os._exit(int(str(end.code or 0)))
    finally:
        os._exit(0 if die_at is None else 99)


def forked(recipe: str, folder: Path, die_at: int | None) -> int:
    """How a child ended: its exit code, or the signal, negative."""
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        run(recipe, folder, die_at)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(recipe: str, where: Path, places: Sequence[int]) -> None:
    """Die everywhere."""
    for place in places:
        folder = where / str(place)
        died = forked(recipe, folder, place)
        again = forked(recipe, folder, None)
        print(json.dumps({"place": place, "died": died, "again": again}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [int(word) for word in sys.argv[3:]])
