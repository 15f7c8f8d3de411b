"""A session takes up a log only if nothing is missing inside it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from torch import nn

from shared_seed import log
from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.errors import LogError
from shared_seed.folder import LOG_NAME
from shared_seed.identity import Key
from shared_seed.log import RunLog
from shared_seed.manifest import Limits
from shared_seed.messages import Message, Stream
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.training import Training


def test_a_log_with_a_gap_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    settings = Settings(folder=tmp_path)
    model = nn.Linear(3, 3)
    session = Session.open(copy.deepcopy(model), settings, Training(rounds=5))
    session.close()
    path = tmp_path / LOG_NAME
    contents = log.read(path)
    writer, archive = Key.fresh(), Archive(contents.manifest)
    introduction = Introduction(writer.public, b"a label.")
    archive.introduce(introduction)
    stream = Stream(introduction.peer(contents.manifest.run_bytes))
    first, _, third = (archive.publish(Message(stream, n, n, 0.125, b"\x35"), writer) for n in range(3))
    held = RunLog.resume(path, contents)
    held.append([introduction], [first, third])
    held.close()
    before = path.read_bytes()
    with pytest.raises(LogError, match="lacks messages before some that it holds"):
        Session.open(model, settings, Training(rounds=5))
    assert path.read_bytes() == before


def test_a_run_that_begins_here_has_the_limits_of_its_settings(tmp_path: Path) -> None:
    limits = {"most_learning_rate": 0.125, "most_samples": 8, "streams_per_key": 3, "bytes_per_second": 50_000}
    session = Session.open(nn.Linear(3, 3), Settings(folder=tmp_path, **limits), Training(rounds=5))  # type: ignore[arg-type]
    session.close()
    found = log.read(tmp_path / LOG_NAME).manifest.limits
    assert found == Limits(learning_rate=0.125, samples_per_message=8, streams_per_key=3, bytes_per_second=50_000)
