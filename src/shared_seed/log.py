"""The message set on disk: append-only, checksummed, recovered after a torn tail.

``docs/format.md`` gives the bytes. A log holds everything but the base model, so base model + log give the
weights again, bit for bit.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from shared_seed.errors import LogDamagedError, LogError, ManifestMismatchError, MessageError
from shared_seed.manifest import Manifest
from shared_seed.messages import LARGEST, Message

MAGIC = b"SSEEDLOG"
VERSION = 1
DIGEST_KIND = 0x02
"""First byte of a record that states the digest of the weights after a number of messages."""

_HEAD = struct.Struct("<8sHHI")
_LENGTH = struct.Struct("<H")
_CHECK = struct.Struct("<I")
_DIGEST = struct.Struct("<BI32s")
_LARGEST_RECORD = _LENGTH.size + LARGEST + _CHECK.size


@dataclass(frozen=True)
class Contents:
    """What a log holds: the manifest, its messages in order of arrival, and how many of its bytes are whole.

    ``digest`` is the last statement that the log makes of its weights: after how many messages, and the
    SHA-256 of all trainable parameters then.
    """

    manifest: Manifest
    messages: list[Message] = field(default_factory=list)
    digest: tuple[int, bytes] | None = None
    size: int = 0
    torn: int = 0

    @property
    def finished(self) -> bool:
        """Whether the log ends with the digest of a finished run."""
        return not self.torn and self.digest is not None and self.digest[0] == len(self.messages)


def _header(manifest: Manifest) -> bytes:
    packed = manifest.pack()
    head = _HEAD.pack(MAGIC, VERSION, 0, len(packed)) + packed
    return head + _CHECK.pack(zlib.crc32(head))


def _record(payload: bytes) -> bytes:
    body = _LENGTH.pack(len(payload)) + payload
    return body + _CHECK.pack(zlib.crc32(body))


def _digest_record(count: int, digest: bytes) -> bytes:
    return _record(_DIGEST.pack(DIGEST_KIND, count, digest))


def _payload(data: bytes, offset: int) -> bytes | None:
    """The payload of the record at an offset, or ``None`` where no whole, undamaged record stands."""
    if offset + _LENGTH.size > len(data):
        return None
    (length,) = _LENGTH.unpack_from(data, offset)
    end = offset + _LENGTH.size + length
    if not 1 <= length <= LARGEST or end + _CHECK.size > len(data):
        return None
    (check,) = _CHECK.unpack_from(data, end)
    if zlib.crc32(data[offset:end]) != check:
        return None
    return data[offset + _LENGTH.size : end]


def _end_of_records(data: bytes, offset: int) -> int:
    """Where the whole records that follow each other from an offset end."""
    while (payload := _payload(data, offset)) is not None:
        offset += _LENGTH.size + len(payload) + _CHECK.size
    return offset


def _is_torn_tail(data: bytes, offset: int) -> bool:
    """Whether what follows ``offset`` can be one unfinished append, zeros behind it or not.

    It can if it is no longer than a record, and no whole record comes after it. A whole record inside it counts
    as after it if it leads to the end of the file, or if the damaged record would have ended before it.
    """
    end = len(data.rstrip(b"\0"))
    if end - offset > _LARGEST_RECORD:
        return False
    unfinished = end - offset < _LENGTH.size
    if not unfinished:
        (length,) = _LENGTH.unpack_from(data, offset)
        unfinished = offset + _LENGTH.size + length + _CHECK.size > end
    ends = ((later, _end_of_records(data, later)) for later in range(offset + 1, len(data)))
    return not any(last > later and (last >= end or not unfinished) for later, last in ends)


def _read_header(data: bytes, path: Path | str) -> tuple[Manifest, int]:
    if len(data) < _HEAD.size or data[:8] != MAGIC:
        raise LogError(f"{path} is not a gradient log: it does not begin with {MAGIC.decode()}")
    _, version, flags, length = _HEAD.unpack_from(data)
    if version != VERSION or flags != 0:
        raise LogError(
            f"{path} is a gradient log of version {version}, flags {flags}; this release reads version "
            f"{VERSION}, flags 0; install the release that wrote it"
        )
    end = _HEAD.size + length
    if end + _CHECK.size > len(data):
        raise LogError(
            f"{path} is cut off inside its header ({len(data)} bytes of {end + _CHECK.size}); "
            "nothing can be recovered from it; fetch it again"
        )
    if zlib.crc32(data[:end]) != _CHECK.unpack_from(data, end)[0]:
        raise LogDamagedError(f"{path} is damaged in its header (bytes 0 to {end}); fetch it again")
    try:
        return Manifest.unpack(data[_HEAD.size : end]), end + _CHECK.size
    except ManifestMismatchError as error:
        raise LogError(f"{path} has no valid manifest in its header: {error}") from error


def read(path: Path) -> Contents:
    """Read a log; a torn last record is left out and counted in ``torn``.

    Raises:
        LogError: not a log, of another version, or cut off inside its header.
        LogDamagedError: damage before the last record, with its offset.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LogError(f"cannot read the gradient log {path}: {error.strerror}") from error
    return parse(data, path)


