"""A run's folder on a disk that has no room."""

from __future__ import annotations

from pathlib import Path

import pytest

from faulting.disk import files_of_at_most
from shared_seed import folder
from shared_seed.errors import LogError
from shared_seed.messages import Stream

STREAM = Stream(b"peer-number1", 3)


def test_a_stream_that_was_noted_is_known_again(tmp_path: Path) -> None:
    assert folder.noted_stream(tmp_path) is None
    folder.note_stream(tmp_path, STREAM, b"a label!")
    assert folder.noted_stream(tmp_path) == (STREAM, b"a label!")
    assert [path.name for path in tmp_path.iterdir()] == [folder.PEER_NAME]


def test_a_stream_that_cannot_be_noted_is_an_error(tmp_path: Path) -> None:
    problem = pytest.raises(LogError, match=r"cannot write .*peer\.json: .*; free some space")
    with problem, files_of_at_most(0):
        folder.note_stream(tmp_path, STREAM, b"a label!")
    assert not (tmp_path / folder.PEER_NAME).exists()


def test_a_run_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LogError, match=r"cannot make the run folder .*file/run: "):
        folder.open_log(tmp_path / "file" / "run", None, None)  # type: ignore[arg-type]
