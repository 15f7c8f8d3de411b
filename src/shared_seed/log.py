"""The message set on disk: append-only, checksummed, recovered after a torn tail.

``docs/format.md`` gives the bytes. A log holds everything but the base model, so base model + log give the
weights again, bit for bit.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from io import FileIO
from pathlib import Path

from shared_seed.admission import INTRODUCTION_KIND, Introduction
from shared_seed.errors import LogDamagedError, LogError, ManifestMismatchError, MessageError
from shared_seed.identity import SIGNATURE_SIZE
from shared_seed.manifest import Manifest
from shared_seed.messages import Message
from shared_seed.proofs import FORK_KIND, LARGEST_PROOF, ORDER_KIND, Fork, Order
from shared_seed.signed import Records, Signed, Statement

MAGIC = b"SSEEDLOG"
VERSION = 2
DIGEST_KIND = 0x02
"""First byte of a record that states the digest of the weights after a number of messages."""

_HEAD = struct.Struct("<8sHHI")
_LENGTH = struct.Struct("<H")
_CHECK = struct.Struct("<I")
_DIGEST = struct.Struct("<BI32s")
_LARGEST_RECORD = _LENGTH.size + LARGEST_PROOF + _CHECK.size


@dataclass(frozen=True)
class Contents:
    """What a log holds: the manifest and its owner's signature, messages in order of arrival, statements, and how
    many of its bytes are whole.

    ``digest`` is the last statement that the log makes of its weights: after how many messages, and the
    SHA-256 of all trainable parameters then.
    """

    manifest: Manifest
    signed: list[Signed] | Records = field(default_factory=Records)
    digest: tuple[int, bytes] | None = None
    size: int = 0
    torn: int = 0
    signature: bytes = b""
    statements: list[Statement] = field(default_factory=list)

    @cached_property
    def messages(self) -> list[Message]:
        """The messages, those that count and those that do not."""
        return [signed.message for signed in self.signed]

    @property
    def finished(self) -> bool:
        """Whether the log ends with the digest of a finished run."""
        return not self.torn and self.digest is not None and self.digest[0] == len(self.signed)


def _header(manifest: Manifest, signature: bytes) -> bytes:
    packed = manifest.pack()
    head = _HEAD.pack(MAGIC, VERSION, 0, len(packed)) + packed + signature.ljust(SIGNATURE_SIZE, b"\0")
    return head + _CHECK.pack(zlib.crc32(head))


def _record(payload: bytes) -> bytes:
    body = _LENGTH.pack(len(payload)) + payload
    return body + _CHECK.pack(zlib.crc32(body))


def _payload(data: bytes, offset: int) -> bytes | None:
    """The payload of the record at an offset, or ``None`` where no whole, undamaged record stands."""
    if offset + _LENGTH.size > len(data):
        return None
    (length,) = _LENGTH.unpack_from(data, offset)
    end = offset + _LENGTH.size + length
    if not 1 <= length <= LARGEST_PROOF or end + _CHECK.size > len(data):
        return None
    (check,) = _CHECK.unpack_from(data, end)
    if zlib.crc32(data[offset:end]) != check:
        return None
    return data[offset + _LENGTH.size : end]


def _size(data: bytes, offset: int) -> int:
    """Bytes of the whole, undamaged record at an offset; 0 where there is none."""
    payload = _payload(data, offset)
    return 0 if payload is None else _LENGTH.size + len(payload) + _CHECK.size


def _is_torn_tail(data: bytes, offset: int) -> bool:
    """Whether what follows ``offset`` can be one unfinished append, zeros behind it or not.

    It can if it is no longer than a record, and no whole record comes after it. A whole record inside it counts
    as after it if it leads to the end of the file, or if the damaged record would have ended before it.
    """
    end = offset + len(data[offset : offset + _LARGEST_RECORD + 1].rstrip(b"\0"))
    if end - offset > _LARGEST_RECORD or data.count(0, end) != len(data) - end:
        return False
    unfinished = end - offset < _LENGTH.size
    if not unfinished:
        (length,) = _LENGTH.unpack_from(data, offset)
        unfinished = offset + _LENGTH.size + length + _CHECK.size > end
    ends: dict[int, int] = {}  # where the records that follow each other from an offset end
    for later in range(end - 1, offset, -1):
        size = _size(data, later)
        if size:
            last = ends[later] = ends.get(later + size, later + size)
            if last >= end or not unfinished:
                return False
    return True


def _read_header(data: bytes, path: Path | str) -> tuple[Manifest, bytes, int]:
    if len(data) < _HEAD.size or data[:8] != MAGIC:
        raise LogError(f"{path} is not a gradient log: it does not begin with {MAGIC.decode()}")
    _, version, flags, length = _HEAD.unpack_from(data)
    if version != VERSION or flags != 0:
        raise LogError(
            f"{path} is a gradient log of version {version}, flags {flags}; this release reads version "
            f"{VERSION}, flags 0; install the release that wrote it"
        )
    text = _HEAD.size + length
    end = text + SIGNATURE_SIZE
    if end + _CHECK.size > len(data):
        raise LogError(
            f"{path} is cut off inside its header ({len(data)} bytes of {end + _CHECK.size}); "
            "nothing can be recovered from it; fetch it again"
        )
    if zlib.crc32(data[:end]) != _CHECK.unpack_from(data, end)[0]:
        raise LogDamagedError(f"{path} is damaged in its header (bytes 0 to {end}); fetch it again")
    try:
        manifest = Manifest.unpack(data[_HEAD.size : text])
        signature = data[text:end] if manifest.owner else b""
        manifest.check_signature(signature)
        return manifest, signature, end + _CHECK.size
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
    payloads = [statement.encode() for statement in contents.statements]
    payloads += Records.of(contents.signed).payloads
    if contents.digest is not None:
        payloads.append(_DIGEST.pack(DIGEST_KIND, *contents.digest))
    return _header(contents.manifest, contents.signature) + b"".join(map(_record, payloads))


def _decode(payload: bytes) -> Signed | Statement | tuple[int, bytes]:
    kind = payload[0]
    if kind == DIGEST_KIND and len(payload) == _DIGEST.size:
        _, count, value = _DIGEST.unpack(payload)
        return count, value
    if kind == INTRODUCTION_KIND:
        return Introduction.decode(payload)
    if kind == ORDER_KIND:
        return Order.decode(payload)
    if kind == FORK_KIND:
        return Fork.decode(payload)
    return Signed.decode(payload)


def parse(data: bytes, path: Path | str) -> Contents:
    """The contents of a log's bytes; ``path`` is what errors call it, which are those of :func:`read`."""
    manifest, signature, offset = _read_header(data, path)
    said: list[bytes] = []
    statements: list[Statement] = []
    digest: tuple[int, bytes] | None = None
    forked: set[bytes] = set()
    proven, kept = offset, 0
    while offset < len(data):
        payload = _payload(data, offset)
        if payload is None:
            if _is_torn_tail(data, offset):
                break
            raise LogDamagedError(
                f"{path} is damaged at byte {offset} of {len(data)}, with more records after it; "
                f"{len(said)} messages before it are whole; fetch the log again from another peer"
            )
        try:
            record = _decode(payload)
        except MessageError as error:
            raise LogDamagedError(f"{path} holds an invalid record at byte {offset}: {error}") from error
        if isinstance(record, Signed):
            said.append(payload)
        elif isinstance(record, tuple):
            digest = record
        else:
            statements.append(record)
            digest = None  # It was stated without knowledge of this.
            if isinstance(record, Fork):
                forked.add(record.stream)
        offset += _LENGTH.size + len(payload) + _CHECK.size
        if not manifest.owner or not _wants_proof(record, forked):
            proven, kept = offset, len(said)
    # The signature that proves the last messages may be what a crash has torn off.
    del said[kept:]
    return Contents(manifest, Records(said), digest, proven, len(data) - proven, signature, statements)


