"""All that the fault runner knows of the inside of the package."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from shared_seed import folder, identity, log
from shared_seed.errors import MessageError
from shared_seed.identity import Key
from shared_seed.log import Contents
from shared_seed.messages import Message, Stream
from shared_seed.relay import Relay, RelaySettings
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.signed import Signed
from shared_seed.training import MOST_ROUNDS, Training

LEARNING_RATE = 2e-3

Version = dict[str, int]
"""How many messages of each stream; streams in hex."""


def small_model() -> nn.Module:
    """The base model of all peers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 2))


def batch(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels."""
    inputs = torch.randn(16, 12, generator=generator)
    return inputs, (inputs[:, 0] + inputs[:, 1] > 0).long()


def settings(**given: object) -> Settings:
    """What all peers of a run have, and what is given."""
    return Settings(epsilon=2.0**-10, most_learning_rate=1.0, promise=None, directions=1, **given)  # type: ignore[arg-type]


def open_session(model: nn.Module, ours: Settings) -> Session:
    """A session that goes on until somebody ends it."""
    return Session.open(model, ours, Training(rounds=MOST_ROUNDS, title="faults"))


def step(session: Session, model: nn.Module, generator: torch.Generator) -> None:
    """Probe a batch and make a step."""
    inputs, labels = batch(generator)
    session.measure(lambda: nn.functional.cross_entropy(model(inputs), labels))
    session.step(LEARNING_RATE)


def version(session: Session) -> Version:
    """What a session holds now; the next step to return has written all of it to the log."""
    assert session.swarm is not None
    return session.swarm.ask(lambda p, now: {s.to_bytes().hex(): p.archive.count(s) for s in p.archive.streams})


def next_message(session: Session) -> tuple[str, int]:
    """Stream and number of what a session will publish next."""
    assert session.swarm is not None
    return session.stream.to_bytes().hex(), session.swarm.ask(lambda p, now: p.archive.count(session.stream))


def message_digest(message: Message) -> str:
    """Stands for the message in histories."""
    return hashlib.blake2b(message.encode(), digest_size=8).hexdigest()


def published(session: Session, stream: str, number: int) -> str:
    """Digest of a message that a session has published."""
    assert session.swarm is not None
    name = Stream.from_bytes(bytes.fromhex(stream))
    stretch = session.swarm.ask(lambda p, now: p.archive.stretches(name, number, 1))[0]
    return message_digest(Message.decode(stretch.encoded[0]))


def make_key(path: Path) -> str:
    """Make a key file; its public key in hex."""
    key = Key.fresh()
    path.touch(mode=0o600)
    path.write_text(key.seed.hex() + "\n")
    return identity.show(key.public)


def use_key(path: Path) -> None:
    """Be the owner of a key from now on."""
    os.environ[identity.VARIABLE] = str(path)


def found(at: Path, lockstep: bool) -> None:
    """Begin a run in a folder: its terms, and no messages yet."""
    session = open_session(small_model(), settings(folder=at, lockstep=lockstep))
    session.close()


def log_path(run_folder: Path) -> Path:
    """The log in a run's folder."""
    return run_folder / folder.LOG_NAME


def header_size(contents: Contents) -> int:
    """Bytes of a log before its first message."""
    return len(log.encode(Contents(contents.manifest, signature=contents.signature)))


def relay(founded: Path, at: Path, listen: str, on: Callable[[int, int], bool]) -> None:
    """Be a relay until ``on(messages held, frames refused)``, asked about every second, says no.

    The first time, it has the run's terms in its folder, as from whoever set it up.
    """
    if not log_path(at).exists():
        at.mkdir(exist_ok=True)
        shutil.copyfile(log_path(founded), log_path(at))
    one = Relay.open(RelaySettings(listen=listen, folder=at, name=at.name), print)
    try:
        while on(one.swarm.ask(lambda p, now: len(p.archive)), one.swarm.traffic.refused):
            one.step()
    finally:
        one.close()


def message_in(frame: bytes) -> str | None:
    """The digest of the message that a published frame carries, signed or not, if it is one."""
    try:
        return message_digest(Signed.decode(frame).message)
    except MessageError:
        return None
