"""A session that goes on from a checkpoint ends with the bits of one that was never stopped."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

import models
from shared_seed import log
from shared_seed.errors import LogDamagedError, LogError, ManifestMismatchError
from shared_seed.folder import LOG_NAME, PEER_NAME
from shared_seed.messages import Message, Stream
from shared_seed.optimizer import Groups
from shared_seed.rate import LEARNT
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.signed import Signed
from shared_seed.snapshot import Snapshot
from shared_seed.training import Training

ROUNDS = 8
INPUTS = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))


def fresh() -> nn.Module:
    torch.manual_seed(5)
    return models.mlp(3, 4, 2)


def train(session: Session, model: nn.Module, steps: int) -> None:
    for _ in range(steps):
        for part in INPUTS.chunk(2):
            session.measure(lambda part=part: model(part).square().mean())  # type: ignore[misc]
        session.step(0.01 * (1 + session.round))


def begun(model: nn.Module, settings: Settings | None = None, **more: Any) -> Session:
    session = Session.open(model, settings or Settings(), Training(rounds=ROUNDS, **more))
    session.begin()
    return session


def uninterrupted() -> str:
    model = fresh()
    session = begun(model)
    train(session, model, ROUNDS)
    return session.finish().digest


def stopped_after(steps: int, settings: Settings | None = None) -> tuple[nn.Module, Snapshot]:
    model = fresh()
    session = begun(model, settings)
    train(session, model, steps)
    snapshot = session.snapshot()
    session.close()
    return model, snapshot


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("lockstep", [True, False])
def test_going_on_gives_the_same_bits_as_never_stopping(steps: int, lockstep: bool, tmp_path: Path) -> None:
    settings = Settings(lockstep=lockstep)
    model, snapshot = stopped_after(steps, settings)
    assert (snapshot.round, snapshot.number) == (steps, steps)
    snapshot.save(tmp_path)
    loaded = Snapshot.load(tmp_path)
    assert loaded is not None
    assert loaded.pack() == snapshot.pack()
    again = copy.deepcopy(model)
    session = begun(again, settings, resume=loaded)
    assert session.round == steps
    train(session, again, ROUNDS - steps)
    outcome = session.finish()
    if lockstep:
        assert outcome.digest == uninterrupted()
    assert outcome.messages == ROUNDS
    assert outcome.streams == 1


def test_what_was_learnt_of_the_rate_goes_on_too(tmp_path: Path) -> None:
    settings, digests = Settings(promise=1e-4), []
    for stops in ((40,), (25, 40)):
        model, snapshot = fresh(), None
        for stop in stops:
            session = Session.open(model, settings, Training(rounds=40, resume=snapshot))
            session.begin()
            train(session, model, stop - session.round)
            session.snapshot().save(tmp_path)
            session.close()
            snapshot = Snapshot.load(tmp_path)
        assert snapshot is not None
        assert snapshot.learnt[0] > 1.05e-4, "more is promised than at first"
        digests.append((session.replica.digest(), snapshot.learnt))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("learnt", ["[1.0]", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 1e999]", '"much"', "[null]"])
def test_what_nobody_can_have_learnt_is_refused(learnt: str, tmp_path: Path) -> None:
    stopped_after(1)[1].save(tmp_path)
    note = json.loads((tmp_path / PEER_NAME).read_text())
    assert len(note.pop("learnt")) == LEARNT
    (tmp_path / PEER_NAME).write_text(json.dumps(note)[:-1] + f', "learnt": {learnt}}}')
    with pytest.raises(LogError, match="is damaged"):
        Snapshot.load(tmp_path)


def test_a_longer_run_may_be_asked_for() -> None:
    model, snapshot = stopped_after(3)
    session = Session.open(model, Settings(), Training(rounds=ROUNDS + 5, resume=snapshot))
    assert session.manifest.rounds == ROUNDS + 5
    session.close()


def test_what_the_folders_log_has_beyond_the_checkpoint_stands(tmp_path: Path) -> None:
    """A peer was killed after its checkpoint: the messages that it had published by then are not made anew."""
    settings = Settings(folder=tmp_path, number=0)
    model = fresh()
    session = begun(model, settings)
    train(session, model, 3)
    snapshot, kept = session.snapshot(), copy.deepcopy(model)
    train(session, model, 2)
    session.close()
    published = log.read(tmp_path / LOG_NAME).messages
    assert len(published) == 5

    session = begun(kept, settings, resume=snapshot)
    assert session.round == 3
    for _ in range(5):
        # Another loss than the first time: what was published must win.
        session.measure(lambda: kept(INPUTS).abs().mean())
        session.step(0.5 if session.round < 5 else 0.01)
    outcome = session.finish()
    contents = log.read(tmp_path / LOG_NAME)
    assert contents.messages[:5] == published
    assert len(contents.messages) == ROUNDS
    assert {m.stream for m in contents.messages} == {snapshot.stream}
    assert contents.finished
    assert contents.digest is not None
    assert contents.digest[1].hex() == outcome.digest


def test_a_fresh_folder_gets_the_checkpoints_messages(tmp_path: Path) -> None:
    model, snapshot = stopped_after(4, Settings(number=0))
    session = begun(model, Settings(folder=tmp_path, number=0), resume=snapshot)
    train(session, model, ROUNDS - 4)
    session.finish()
    assert log.read(tmp_path / LOG_NAME).messages[:4] == snapshot.contents.messages
    assert len(log.read(tmp_path / LOG_NAME).messages) == ROUNDS


def test_other_weights_than_the_checkpoints_are_refused() -> None:
    model, snapshot = stopped_after(2)
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    with pytest.raises(ManifestMismatchError, match="the weights are not those that the checkpoint's"):
        begun(model, resume=snapshot)


def test_other_learning_rates_than_the_checkpoints_are_refused() -> None:
    model, snapshot = stopped_after(2)
    first, *rest = model.parameters()
    optimizer = SGD([{"params": rest}, {"params": [first], "lr": 0.5}], lr=1.0)
    with pytest.raises(
        ManifestMismatchError, match=r"the rate of trainable parameter .* differs: ours 0.5, theirs 1"
    ):
        begun(model, resume=snapshot, groups=Groups.of(optimizer, model, ROUNDS))


def test_a_folder_without_a_log_holds_no_snapshot(tmp_path: Path) -> None:
    assert Snapshot.load(tmp_path) is None


def cut(folder: Path) -> None:
    data = (folder / LOG_NAME).read_bytes()
    (folder / LOG_NAME).write_bytes(data[:-45])


def spoil(folder: Path) -> None:
    data = bytearray((folder / LOG_NAME).read_bytes())
    data[-100] ^= 1
    (folder / LOG_NAME).write_bytes(data)


def forget(folder: Path) -> None:
    (folder / PEER_NAME).unlink()


def scribble(folder: Path) -> None:
    (folder / PEER_NAME).write_text('{"peer": "00"}')


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (cut, LogError, "does not end with the digest of its weights"),
        (spoil, LogDamagedError, "is damaged at byte"),
        (forget, LogError, "cannot read the run's state"),
        (scribble, LogError, "is damaged"),
    ],
)
def test_a_damaged_snapshot_is_refused(tmp_path: Path, damage: Any, error: type[Exception], said: str) -> None:
    stopped_after(3)[1].save(tmp_path)
    damage(tmp_path)
    with pytest.raises(error, match=said):
        Snapshot.load(tmp_path)


def test_a_peer_goes_on_as_its_own_note_says() -> None:
    _, snapshot = stopped_after(2)
    other = replace(snapshot, stream=Stream(bytes(range(12)), 3), label=b"a label!", learnt=(0.5,) * LEARNT)
    note = other.pack()[1]
    assert snapshot.noted(note, "a note") == other
    assert other.of_peer(bytes(12)).learnt == ()
    with pytest.raises(LogError, match="a note is damaged"):
        snapshot.noted(note[:-1], "a note")


def test_another_peer_goes_on_in_the_last_of_its_streams() -> None:
    _, snapshot = stopped_after(2)
    name = bytes(range(12))
    assert snapshot.of_peer(name).stream.peer == name
    assert snapshot.of_peer(snapshot.stream.peer) == replace(snapshot, learnt=())
    (message, *_) = snapshot.contents.messages
    later = Message(message.stream.restarted(), 0, 2, message.learning_rate, message.codes)
    contents, (count, digest) = snapshot.contents, snapshot.contents.digest or (0, b"")
    longer = replace(contents, signed=[*contents.signed, Signed(later)], digest=(count + 1, digest))
    assert replace(snapshot, contents=longer).of_peer(message.stream.peer).stream == later.stream