def encode(contents: Contents) -> bytes:
    """The bytes of a log that holds these contents."""
    records = [_record(message.encode()) for message in contents.messages]
    if contents.digest is not None:
        records.append(_digest_record(*contents.digest))
    return _header(contents.manifest) + b"".join(records)


def parse(data: bytes, path: Path | str) -> Contents:
    """The contents of a log's bytes; ``path`` is what errors call it, which are those of :func:`read`."""
    manifest, offset = _read_header(data, path)
    messages: list[Message] = []
    digest: tuple[int, bytes] | None = None
    while offset < len(data):
        payload = _payload(data, offset)
        if payload is None:
            if _is_torn_tail(data, offset):
                break
            raise LogDamagedError(
                f"{path} is damaged at byte {offset} of {len(data)}, with more records after it; "
                f"{len(messages)} messages before it are whole; fetch the log again from another peer"
            )
        try:
            if payload[0] == DIGEST_KIND and len(payload) == _DIGEST.size:
                _, count, value = _DIGEST.unpack(payload)
                digest = (count, value)
            else:
                messages.append(Message.decode(payload))
        except MessageError as error:
            raise LogDamagedError(f"{path} holds an invalid record at byte {offset}: {error}") from error
        offset += _LENGTH.size + len(payload) + _CHECK.size
    return Contents(manifest, messages, digest, offset, len(data) - offset)


class RunLog:
    """A log open for appending."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file

    @classmethod
    def create(cls, path: Path, manifest: Manifest) -> RunLog:
        """Begin a log; the header appears whole or not at all.

        Raises:
            LogError: the file is there already, or cannot be written.
        """
        if path.exists():
            raise LogError(f"{path} is there already; resume it, or choose another run folder")
        temporary = path.with_name(path.name + ".new")
        try:
            with temporary.open("wb") as file:
                file.write(_header(manifest))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            return cls(path, path.open("ab"))
        except OSError as error:
            raise LogError(f"cannot write the gradient log {path}: {error.strerror}") from error

    @classmethod
    def resume(cls, path: Path, contents: Contents) -> RunLog:
        """Go on with a log that :func:`read` has read; its torn tail is cut off."""
        file = path.open("r+b")
        file.truncate(contents.size)
        file.seek(0, os.SEEK_END)
        return cls(path, file)

    def append(self, messages: Iterable[Message]) -> None:
        """Write messages; they are the operating system's to keep when this returns."""
        self._write(b"".join(_record(message.encode()) for message in messages))

    def append_digest(self, count: int, digest: bytes) -> None:
        """State the SHA-256 of the weights after the first ``count`` messages of the log."""
        self._write(_digest_record(count, digest))

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise LogError(f"cannot append to {self.path}: {error.strerror}; free some space") from error

    def close(self) -> None:
        """Flush to the disk and close."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
