"""A command that dies wherever it may, and is given again: real processes and SIGKILL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from shared_seed import metrics, replay
from shared_seed.card import NAME as CARD_NAME
from shared_seed.folder import LOG_NAME, REPORT_NAME
from shared_seed.run_facts import CURVE_NAME
from shared_seed.summary import NAME as RESULT_NAME
from shared_seed.summary import Summary

STEPS = 2
PLACES = 26
"""More than a run of so many steps has accesses to its folder, so that the last ones do not die."""

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tiny.recipe(folder, steps=STEPS)
    return folder


@pytest.fixture(scope="module")
def pair(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two local peers that has ended well."""
    return tiny.finished(home, tmp_path_factory.mktemp("pair") / "run")


@pytest.fixture(scope="module")
def ends(home: Path) -> dict[int, dict[str, int]]:
    """How processes ended that were to die at each place, and those that ran the same command after them."""
    script = str(Path(__file__).with_name("crash_process.py"))
    words = [sys.executable, script, str(home / "tiny.yaml"), str(home / "runs"), *map(str, range(PLACES))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return {each["place"]: each for each in map(json.loads, done.stdout.splitlines())}


def test_the_same_command_ends_the_run_wherever_a_process_has_died(
    home: Path, ends: dict[int, dict[str, int]]
) -> None:
    assert sorted(ends) == list(range(PLACES))
    died = [place for place, each in ends.items() if each["died"] == -9]
    assert died == list(range(len(died))), "there are no more places than were tried"
    assert len(died) < PLACES
    for place, each in ends.items():
        folder = home / "runs" / str(place)
        assert each["again"] == 0, place
        summary = Summary.load(folder)
        assert replay.checked(folder).digest == summary.digest, place
        assert [line["round"] for line in metrics.read(folder)] == list(range(STEPS)), place
        assert summary.digest in (folder / CARD_NAME).read_text(), place
        assert (folder / CURVE_NAME).read_bytes().startswith(b"\x89PNG"), place
        assert not [name for name in os.listdir(folder) if "new" in name], "nothing half-written stays"


def test_a_step_that_a_crash_kept_from_the_metrics_is_told_from_the_log(
    home: Path, ends: dict[int, dict[str, int]]
) -> None:
    found = [metrics.read(home / "runs" / str(place)) for place in ends]
    without_loss = [line for lines in found for line in lines if line["loss"] is None]
    assert without_loss
    assert all(line["learning_rate"] > 0 for line in without_loss)


def test_a_run_that_has_ended_says_so_and_stays_as_it_is(home: Path, call: Call, tmp_path: Path) -> None:
    recipe, folder = home / "tiny.yaml", tmp_path / "run"
    names = (LOG_NAME, metrics.NAME, RESULT_NAME, CARD_NAME, CURVE_NAME, "peer.json")
    assert call("run", recipe, "-o", folder)[0] == 0
    before = {name: ((folder / name).read_bytes(), (folder / name).stat().st_mtime_ns) for name in names}
    code, out, err = call("run", recipe, "-o", folder)
    assert code == 0, err
    assert "holds a run that has ended" in out
    assert Summary.load(folder).digest in out
    assert {n: ((folder / n).read_bytes(), (folder / n).stat().st_mtime_ns) for n in names} == before
    code, out, _ = call("run", recipe, "-o", folder, "--progress", "json")
    assert (code, json.loads(out)["text"]) == (0, "finished already")
    (folder / CARD_NAME).unlink()
    (folder / CURVE_NAME).unlink()
    assert call("run", recipe, "-o", folder)[0] == 0
    assert (folder / CARD_NAME).read_bytes() == before[CARD_NAME][0]
    assert (folder / CURVE_NAME).exists()
    (folder / REPORT_NAME).unlink()
    assert call("run", recipe, "-o", folder)[0] == 0
    assert (folder / REPORT_NAME).exists()


def test_a_result_that_a_crash_has_taken_is_made_again(home: Path, call: Call, tmp_path: Path) -> None:
    recipe, folder = home / "tiny.yaml", tmp_path / "run"
    assert call("run", recipe, "-o", folder)[0] == 0
    before = Summary.load(folder)
    for damage in (b"", b'{"digest": "', b"[]"):
        (folder / RESULT_NAME).write_bytes(damage)
        code, out, err = call("run", recipe, "-o", folder)
        assert code == 0, err
        assert "has ended" not in out
        after = Summary.load(folder)
        assert (after.digest, after.after, after.gradients) == (before.digest, before.after, before.gradients)


def test_local_peers_that_have_ended_are_not_run_again(home: Path, pair: Path, call: Call) -> None:
    before = (pair / RESULT_NAME).read_bytes()
    code, out, err = call("run", home / "tiny.yaml", "--local", 2, "-o", pair)
    assert code == 0, err
    assert "holds a run that has ended" in out
    assert "all 2 replicas hold identical bits" in out
    assert (pair / RESULT_NAME).read_bytes() == before


def test_a_joiner_that_has_ended_says_so_when_nobody_answers_any_more(
    pair: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared_seed.swarm.zmq import fetch_manifest

    def impatient(address: str, key: object, guest: object, patience: float) -> object:
        return fetch_manifest(address, key, guest, 0.5)  # type: ignore[arg-type]

    monkeypatch.setattr("shared_seed.swarm.zmq.fetch_manifest", impatient)
    code, out, err = call("join", "tcp://127.0.0.1:9", "-o", pair / "peers" / "2")
    assert code == 0, err
    assert "holds a run that has ended" in out
    assert call("join", "tcp://127.0.0.1:9", "-o", tmp_path / "new")[0] == 1
