"""The lines of a run's metrics: one a step, whatever a crash has done to them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from shared_seed import metrics
from shared_seed.messages import Message, Stream

OWN = Stream(b"me".ljust(12, b"."))


def own(*rounds: int, codes: bytes = b"\x38\x30\x7f") -> list[Message]:
    return [Message(OWN, number, round_, 0.25, codes) for number, round_ in enumerate(rounds)]


def line(round_: int, loss: float = 1.0) -> metrics.Line:
    return {"round": round_, "loss": loss}


def write(folder: Path, *lines: metrics.Line, tail: str = "") -> Path:
    for each in lines:
        metrics.append(folder, each)
    with (folder / metrics.NAME).open("a") as file:
        file.write(tail)
    return folder / metrics.NAME


def rounds(folder: Path) -> list[int]:
    return [each["round"] for each in metrics.read(folder)]


def test_lines_are_read_as_they_were_appended(tmp_path: Path) -> None:
    assert metrics.read(tmp_path) == []
    write(tmp_path, line(0), line(1, 0.5))
    assert metrics.read(tmp_path) == [line(0), line(1, 0.5)]


@pytest.mark.parametrize(
    "tail", ['{"round": 2, "lo', '{"round": 2}\n[1]\n"x"\n{"loss": 1}\n', "\0\0\0\0", "\xff\n"]
)
def test_what_is_no_line_is_left_out_and_mended_away(tmp_path: Path, tail: str) -> None:
    path = write(tmp_path, line(0), line(1), tail=tail)
    assert rounds(tmp_path)[:2] == [0, 1]
    metrics.mend(tmp_path, own(0, 1), 0, until=2)
    assert rounds(tmp_path) == [0, 1]
    assert [json.loads(text) for text in path.read_text().splitlines()] == [line(0), line(1)]


def test_a_step_without_a_line_is_told_from_its_message(tmp_path: Path) -> None:
    write(tmp_path, line(0), line(2))
    metrics.mend(tmp_path, own(0, 1, 2), 0, until=3)
    told = metrics.read(tmp_path)[1]
    assert told == {"round": 1, "loss": None, "gradient": 0.75, "learning_rate": 0.75}
    metrics.mend(tmp_path, own(0, 1, 2, 3, codes=b"\x7f"), 0)
    assert math.isnan(metrics.read(tmp_path)[3]["gradient"])


def test_lines_of_steps_that_will_be_made_again_go_and_doubles_too(tmp_path: Path) -> None:
    write(tmp_path, line(0), line(1), line(1, 9.0), line(2), line(3))
    metrics.mend(tmp_path, own(0, 1), 0, until=2)
    assert metrics.read(tmp_path) == [line(0), line(1)]


def test_lines_of_a_run_whose_log_is_gone_go_and_a_folder_without_any_stays_so(tmp_path: Path) -> None:
    metrics.mend(tmp_path, [], 0, until=0)
    assert not (tmp_path / metrics.NAME).exists()
    write(tmp_path, line(0), line(1))
    metrics.mend(tmp_path, [], 0, until=7)
    assert metrics.read(tmp_path) == []


def test_a_file_that_is_right_is_not_touched(tmp_path: Path) -> None:
    path = write(tmp_path, line(0), line(1))
    before = path.stat().st_mtime_ns, path.stat().st_ino
    metrics.mend(tmp_path, own(0, 1), 0)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
