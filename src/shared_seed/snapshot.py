"""Where a session stands, to go on from with the same bits: what a Trainer's checkpoint keeps of a run.

A checkpoint holds the weights already; beside them it needs the messages of the run and the stream that wrote
some of them. Both are kept as in a run folder: a gradient log, and a note of the stream. Of bfloat16
parameters it needs the low bits too.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shared_seed import folder, log
from shared_seed.errors import LogError
from shared_seed.log import Contents
from shared_seed.messages import Message, Stream

LOW_NAME = "low_bits.npz"
"""In a checkpoint: what bfloat16 parameters do not hold of their values, an int16 array for each."""


@dataclass(frozen=True)
class Snapshot:
    """A run as one peer has it after a step: all that it has heard, the digest of the weights, and this peer's
    stream and label; also the low bits of bfloat16 parameters as the weights have them, which are no copies, and
    what the peer has learnt of its learning rate.

    The weights contain the first messages of the contents, as many as the digest is of.
    """

    contents: Contents
    stream: Stream
    label: bytes = b""
    low: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    learnt: tuple[float, ...] = ()

    @property
    def contained(self) -> list[Message]:
        """The messages of which the weights contain those that count."""
        assert self.contents.digest is not None
        return self.contents.messages[: self.contents.digest[0]]

    @property
    def round(self) -> int:
        """The round that comes next."""
        return max((message.round + 1 for message in self.contained), default=0)

    @property
    def number(self) -> int:
        """The number that the stream's next message has."""
        return sum(message.stream == self.stream for message in self.contained)

    def of_peer(self, name: bytes | None, label: bytes = b"") -> Snapshot:
        """The same run as another peer has it, which goes on in the last of its streams and has learnt nothing.

        Args:
            name: the peer's 12 bytes; None for a new peer.
            label: the peer's, where it has one.
        """
        streams = [m.stream for m in self.contained if m.stream.peer == name]
        new = Stream.fresh() if name is None else Stream(name)
        return replace(self, stream=max(streams, default=new), label=label, learnt=())

    def noted(self, note: bytes, source: str) -> Snapshot:
        """The same run as the peer has it whose note this is.

        Raises:
            LogError: the note is damaged; names ``source``.
        """
        stream, label, learnt = folder.decode_note(note, source)
        return replace(self, stream=stream, label=label, learnt=learnt)

    def pack(self) -> tuple[bytes, bytes]:
        """The bytes of the gradient log and of the stream's note; the low bits are large and go apart."""
        return log.encode(self.contents), folder.encode_note(self.stream, self.label, self.learnt)

    @classmethod
    def unpack(cls, logged: bytes, note: bytes, source: str, low: Mapping[str, Tensor] | None = None) -> Snapshot:
        """What :meth:`pack` has packed, with the low bits.

        Raises:
            LogError: the bytes are not whole; names ``source``.
        """
        contents = log.parse(logged, source)
        if contents.torn or contents.digest is None:
            raise LogError(
                f"the gradient log in {source} does not end with the digest of its weights; it is cut off"
            )
        if contents.digest[0] > len(contents.signed):
            raise LogError(
                f"the gradient log in {source} states a digest after {contents.digest[0]} messages, but holds "
                f"{len(contents.signed)}; resume from an earlier checkpoint"
            )
        stream, label, learnt = folder.decode_note(note, source)
        return cls(contents, stream, label, low or {}, learnt)

    def save(self, where: Path) -> None:
        """Write the files into a folder."""
        logged, note = self.pack()
        where.mkdir(parents=True, exist_ok=True)
        (where / folder.LOG_NAME).write_bytes(logged)
        (where / folder.PEER_NAME).write_bytes(note)
        if self.low:
            _save_low(where / LOW_NAME, self.low)

    @classmethod
    def load(cls, where: Path) -> Snapshot | None:
        """The snapshot in a folder, or ``None`` where there is none.

        Raises:
            LogError: there is one, but it cannot be used.
        """
        logged, note = where / folder.LOG_NAME, where / folder.PEER_NAME
        if not logged.exists():
            return None
        try:
            return cls.unpack(logged.read_bytes(), note.read_bytes(), str(where), _load_low(where / LOW_NAME))
        except OSError as error:
            raise LogError(f"cannot read the run's state in {where}: {error.strerror}") from error


def _save_low(path: Path, low: Mapping[str, Tensor]) -> None:
    """What ``numpy.savez`` writes, one array at a time and under any name."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, bits in low.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, bits.cpu().numpy(), allow_pickle=False)


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    """An array as :func:`_save_low` writes it, which takes no more memory than the file has bytes."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ValueError(f"{info.filename} is compressed or encrypted")
    file = io.BytesIO(archive.read(info))
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{info.filename} has another version of NumPy's format than 1.0")
    shape, in_columns, kind = np.lib.format.read_array_header_1_0(file)
    if kind != np.dtype(np.int16) or math.prod(shape) * kind.itemsize != len(file.getbuffer()) - file.tell():
        raise ValueError(f"{info.filename} is not an array of int16 that has the size of its shape, {shape}")
    values = np.frombuffer(file.getbuffer()[file.tell() :], kind)
    return torch.from_numpy(values.reshape(shape, order="F" if in_columns else "C").copy())


def _load_low(path: Path) -> dict[str, Tensor]:
    """The low bits in a file, none where there is no file."""
    if not path.exists():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy"): _array(archive, info) for info in archive.infolist()}
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile, NotImplementedError) as error:
        raise LogError(
            f"the low bits in {path} are damaged: {error}; resume from an earlier checkpoint"
        ) from error
