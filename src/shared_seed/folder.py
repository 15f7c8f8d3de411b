"""A run's folder: the gradient log, and which stream its peer wrote last."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import msgspec

from shared_seed import log
from shared_seed.admission import LABEL_SIZE
from shared_seed.errors import LogError, MessageError
from shared_seed.log import Contents, RunLog
from shared_seed.messages import Stream
from shared_seed.rate import LEARNT

LOG_NAME = "gradients.sslog"
"""The gradient log in a run folder."""

REPORT_NAME = "report.html"
"""In a run folder: the page that shows what happened."""

PEER_NAME = "peer.json"
"""In a run folder: which stream this peer wrote last."""

LARGEST_NOTE = 4096
"""Bytes of that file beyond which it is refused."""


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the note says: hex digits, and numbers."""

    peer: str
    incarnation: int
    label: str
    learnt: tuple[float, ...] = ()


def logged(folder: Path | None) -> Contents | None:
    """What the log in a folder holds, if there is one.

    Raises:
        LogError: there is one, but it cannot be read.
    """
    path = folder / LOG_NAME if folder else None
    return log.read(path) if path is not None and path.exists() else None


def open_log(folder: Path | None, begun: Contents, contents: Contents | None) -> RunLog | None:
    """The log in a folder: with the contents that :func:`logged` gave, taken up; else one that begins with
    ``begun``.

    Raises:
        LogError: it cannot be written.
    """
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogError(f"cannot make the run folder {folder}: {error.strerror}") from error
    path = folder / LOG_NAME
    return RunLog.create(path, begun) if contents is None else RunLog.resume(path, contents)


def encode_note(stream: Stream, label: bytes, learnt: tuple[float, ...] = ()) -> bytes:
    """The note of a stream, of its peer's label, and of what it has learnt of its learning rate, as JSON."""
    noted = {"peer": stream.peer.hex(), "incarnation": stream.incarnation, "label": label.hex()}
    return json.dumps(noted | ({"learnt": learnt} if learnt else {})).encode()


def decode_note(data: bytes, source: str) -> tuple[Stream, bytes, tuple[float, ...]]:
    """What :func:`encode_note` noted.

    Raises:
        LogError: the note is damaged; names ``source``.
    """
    try:
        if len(data) > LARGEST_NOTE:
            raise ValueError(f"{len(data)} bytes; expected {LARGEST_NOTE} at most")
        noted = msgspec.json.decode(data, type=_Note)
        label = bytes.fromhex(noted.label)
        if len(label) not in (0, LABEL_SIZE):
            raise ValueError(f"a label of {len(label)} bytes; expected {LABEL_SIZE} or none")
        if len(noted.learnt) not in (0, LEARNT) or not all(map(math.isfinite, noted.learnt)):
            raise ValueError(f"{len(noted.learnt)} numbers learnt; expected {LEARNT} finite ones, or none")
        return Stream(bytes.fromhex(noted.peer), noted.incarnation), label, noted.learnt
    except (ValueError, RecursionError, msgspec.DecodeError, MessageError) as error:
        raise LogError(f"{source} is damaged ({error}); delete it to take part as a new peer") from error


def noted_stream(folder: Path | None) -> tuple[Stream, bytes] | None:
    """The stream that the peer in a folder wrote last, and its label, where there is one.

    Raises:
        LogError: the folder's note is damaged.
    """
    path = folder / PEER_NAME if folder else None
    return decode_note(path.read_bytes(), str(path))[:2] if path is not None and path.exists() else None


def note_stream(folder: Path | None, stream: Stream, label: bytes) -> None:
    """Note down, before a stream's first message, that it is taken; survives a power cut.

    Raises:
        LogError: it cannot be written; the earlier note stands.
    """
    if folder is None:
        return
    path = folder / PEER_NAME
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(encode_note(stream, label))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise LogError(f"cannot write {path}: {error.strerror}; free some space") from error
