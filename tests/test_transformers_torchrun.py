"""Two ranks of a real torchrun are two peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from shared_seed import log
from shared_seed.folder import LOG_NAME
from shared_seed.swarm.zmq import free_ports
from trainers import token_mean, uneven_rows

SCRIPT = Path(__file__).with_name("trainer_process.py")


def torchrun(folder: Path, *options: object, fails: bool = False) -> list[dict[str, Any]]:
    """What the two ranks report."""
    folder.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    done = subprocess.run(
        [*words, "--folder", str(folder), *map(str, options)],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return torchrun(tmp_path_factory.mktemp("straight"), "--save", 3)


def test_two_ranks_end_with_the_same_bits(straight: list[dict[str, Any]]) -> None:
    first, second = straight
    assert first["digest"] == second["digest"]
    assert first["others"] == {"peer-1": second["digest"]}
    assert second["others"] == {"peer-0": first["digest"]}
    assert first["peers"] == second["peers"] == [2] * 6
    assert (first["streams"], first["messages"]) == (2, 12)
    assert first["late"] == second["late"] == []


def test_each_rank_has_its_own_rows_and_directions(straight: list[dict[str, Any]]) -> None:
    first, second = straight
    assert all(a != b for a, b in zip(first["gradients"], second["gradients"], strict=True))
    assert all(a != b for a, b in zip(first["losses"], second["losses"], strict=True))
    assert first["state"] == second["state"] == 0


def test_ranks_that_resume_end_with_the_bits_of_a_run_without_a_stop(
    tmp_path: Path, straight: list[dict[str, Any]]
) -> None:
    torchrun(tmp_path, "--save", 3, "--steps", 3)
    resumed = torchrun(tmp_path, "--save", 3, "--resume", tmp_path / "out" / "checkpoint-3")
    assert [rank["digest"] for rank in resumed] == [rank["digest"] for rank in straight]
    assert [rank["losses"] for rank in resumed] == [rank["losses"][3:] for rank in straight]
    assert [rank["streams"] for rank in resumed] == [2, 2]


def test_each_rank_that_resumes_has_kept_what_it_has_learnt_of_its_learning_rate(tmp_path: Path) -> None:
    straight = torchrun(tmp_path / "straight", "--found", "--save", 3)
    resumed = torchrun(tmp_path, "--found", "--resume", tmp_path / "straight" / "out" / "checkpoint-3")
    assert straight[0]["rates"] != straight[1]["rates"]
    assert [rank["rates"] for rank in resumed] == [rank["rates"][3:] for rank in straight]
    assert [rank["digest"] for rank in resumed] == [rank["digest"] for rank in straight]


def test_losses_of_uneven_rows_are_weighted_by_their_tokens(tmp_path: Path) -> None:
    first, second = torchrun(tmp_path, "--uneven", "--steps", 1, "--rate", 0)
    # All 16 rows are in the one step: 4 rows, 2 micro-batches, 2 ranks.
    torch.manual_seed(0)
    expected = token_mean(models.llama(), uneven_rows())
    assert (first["losses"][0] + second["losses"][0]) / 2 == pytest.approx(expected, rel=1e-4)
    assert first["losses"] != second["losses"]
    assert first["logged"][0]["loss"] == pytest.approx(expected, rel=1e-3)


def test_ranks_listen_for_peers_from_elsewhere_and_keep_a_log(tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_ports()}"
    first, second = torchrun(tmp_path, "--listen", address, "--keep", tmp_path / "run", "--steps", 2)
    assert first["digest"] == second["digest"]
    for folder in (tmp_path / "run", tmp_path / "run" / "rank-1"):
        assert log.read(folder / LOG_NAME).digest == (4, bytes.fromhex(first["digest"]))


def test_a_failure_of_the_first_rank_is_told_by_all(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOG_NAME).write_bytes(b"not a gradient log at all")
    said = torchrun(tmp_path, "--keep", tmp_path / "run", fails=True)
    assert said[0]["error"] in ("LogError", "LogDamagedError")
    assert said[1]["error"] == "SwarmError"
    assert said[1]["text"] == "rank 0 could not open the run: " + said[0]["text"]
