"""Processes that are measured from outside: what they have used, and what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from shared_seed import identity
from shared_seed.identity import Key

_TICKS = os.sysconf("SC_CLK_TCK")
BENCHMARKS = Path(__file__).parents[1]


class Measured:
    """A Python process; ends with the ``with`` block."""

    def __init__(self, words: list[str], key: Key, folder: Path, source: Path | None = None) -> None:
        """Start it.

        Args:
            words: for the interpreter.
            key: the process's.
            folder: where its key, and what it prints, go.
            source: of ``shared_seed``; by default that of this process.
        """
        folder.mkdir(parents=True, exist_ok=True)
        key_file = folder / "key"
        key_file.touch(mode=0o600)
        key_file.write_text(key.seed.hex() + "\n")
        paths = [str(source)] if source else []
        paths += [os.path.abspath(path) for path in sys.path]
        environment = {**os.environ, identity.VARIABLE: str(key_file), "PYTHONPATH": os.pathsep.join(paths)}
        self._printed = folder / "printed"
        with self._printed.open("w") as out:
            command = [sys.executable, *words]
            self._process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it without a warning."""
        self._process.kill()
        self._process.wait()

    def wait(self, seconds: float) -> None:
        """Until it ends."""
        self._process.wait(seconds)

    def lines(self) -> list[str]:
        """What it has printed so far; whole lines."""
        return self._printed.read_text().split("\n")[:-1]

    def word(self, beginning: str, seconds: float = 120) -> str:
        """The rest of the first line that begins so.

        Raises:
            RuntimeError: it ends without, or does not say so in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            over = self._process.poll() is not None
            for line in self.lines():
                if line.startswith(beginning):
                    return line[len(beginning) :].strip()
            if over:
                break
            time.sleep(0.02)
        raise RuntimeError(f"no {beginning!r} within {seconds} s from a process that printed {self.lines()}")

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The JSON objects of one kind that it has printed so far."""
        found = [json.loads(line) for line in self.lines() if line.startswith("{")]
        return [event for event in found if event["event"] == kind]

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far, of all threads, in user and system mode."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    @property
    def resident(self) -> int:
        """Bytes of memory now."""
        return self._status("VmRSS")

    @property
    def most_resident(self) -> int:
        """The most bytes of memory so far."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def relay(folder: Path, key: Key, *options: str, source: Path | None = None) -> Measured:
    """A relay of the run in a folder; it says its ``address`` once it listens."""
    words = ["-m", "shared_seed", "relay", "--listen", "tcp://127.0.0.1:0", "--status", "0", "-o", str(folder)]
    return Measured([*words, *options], key, folder, source)
