"""What a process did, written down as it did it: one JSON object a line, each in one write to the file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

Event = dict[str, Any]


class History:
    """The file of one process; whatever was noted before a SIGKILL is there after it."""

    def __init__(self, path: Path, **common: object) -> None:
        """Go on with a file, or begin it; ``common`` is part of every line."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._common = common

    def note(self, event: str, **fields: object) -> None:
        """Write a line; ``at`` are seconds on the machine's monotonic clock, the same for all processes."""
        line = {"event": event, "at": round(time.monotonic(), 4), **self._common, **fields}
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Tails:
    """The histories in a folder as they grow: ``events`` has the lines read so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self._files: dict[Path, BinaryIO] = {}
        self._parts: dict[Path, bytes] = {}
        self._begun: dict[str, int] = {}
        self._round = 0

    def read(self) -> list[Event]:
        """Read what is new; a last line that is not whole waits for the rest. All events so far."""
        for path in sorted(self.folder.glob("*.jsonl")):
            if path not in self._files:
                self._files[path] = path.open("rb")
            *lines, self._parts[path] = (self._parts.get(path, b"") + self._files[path].read()).split(b"\n")
            for line in lines:
                self._note(json.loads(line))
        return self.events

    def begun(self, who: str, life: int) -> bool:
        """Whether a life of a peer has caught up with the run."""
        return self._begun.get(who) == life

    def summary(self) -> str:
        """How far the run is."""
        return f"round {self._round}"

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _note(self, event: Event) -> None:
        self.events.append(event)
        if event["event"] == "rejoined":
            self._begun[event["who"]] = event["life"]
        self._round = max(self._round, event.get("round", 0))


def resident() -> int:
    """Bytes of memory of this process that belong to no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status does not say how much memory is used; the fault runner needs Linux")