def _wants_proof(record: Signed | tuple[int, bytes] | Statement, forked: Collection[bytes]) -> bool:
    """Whether a record is a message that the signature of a later one has to prove, and no fork does."""
    if not isinstance(record, Signed) or record.signature:
        return False
    return not forked or record.message.stream.to_bytes() not in forked


class RunLog:
    """A log open for appending."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file

    @classmethod
    def create(cls, path: Path, contents: Contents) -> RunLog:
        """Begin a log; what it begins with appears whole or not at all.

        Raises:
            LogError: the file is there already, or cannot be written.
        """
        if path.exists():
            raise LogError(f"{path} is there already; resume it, or choose another run folder")
        return cls(path, _replace(path, encode(contents)))

    @classmethod
    def resume(cls, path: Path, contents: Contents) -> RunLog:
        """Go on with a log that :func:`read` has read; its torn tail is cut off.

        Raises:
            LogError: it cannot be written.
        """
        try:
            file = _open(path)
            file.truncate(contents.size)
            file.seek(contents.size)
        except OSError as error:
            raise LogError(f"cannot write the gradient log {path}: {error.strerror}") from error
        return cls(path, file)

    def append(self, statements: Iterable[Statement], signed: Iterable[Signed]) -> None:
        """Write what is new; it is the operating system's to keep when this returns.

        Raises:
            LogError: there is no room; what was written of it is taken back.
        """
        payloads = [*(s.encode() for s in statements), *(s.encode() for s in signed)]
        data = memoryview(b"".join(map(_record, payloads)))
        whole = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            self._file.truncate(whole)
            self._file.seek(whole)
            raise LogError(
                f"cannot append to {self.path}: {error.strerror}; free some space and go on with the same "
                "command; what the log holds is whole"
            ) from error

    def replace(self, contents: Contents) -> None:
        """Put other contents in place of all that is there; whole or not at all.

        Raises:
            LogError: they cannot be written; the log is as it was.
        """
        file = _replace(self.path, encode(contents))
        self._file.close()
        self._file = file

    def close(self) -> None:
        """Flush to the disk and close.

        Raises:
            LogError: the disk has not taken all of it; the log is closed all the same.
        """
        if self._file.closed:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise LogError(f"cannot write the gradient log {self.path}: {error.strerror}") from error
        finally:
            self._file.close()


def _replace(path: Path, data: bytes) -> FileIO:
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return _open(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LogError(f"cannot write the gradient log {path}: {error.strerror}; free some space") from error


def _open(path: Path) -> FileIO:
    """Unbuffered, so that a write that fails leaves nothing behind to be written later."""
    file = FileIO(path, "r+")
    file.seek(0, os.SEEK_END)
    return file
