"""A run's folder: the gradient log, and which stream its peer wrote last."""

from __future__ import annotations

import json
import os
from pathlib import Path

from shared_seed import log
from shared_seed.errors import LogError, MessageError
from shared_seed.log import Contents, RunLog
from shared_seed.manifest import Manifest
from shared_seed.messages import Stream

LOG_NAME = "gradients.sslog"
"""The gradient log in a run folder."""

PEER_NAME = "peer.json"
"""In a run folder: which stream this peer wrote last."""


def logged(folder: Path | None) -> Contents | None:
    """What the log in a folder holds, if there is one.

    Raises:
        LogError: there is one, but it cannot be read.
    """
    path = folder / LOG_NAME if folder else None
    return log.read(path) if path is not None and path.exists() else None


def open_log(folder: Path | None, manifest: Manifest, contents: Contents | None) -> RunLog | None:
    """The log in a folder, begun or, with the contents that :func:`logged` gave, taken up.

    Raises:
        LogError: it cannot be written.
    """
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOG_NAME
    return RunLog.create(path, manifest) if contents is None else RunLog.resume(path, contents)


def encode_stream(stream: Stream) -> bytes:
    """The note of a stream, as JSON."""
    return json.dumps({"peer": stream.peer.hex(), "incarnation": stream.incarnation}).encode()


def decode_stream(data: bytes, source: str) -> Stream:
    """The stream that :func:`encode_stream` noted.

    Raises:
        LogError: the note is damaged; names ``source``.
    """
    try:
        noted = json.loads(data)
        return Stream(bytes.fromhex(noted["peer"]), int(noted["incarnation"]))
    except (ValueError, KeyError, TypeError, MessageError) as error:
        raise LogError(f"{source} is damaged ({error}); delete it to take part as a new peer") from error


def next_stream(folder: Path | None, name: bytes | None) -> Stream:
    """The stream of this process: the next incarnation of the peer that the folder knows, or a new peer.

    Args:
        folder: of the run, or None.
        name: 12 bytes for a new peer; random ones if None.

    Raises:
        LogError: the folder's note is damaged.
    """
    path = folder / PEER_NAME if folder else None
    if path is not None and path.exists():
        return decode_stream(path.read_bytes(), str(path)).restarted()
    return Stream(name) if name is not None else Stream.fresh()


def note_stream(folder: Path | None, stream: Stream) -> None:
    """Note down, before a stream's first message, that it is taken; survives a power cut."""
    if folder is None:
        return
    path = folder / PEER_NAME
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(encode_stream(stream))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
