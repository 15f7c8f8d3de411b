"""``shared-seed diff`` and ``merge`` on logs of a real run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from shared_seed import history, log
from shared_seed.archive import Archive
from shared_seed.cli_compare import DIFFERENT
from shared_seed.folder import LOG_NAME
from shared_seed.log import Contents
from shared_seed.summary import Summary

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny recipe, its model and its data."""
    folder = tmp_path_factory.mktemp("home")
    tiny.recipe(folder, steps=6)
    return folder


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two local peers that has ended well."""
    return tiny.finished(home, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def sides(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What two peers have that have heard nothing of each other."""
    contents = log.read(finished / LOG_NAME)
    paths = []
    for number, stream in enumerate(history.archive_of(contents).streams):
        own = [signed for signed in contents.signed if signed.message.stream == stream]
        part = dataclasses.replace(contents, signed=own, digest=None)
        paths.append(tmp_path_factory.mktemp("sides") / f"{number}.sslog")
        paths[-1].write_bytes(log.encode(canonical(part)))
    return paths


def canonical(contents: Contents) -> Contents:
    archive: Archive = history.archive_of(contents)
    return history.contents_of(archive, contents.manifest, contents.signature)


def plain(text: str) -> str:
    return " ".join(text.split())


def test_diff_of_two_peers_of_a_run_finds_nothing(finished: Path, call: Call) -> None:
    code, out, _ = call("diff", finished, finished / "peers" / "2")
    assert code == 0
    assert "the logs hold the same: 12 messages" in out


def test_diff_names_the_streams_that_a_log_lacks(finished: Path, sides: list[Path], call: Call) -> None:
    code, out, _ = call("diff", finished, sides[0])
    assert code == DIFFERENT
    assert "two logs of one run" in out
    assert "the same in 1 of 2 streams" in out
    assert "digest at the end: A has" in plain(out)
    code, out, _ = call("diff", *sides, "--json")
    assert code == DIFFERENT
    found = json.loads(out)
    assert [(each["both"], each["only_first"] + each["only_second"]) for each in found["streams"]] == [(0, 6)] * 2


def test_diff_of_different_runs_names_the_terms_that_differ(
    finished: Path, home: Path, call: Call, tmp_path: Path
) -> None:
    assert call("run", home / "tiny.yaml", "--quick", "-o", tmp_path / "other")[0] == 0
    code, out, _ = call("diff", finished, tmp_path / "other")
    assert code == DIFFERENT
    assert "logs of different runs" in out
    assert "rounds: A has 6; B has 3" in out
    code, _, err = call("merge", finished, tmp_path / "other", "-o", tmp_path / "both")
    assert code == 1
    assert "logs of different runs, which have no union" in plain(err)
    assert not (tmp_path / "both").exists()


def test_diff_of_what_is_no_log_is_an_error(finished: Path, call: Call, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no log")
    code, _, err = call("diff", finished, tmp_path / "x")
    assert code == 1
    assert "is not a gradient log" in plain(err)


def test_merge_gives_the_run_again_whatever_the_order(
    finished: Path, home: Path, sides: list[Path], call: Call, tmp_path: Path
) -> None:
    code, out, err = call("merge", *sides, "-o", tmp_path / "a")
    assert code == 0, err
    assert "12 messages of 2 streams" in out
    assert call("merge", *sides[::-1], sides[0], "-o", tmp_path / "b", "--digest")[0] == 0
    unstated, stated = (log.read(tmp_path / name / LOG_NAME) for name in "ab")
    assert unstated.digest is None
    assert log.encode(dataclasses.replace(unstated, digest=stated.digest)) == log.encode(stated)
    assert (tmp_path / "b" / LOG_NAME).read_bytes() == (finished / LOG_NAME).read_bytes()
    assert call("replay", tmp_path / "a")[0] == 1
    assert call("replay", tmp_path / "a", "--unfinished", "--digest")[1].strip() == Summary.load(finished).digest
    assert call("replay", tmp_path / "b", "--digest")[1].strip() == Summary.load(finished).digest
    code, _, err = call("run", home / "tiny.yaml", "-o", tmp_path / "a")
    assert code == 0, err
    assert Summary.load(tmp_path / "a").digest == Summary.load(finished).digest, "it is a run folder"


def test_merge_refuses_one_log_and_a_folder_with_a_log(finished: Path, sides: list[Path], call: Call) -> None:
    before = (finished / LOG_NAME).read_bytes()
    code, _, err = call("merge", *sides, "-o", finished)
    assert code == 1
    assert "is there already; choose another folder" in plain(err)
    assert (finished / LOG_NAME).read_bytes() == before
    code, _, err = call("merge", sides[0], "-o", "new")
    assert code == 1
    assert "expected two or more" in plain(err)
    Path("taken").touch()
    code, _, err = call("merge", *sides, "-o", "taken")
    assert code == 1
    assert "taken is there already; choose another folder" in plain(err)
    code, _, err = call("merge", *sides, "-o", "taken/inside")
    assert code == 1
    assert "cannot make the run folder taken/inside" in plain(err)
