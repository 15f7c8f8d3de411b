"""The processes of a run, as the runner sees them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import shared_seed

BENCHMARKS = Path(__file__).parent.parent
SOURCE = Path(shared_seed.__file__).parent.parent

WARM_UP = 300.0
"""Seconds that importing and compiling may take."""


class FleetError(Exception):
    """The zygote has ended, or does not answer."""


class Fleet:
    """Starts processes by asking the zygote, sends them signals, hears of their ends.

    ``used`` are the seconds of processor time of all that have ended.
    """

    def __init__(self, work: Path) -> None:
        """Start the zygote; returns when it is warm.

        Raises:
            FleetError: it has ended instead; its output is in ``zygote.txt``.
        """
        self.work = work
        self.ends: deque[tuple[int, int]] = deque()
        self.used = 0.0
        self._waiting = b""
        paths = [str(BENCHMARKS), str(SOURCE), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
        }
        with (work / "zygote.txt").open("w") as output:
            self._zygote = subprocess.Popen(
                [sys.executable, "-m", "faulting.zygote"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment,
                start_new_session=True,  # Ctrl-C is the runner's to handle.
            )
        try:
            self._until("ready", WARM_UP)
        except BaseException:
            self.close()
            raise

    def start(self, role: str, who: str, life: int = 0, **order: object) -> int:
        """Fork a child; its process number."""
        fixed = {
            "order": "start",
            "role": role,
            "who": who,
            "life": life,
            "history": str(self.work / "histories" / f"{who}.jsonl"),
            "output": str(self.work / f"{who}.txt"),
            "key": str(self.work / "keys" / who),
        }
        self._tell({"namespace": None, **fixed, **order})
        return int(self._until("started", 30.0)["pid"])

    def signal(self, pid: int, what: signal.Signals) -> None:
        """Send a signal; one that is for a process that has ended goes nowhere."""
        self._tell({"order": "signal", "pid": pid, "signal": int(what)})

    def wait(self, seconds: float) -> None:
        """Sleep until then, or until a process has ended: it is in ``ends`` then, with its exit code."""
        if not self.ends:
            self._hear(max(0.0, seconds))

    def join(self, pid: int, seconds: float = 120.0) -> int:
        """Wait for one process to end; its exit code. The ends of others stay in ``ends``.

        Raises:
            FleetError: it has not ended within so many seconds.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for end in self.ends:
                if end[0] == pid:
                    self.ends.remove(end)
                    return end[1]
            self._hear(0.1)
        raise FleetError(f"process {pid} has not ended within {seconds:g} s")

    def close(self) -> None:
        """End the zygote, which kills all that it has forked; may be called again."""
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.close()
        try:
            self._zygote.wait(10)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()
        self._zygote.stdout.close()

    def _tell(self, order: dict[str, Any]) -> None:
        assert self._zygote.stdin is not None
        try:
            os.write(self._zygote.stdin.fileno(), json.dumps(order).encode() + b"\n")
        except BrokenPipeError as error:
            raise self._gone() from error

    def _until(self, event: str, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for report in self._hear(deadline - time.monotonic()):
                if report["event"] == event:
                    return report
        raise FleetError(f"the zygote has not said {event!r} within {seconds:g} s")

    def _hear(self, seconds: float) -> list[dict[str, Any]]:
        """What the zygote says within so many seconds, and is no end of a process."""
        assert self._zygote.stdout is not None
        if not select.select([self._zygote.stdout], [], [], seconds)[0]:
            return []
        data = os.read(self._zygote.stdout.fileno(), 1 << 16)
        if not data:
            raise self._gone()
        *lines, self._waiting = (self._waiting + data).split(b"\n")
        reports = [json.loads(line) for line in lines]
        ended = [report for report in reports if report["event"] == "ended"]
        self.ends += [(report["pid"], report["code"]) for report in ended]
        self.used += sum(report["used"] for report in ended)
        return [report for report in reports if report["event"] != "ended"]

    def _gone(self) -> FleetError:
        return FleetError(f"the zygote has ended:\n{(self.work / 'zygote.txt').read_text()[-2000:]}")
