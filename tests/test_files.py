"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared_seed.files import replacing


def test_what_was_written_takes_the_old_file_s_place(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")
    with replacing(path) as new:
        assert new.suffix == ".png"
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.png"]


def fail(path: Path, begun: bool) -> None:
    with replacing(path) as new:
        if begun:
            new.write_text("half")
        raise ZeroDivisionError


@pytest.mark.parametrize("begun", [True, False])
def test_an_error_leaves_the_old_file(tmp_path: Path, begun: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        fail(path, begun)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
