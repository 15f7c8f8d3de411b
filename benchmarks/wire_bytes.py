"""How many bytes a gradient takes: live, in catch-up and in the finished log, signatures and all.

    python benchmarks/wire_bytes.py

No sockets and no clock: the frames are made and measured, so the numbers are the same on every machine. A log's
header, which is the manifest, is left out; ZeroMQ and TCP add their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared_seed import history, log
from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.identity import Key
from shared_seed.log import Contents
from shared_seed.manifest import Limits, Manifest, TensorSpec
from shared_seed.messages import MOST_CODES, Message, Stream
from shared_seed.noise import Family
from shared_seed.swarm import wire
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.output import Publish, Timing
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import State

SAMPLES = (1, 8, 64)
MESSAGES = 4096
PEERS = 4


@dataclass(frozen=True)
class Row:
    """Bytes a gradient, with so many samples in each message."""

    samples: int
    live: float
    chunk: float
    log: float


def _manifest(owner: Key) -> Manifest:
    return Manifest(
        owner=owner.public.hex(),
        nonce="00" * 16,
        run="00" * 16,
        model="none",
        frozen_digest="00",
        tensors=(TensorSpec(name="w", shape=(1,), family=Family.DENSE, exponent=21, digest="00"),),
        epsilon=2.0**-8,
        scale_exponent=0,
        rounds=1 << 20,
        start_with=1,
        limits=Limits(learning_rate=1.0, samples_per_message=MOST_CODES),
    )


def row(samples: int, messages: int = MESSAGES) -> Row:
    """Measure with so many samples a message, so many messages of each peer."""
    owner = Key(bytes(32))
    manifest = _manifest(owner)
    archive, gradients = Archive(manifest), samples * messages
    live, streams = 0, []
    for number in range(PEERS):
        introduction = Introduction(owner.public, number.to_bytes(8, "little"))
        archive.introduce(introduction)
        streams.append(Stream(introduction.peer(archive.run)))
    for round_ in range(messages):
        for stream in streams:
            message = Message(stream, round_, round_, 0.5, bytes(samples))
            live += len(archive.publish(message, owner).encode())
    guest = wire.Guest(owner.public, bytes(8))
    chunks = 0
    most = max(64, min(wire.CHUNK, wire.CHUNK_BYTES // (29 + samples)))
    for start in range(0, messages, most):
        part = archive.stretches(streams[0], start, most)
        chunks += len(wire.encode(wire.Chunk.of(streams[0].to_bytes(), guest, start, part)))
    signature = manifest.sign(owner)
    whole = len(log.encode(history.contents_of(archive, manifest, signature)))
    empty = len(log.encode(Contents(manifest, signature=signature)))
    return Row(samples, live / PEERS / gradients, chunks / gradients, (whole - empty) / PEERS / gradients)


def signs_of_life() -> tuple[int, int]:
    """Bytes of a heartbeat, of a peer with a name of eight letters, and of a pulse."""
    owner = Key(bytes(32))
    manifest, introduction = _manifest(owner), Introduction(owner.public, bytes(8))
    author = Author(Stream(introduction.peer(manifest.run_bytes)), "a-peer-1", owner, introduction)
    terms = Terms.of(manifest, manifest.sign(owner))
    protocol, timing = Protocol(author, terms, Archive(manifest)), Timing()
    outputs = protocol.enter(State.TRAINING, 0, 0.0)
    outputs += [each for n in (1, 2) for each in protocol.tick(n * timing.heartbeat)]
    beat, _, pulse = [len(output.frame) for output in outputs if isinstance(output, Publish)]
    return beat, pulse


def measure(messages: int = MESSAGES) -> list[Row]:
    """Measure all, and print a table."""
    rows = [row(samples, messages) for samples in SAMPLES]
    print("samples a message | bytes a gradient: live | catch-up | log")
    for each in rows:
        print(f"{each.samples:17} | {each.live:22.2f} | {each.chunk:8.2f} | {each.log:.2f}")
    print("a heartbeat: {} bytes, a pulse: {}".format(*signs_of_life()))
    return rows


if __name__ == "__main__":
    measure()
