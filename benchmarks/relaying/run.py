"""A run of nobody's: its manifest, writers with keys, and messages that are signed ahead of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared_seed import log
from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.folder import LOG_NAME
from shared_seed.identity import Key
from shared_seed.ledger import BLOCK, chained, first_head
from shared_seed.log import Contents
from shared_seed.manifest import Limits, Manifest, TensorSpec
from shared_seed.messages import Message, Stream
from shared_seed.noise import Family
from shared_seed.proofs import sign_head
from shared_seed.signed import Records, Signed
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.protocol import Protocol

OWNER = Key(b"\x09" * 32)
MANIFEST = Manifest(
    run="0123456789abcdef0123456789abcdef",
    owner=OWNER.public.hex(),
    model="none",
    frozen_digest="00",
    tensors=(TensorSpec(name="w", shape=(1,), family=Family.DENSE, exponent=21, digest="00"),),
    epsilon=2.0**-8,
    scale_exponent=0,
    rounds=1 << 31,
    start_with=1,
    # What one key may send must not be what is measured.
    limits=Limits(learning_rate=1.0, samples_per_message=255, bytes_per_second=1 << 40),
)
SIGNATURE = MANIFEST.sign(OWNER)


@dataclass(frozen=True)
class Writer:
    """A key, its introduction and its stream."""

    key: Key
    introduction: Introduction

    @classmethod
    def numbered(cls, number: int) -> Writer:
        """The same for the same number."""
        key = Key(number.to_bytes(32, "little"))
        return cls(key, Introduction(key.public, number.to_bytes(8, "little")))

    @property
    def stream(self) -> Stream:
        """Its first."""
        return Stream(self.introduction.peer(MANIFEST.run_bytes))

    def author(self, name: str) -> Author:
        """As the protocol has it."""
        return Author(self.stream, name, self.key, self.introduction)

    def messages(self, count: int, samples: int) -> Iterator[Message]:
        """The first messages of its stream."""
        return (Message(self.stream, n, n, 0.25, bytes([n % 120]) * samples) for n in range(count))

    def frames(self, count: int, samples: int) -> list[bytes]:
        """The same, signed, as they are published."""
        archive = Archive(MANIFEST)
        archive.introduce(self.introduction)
        return [archive.publish(message, self.key).encode() for message in self.messages(count, samples)]


def protocol(writer: Writer, name: str, archive: Archive | None = None) -> Protocol:
    """A peer of this run."""
    return Protocol(writer.author(name), Terms.of(MANIFEST, SIGNATURE), archive or Archive(MANIFEST))


def write_log(folder: Path, writers: list[Writer], messages: int = 0) -> int:
    """Have a folder hold this run with so many messages of each writer: by round, as a run leaves them, and signed
    at the ends of blocks and streams. Gives the bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    heads = [first_head(MANIFEST.seal, writer.stream) for writer in writers]
    payloads: list[bytes] = []
    for messages_of_a_round in zip(*(writer.messages(messages, 1) for writer in writers), strict=True):
        for index, message in enumerate(messages_of_a_round):
            heads[index] = chained(heads[index], [message.encode()])
            proves = (message.number + 1) % BLOCK == 0 or message.number == messages - 1
            signature = sign_head(writers[index].key, heads[index]) if proves else b""
            payloads.append(Signed(message, signature).encode())
    introductions = [writer.introduction for writer in writers]
    content = log.encode(Contents(MANIFEST, Records(payloads), signature=SIGNATURE, statements=[*introductions]))
    (folder / LOG_NAME).write_bytes(content)
    return len(content)
