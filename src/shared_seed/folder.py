"""A run's folder: the gradient log, and which stream its peer wrote last."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec

from shared_seed import log
from shared_seed.admission import LABEL_SIZE
from shared_seed.errors import LogError, MessageError
from shared_seed.log import Contents, RunLog
from shared_seed.messages import Stream

LOG_NAME = "gradients.sslog"
"""The gradient log in a run folder."""

REPORT_NAME = "report.html"
"""In a run folder: the page that shows what happened."""

PEER_NAME = "peer.json"
"""In a run folder: which stream this peer wrote last."""

LARGEST_NOTE = 1024
"""Bytes of that file beyond which it is refused."""


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the note says: hex digits, and a number."""

    peer: str
    incarnation: int
    label: str


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


def encode_stream(stream: Stream, label: bytes) -> bytes:
    """The note of a stream and of its peer's label, as JSON."""
    noted = {"peer": stream.peer.hex(), "incarnation": stream.incarnation, "label": label.hex()}
    return json.dumps(noted).encode()


def decode_stream(data: bytes, source: str) -> tuple[Stream, bytes]:
    """The stream and the label that :func:`encode_stream` noted.

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
        return Stream(bytes.fromhex(noted.peer), noted.incarnation), label
    except (ValueError, RecursionError, msgspec.DecodeError, MessageError) as error:
        raise LogError(f"{source} is damaged ({error}); delete it to take part as a new peer") from error


def noted_stream(folder: Path | None) -> tuple[Stream, bytes] | None:
    """The stream that the peer in a folder wrote last, and its label, where there is one.

    Raises:
        LogError: the folder's note is damaged.
    """
    path = folder / PEER_NAME if folder else None
    return decode_stream(path.read_bytes(), str(path)) if path is not None and path.exists() else None


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
            file.write(encode_stream(stream, label))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise LogError(f"cannot write {path}: {error.strerror}; free some space") from error
