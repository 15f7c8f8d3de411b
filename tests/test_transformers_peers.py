"""Trainers that find each other by address: no torchrun, each with a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared_seed.swarm.zmq import free_ports

SCRIPT = Path(__file__).with_name("trainer_process.py")


def train(
    folder: Path, *options: object, resume: int | None = None, weights: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """What two Trainers report, of which the second joins the first, each with its own dtype."""
    address = f"tcp://127.0.0.1:{free_ports()}"
    started = []
    for number, place in enumerate((("--listen", address), ("--join", address))):
        own = folder / str(number)
        own.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, SCRIPT, "--folder", own, "--number", number, *place, "--start-with", 2, *options]
        if resume is not None:
            words += ["--resume", own / "out" / f"checkpoint-{resume}"]
        words += ["--weights", weights[number]] if weights else []
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        started.append(subprocess.Popen([str(word) for word in words], env=environment, stdout=subprocess.DEVNULL))
    try:
        assert [process.wait(timeout=200) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [json.loads((folder / str(number) / "rank-0.json").read_text()) for number in range(2)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return train(tmp_path_factory.mktemp("straight"), "--save", 3)


def test_two_trainers_end_with_the_same_bits(straight: list[dict[str, Any]]) -> None:
    first, second = straight
    assert first["digest"] == second["digest"]
    assert first["others"] == {"peer-1": second["digest"]}
    assert first["peers"] == second["peers"] == [2] * 6
    assert all(entry["peers"] == 2 and entry["bytes_received"] > 0 for entry in first["logged"])
    assert [entry["bytes_sent"] for entry in first["logged"]] == sorted(e["bytes_sent"] for e in first["logged"])


def test_two_trainers_that_both_resume_end_with_the_bits_of_a_run_without_a_stop(
    tmp_path: Path, straight: list[dict[str, Any]]
) -> None:
    train(tmp_path, "--save", 3, "--steps", 3)
    resumed = train(tmp_path, "--save", 3, resume=3)
    assert [peer["digest"] for peer in resumed] == [peer["digest"] for peer in straight]
    assert [peer["losses"] for peer in resumed] == [peer["losses"][3:] for peer in straight]
    assert [peer["streams"] for peer in resumed] == [2, 2]


def test_a_trainer_with_bfloat16_weights_and_one_with_float32_end_with_the_same_bits(tmp_path: Path) -> None:
    first, second = train(tmp_path, weights=("bfloat16", "float32"))
    assert first["digest"] == second["digest"]
    assert first["peers"] == second["peers"] == [2] * 6
