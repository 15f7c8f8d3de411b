"""Where a session stands, to go on from with the same bits: what a Trainer's checkpoint keeps of a run.

A checkpoint holds the weights already; beside them it needs the messages that they contain and the stream that
wrote some of them. Both are kept as in a run folder: a gradient log, and a note of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from shared_seed import folder, log
from shared_seed.errors import LogError
from shared_seed.log import Contents
from shared_seed.messages import Stream


@dataclass(frozen=True)
class Snapshot:
    """A run as one peer has it after a step: terms and messages, its digest, and this peer's stream."""

    contents: Contents
    stream: Stream

    @property
    def round(self) -> int:
        """The round that comes next."""
        return max((message.round + 1 for message in self.contents.messages), default=0)

    @property
    def number(self) -> int:
        """The number that the stream's next message has."""
        return sum(message.stream == self.stream for message in self.contents.messages)

    def of_peer(self, name: bytes | None) -> Snapshot:
        """The same run as another peer has it, which goes on in the last of its streams.

        Args:
            name: the peer's 12 bytes; None for a new peer.
        """
        streams = [m.stream for m in self.contents.messages if m.stream.peer == name]
        new = Stream.fresh() if name is None else Stream(name)
        return replace(self, stream=max(streams, default=new))

    def pack(self) -> tuple[bytes, bytes]:
        """The bytes of the gradient log and of the stream's note."""
        return log.encode(self.contents), folder.encode_stream(self.stream)

    @classmethod
    def unpack(cls, logged: bytes, note: bytes, source: str) -> Snapshot:
        """What :meth:`pack` has packed.

        Raises:
            LogError: the bytes are not whole; names ``source``.
        """
        contents = log.parse(logged, source)
        if not contents.finished:
            raise LogError(
                f"the gradient log in {source} does not end with the digest of its weights; it is cut off"
            )
        return cls(contents, folder.decode_stream(note, source))

    def save(self, where: Path) -> None:
        """Write both files into a folder."""
        logged, note = self.pack()
        where.mkdir(parents=True, exist_ok=True)
        (where / folder.LOG_NAME).write_bytes(logged)
        (where / folder.PEER_NAME).write_bytes(note)

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
            return cls.unpack(logged.read_bytes(), note.read_bytes(), str(where))
        except OSError as error:
            raise LogError(f"cannot read the run's state in {where}: {error.strerror}") from error
