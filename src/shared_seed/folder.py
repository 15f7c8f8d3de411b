"""A run's folder: the gradient log, and which stream its peer wrote last."""

from __future__ import annotations

import json
import os
from pathlib import Path

from shared_seed import log
from shared_seed.errors import LogError
from shared_seed.log import RunLog
from shared_seed.manifest import Manifest
from shared_seed.messages import Message, Stream

LOG_NAME = "gradients.sslog"
"""The gradient log in a run folder."""

PEER_NAME = "peer.json"
"""In a run folder: which stream this peer wrote last."""


def logged_terms(folder: Path | None) -> Manifest | None:
    """The manifest of the log in a folder, if there is one.

    Raises:
        LogError: there is one, but it cannot be read.
    """
    path = folder / LOG_NAME if folder else None
    return log.read(path).manifest if path is not None and path.exists() else None


def open_log(folder: Path | None, manifest: Manifest) -> tuple[RunLog | None, list[Message]]:
    """The log in a folder, begun or taken up, and the messages in it.

    Raises:
        LogError: it cannot be written or read.
    """
    if folder is None:
        return None, []
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOG_NAME
    if not path.exists():
        return RunLog.create(path, manifest), []
    contents = log.read(path)
    return RunLog.resume(path, contents), contents.messages


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
        try:
            before = json.loads(path.read_text())
            return Stream(bytes.fromhex(before["peer"]), int(before["incarnation"])).restarted()
        except (ValueError, KeyError, TypeError) as error:
            raise LogError(f"{path} is damaged ({error}); delete it to take part as a new peer") from error
    return Stream(name) if name is not None else Stream.fresh()


def note_stream(folder: Path | None, stream: Stream) -> None:
    """Note down, before a stream's first message, that it is taken; survives a power cut."""
    if folder is None:
        return
    path = folder / PEER_NAME
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w") as file:
        json.dump({"peer": stream.peer.hex(), "incarnation": stream.incarnation}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
