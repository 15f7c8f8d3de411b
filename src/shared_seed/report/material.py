"""What a report is made from: a run's folder, or a bare gradient log, read without loading any model.

Everything but the log may be missing or cut short, and all of it may have been written by somebody else: what is
not as expected is left out and counted, never believed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shared_seed import history, log, metrics, summary
from shared_seed.archive import Archive
from shared_seed.errors import LogError
from shared_seed.folder import LOG_NAME, noted_stream
from shared_seed.log import Contents
from shared_seed.messages import Stream
from shared_seed.summary import Summary

_SUMMARY = TypeAdapter(Summary)

LONGEST_NAME = 60
"""Characters that are shown of a peer's name."""

MOST_PARTS = 1000
"""Folders of local peers that are read."""


@dataclass(frozen=True)
class Line:
    """One step of one peer, as its metrics tell: bytes and seconds since that process began to train.

    ``clock`` is in seconds since 1970, NaN where the metrics do not say; ``stream`` is the writer's.
    """

    round: int
    loss: float
    sent: int
    received: int
    seconds: float
    clock: float
    late: tuple[str, ...]
    stream: Stream | None


@dataclass(frozen=True)
class Evaluation:
    """A test of the model after ``round`` rounds, on ``rows`` held-out rows."""

    round: int
    accuracy: float
    loss: float
    rows: int


@dataclass(frozen=True)
class Part:
    """What one peer left in its folder: a list of steps for each process that it ran, and how many lines are not
    as expected.
    """

    name: str
    processes: list[list[Line]] = field(default_factory=list)
    unreadable: int = 0

    @property
    def lines(self) -> list[Line]:
        """All steps."""
        return [line for process in self.processes for line in process]

    @property
    def sent(self) -> int:
        """Bytes that its sockets had sent at its last step, all processes together."""
        return sum(process[-1].sent for process in self.processes)

    @property
    def received(self) -> int:
        """Bytes that its sockets had received at its last step, all processes together."""
        return sum(process[-1].received for process in self.processes)


@dataclass(frozen=True)
class Material:
    """All that is known of a run; ``parts`` begins with the folder's own peer, ``names`` are what peers call
    themselves.
    """

    path: Path
    contents: Contents
    archive: Archive
    parts: list[Part]
    names: dict[Stream, str]
    summary: Summary | None
    evaluations: list[Evaluation]


def read(path: Path) -> Material:
    """Read a run folder, or a log.

    Raises:
        LogError: the log cannot be read, or does not hold a run that is whole.
    """
    folder = path if path.is_dir() else None
    contents = log.read(path / LOG_NAME if folder else path)
    archive = history.archive_of(contents)
    names: dict[Stream, str] = {}
    if folder is None:
        return Material(path, contents, archive, [], names, None, [])
    parts = [_part(folder, "this peer", names)]
    peers = sorted((folder / "peers").glob("*"), key=lambda each: (len(each.name), each.name))
    parts += [_part(each, f"peers/{each.name}", names) for each in peers[:MOST_PARTS]]
    return Material(path, contents, archive, parts, names, _summary(folder), _evaluations(folder))


def objects(path: Path) -> Iterator[dict[str, Any] | None]:
    """The JSON objects of a file, one a line; ``None`` for a line that is none. A torn last line is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.split("\n")[:-1]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        yield found if isinstance(found, dict) else None


def _part(folder: Path, name: str, names: dict[Stream, str]) -> Part:
    processes: list[list[Line]] = []
    unreadable = 0
    for found in objects(folder / metrics.NAME):
        if found is not None and "seconds" not in found and found.get("loss", 0) is None:
            continue  # A crash took this step's line; what stands there was told from the log.
        line = _line(found) if found is not None else None
        if line is None or found is None:
            unreadable += 1
            continue
        _note_names(found.get("names"), names)
        last = processes[-1][-1] if processes else None
        if last is None or line.seconds < last.seconds or line.stream != last.stream:
            processes.append([])
        processes[-1].append(line)
    own = processes[-1][-1].stream if processes else None
    own = own or _noted(folder)
    if own is not None:
        name = names.get(own, unnamed(own))
    return Part(name, processes, unreadable)


def _noted(folder: Path) -> Stream | None:
    """The stream that the folder's peer wrote last, where it is known."""
    try:
        noted = noted_stream(folder)
    except (LogError, OSError):
        return None
    return noted[0] if noted else None


def unnamed(stream: Stream) -> str:
    """What a peer is called whose name is not known."""
    return f"peer {stream.peer[:4].hex()}"


def _line(found: dict[str, Any]) -> Line | None:
    """A step, or ``None`` where the object is not one; a loss that is not a number is taken as not known."""
    counts = [_count(found.get(key)) for key in ("round", "sent", "received")]
    seconds, loss = number(found.get("seconds")), number(found.get("loss"))
    if None in counts or not seconds >= 0:
        return None
    round_, sent, received = (count or 0 for count in counts)
    late = found.get("late")
    names = tuple(shown(each) for each in late if isinstance(each, str)) if isinstance(late, list) else ()
    clock, stream = number(found.get("clock")), _stream(found.get("stream"))
    return Line(round_, loss, sent, received, seconds, clock, names, stream)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 62 else None


def number(value: object) -> float:
    """A finite number, or NaN."""
    if type(value) is int:
        return float(value) if abs(value) < 1 << 62 else math.nan
    return value if isinstance(value, float) and math.isfinite(value) else math.nan


def _stream(value: object) -> Stream | None:
    try:
        data = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return None
    return Stream.from_bytes(data) if len(data) == 16 else None


def _note_names(told: object, names: dict[Stream, str]) -> None:
    for key, name in told.items() if isinstance(told, dict) else ():
        stream = _stream(key)
        if stream is not None and isinstance(name, str) and name:
            names[stream] = shown(name)


def shown(name: str) -> str:
    """What is shown of a name: no control characters, nothing that turns the text around, not too long."""
    clean = "".join(c if c.isprintable() else "?" for c in name[: LONGEST_NAME + 1])
    return clean if len(clean) <= LONGEST_NAME else clean[:LONGEST_NAME] + "…"


def _summary(folder: Path) -> Summary | None:
    """The run's result, where there is one that has the types it should have; what is new in it is left out."""
    try:
        return _SUMMARY.validate_json((folder / summary.NAME).read_bytes())
    except (OSError, ValidationError):
        return None


def _evaluations(folder: Path) -> list[Evaluation]:
    """The validations while training, by round; of two after the same round the later one."""
    by_round: dict[int, Evaluation] = {}
    for found in objects(folder / metrics.NAME):
        test = _evaluation(found) if found is not None else None
        if test is not None:
            by_round[test.round] = test
    return [by_round[round_] for round_ in sorted(by_round)]


def _evaluation(line: dict[str, Any]) -> Evaluation | None:
    """What a line of metrics says of validation, after its round."""
    round_, found = _count(line.get("round")), line.get("validation")
    if round_ is None or not isinstance(found, dict):
        return None
    rows, accuracy, loss = _count(found.get("rows")), number(found.get("accuracy")), number(found.get("loss"))
    return Evaluation(round_ + 1, accuracy, loss, rows) if rows and 0 <= accuracy <= 1 else None
