"""Does a swarm survive everything? Real processes with real sockets, killed, stopped, parted and lied to.

    python benchmarks/faults.py --minutes 2                                        # 8 peers, 2 relays
    python benchmarks/faults.py --minutes 60 --peers 32 --kills-at-least 2000 --out docs/faults

Peers train a tiny model over relays. All the while, every 0.1 to 0.5 seconds, one thing goes wrong: SIGKILL, with
the log's tail torn off, the folder lost or the disk full before the peer comes back; SIGSTOP; relays die; groups
of peers are cut off from relays for up to a minute; connections are reset, slow, lossy, corrupt; a hostile member
publishes duplicates, damaged, oversized and forged frames. What happens when is a function of the seed alone.
Every process writes a history. In the end faults stop, all peers finish, and the histories are judged: the same
weights in all replicas and in a fresh replay of every log, no message lost, altered or forged, no unclear error,
no growing memory. The program fails if any promise was broken. Linux only; as root, peers get network namespaces
and full disks of their own, elsewhere a proxy and file size limits stand in for them.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from faulting import report
from faulting.fleet import FleetError
from faulting.network import CannotError
from faulting.runner import Options, Runner
from faulting.schedule import Plan


def measure(options: Options, out: Path | None = None) -> bool:
    """Run it, print what was found, write it to ``out``; whether all promises were kept.

    If not, histories, logs and what processes printed are left for a look at what went wrong.
    """
    console = Console(soft_wrap=True)
    work = Path(tempfile.mkdtemp(prefix="faults-"))
    kept = False
    try:
        found = Runner(options, work, lambda line: console.print(line, highlight=False)).run()
        checks, figures = report.results(found)
        report.show(checks, figures, console)
        if out is not None:
            report.write(checks, figures, out)
        kept = all(check.kept for check in checks)
    except KeyboardInterrupt:
        kept = True
        raise
    finally:
        if kept:
            shutil.rmtree(work)
        else:
            console.print(f"what is left of the run is in {work}")
    return kept


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--minutes", type=float, default=2.0)
    words.add_argument("--peers", type=int, default=8)
    words.add_argument("--relays", type=int, default=2)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--kills-at-least", type=int, default=0, help="SIGKILLs of peers; fewer are a failure")
    words.add_argument("--net", choices=("auto", "namespaces", "proxy"), default="auto")
    words.add_argument("--lockstep", action=argparse.BooleanOptionalAction, default=True)
    words.add_argument("--pause", type=float, help="seconds between a peer's steps; by default peers / 16")
    words.add_argument("--out", type=Path, help="write faults.json and faults.md here")
    return words


def main() -> int:
    """Do what the command line asks for; 1 if a promise was broken, 2 if the run could not be made."""
    words = parser().parse_args()
    for ending in (signal.SIGINT, signal.SIGTERM):  # Also where a shell has them ignored in the background.
        signal.signal(ending, signal.default_int_handler)
    try:
        plan = Plan(60 * words.minutes, words.peers, words.relays, words.seed, words.kills_at_least)
        pause = words.peers / 16 if words.pause is None else words.pause
        options = Options(plan, words.net, words.lockstep, pause)
        return 0 if measure(options, words.out) else 1
    except (CannotError, FleetError, ValueError) as error:
        print(f"faults.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; no process is left", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
