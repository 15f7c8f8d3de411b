"""Real processes of an ordinary Lightning script: launched, killed, resumed, joined."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shared_seed.swarm.zmq import free_ports

SCRIPT = Path(__file__).with_name("lightning_script.py")
PYTHON = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]


def start(out: Path, *options: Any, command: Sequence[str] = PYTHON, **environment: str) -> subprocess.Popen[str]:
    words = [*command, str(SCRIPT), str(out), *(str(option) for option in options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def end(process: subprocess.Popen[str], code: int = 0) -> str:
    out, _ = process.communicate(timeout=200)
    assert process.returncode == code, out
    return out


def result(out: Path, number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{number}.json").read_text())
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An uninterrupted run of one process."""
    out = tmp_path_factory.mktemp("alone")
    end(start(out))
    return result(out)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two processes, its checkpoints beside it."""
    out = tmp_path_factory.mktemp("pair")
    end(start(out, "--devices", 2, "--far"))
    return out


def assert_alike(*found: dict[str, Any]) -> None:
    assert len({one["digest"] for one in found}) == 1
    assert all(one["bits"] == found[0]["bits"] for one in found)


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(alone: dict[str, Any], tmp_path: Path) -> None:
    end(start(tmp_path, "--die-after", 13), -signal.SIGKILL)
    end(start(tmp_path, "--resume", tmp_path / "checkpoints" / "step=8.ckpt"))
    assert_alike(alone, result(tmp_path))
    assert result(tmp_path)["gradients"] == 4 * 24
    assert alone["optimizer_state"] == 0


def test_devices_are_peers_with_a_shard_each_and_identical_weights(pair: Path) -> None:
    first, second = result(pair, 0), result(pair, 1)
    assert_alike(first, second)
    assert first["others"] == {"peer-1": first["digest"]}
    assert first["gradients"] == 4 * 48
    assert first["streams"] == 2
    # Logged with sync_dist, so the same on both.
    assert first["loss"] == second["loss"]


def test_devices_that_are_resumed_end_with_the_same_bits(pair: Path, tmp_path: Path) -> None:
    end(start(tmp_path, "--devices", 2, "--far", "--resume", pair / "checkpoints" / "step=8.ckpt"))
    assert_alike(result(pair, 0), result(tmp_path, 0), result(tmp_path, 1))


def test_under_torchrun_every_rank_is_a_peer(pair: Path, tmp_path: Path) -> None:
    command = [*TORCHRUN, str(free_ports())]
    end(start(tmp_path, "--devices", 2, "--far", command=command))
    assert_alike(result(pair, 0), result(tmp_path, 0), result(tmp_path, 1))


def test_under_slurm_every_task_is_a_peer(tmp_path: Path) -> None:
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(free_ports()),
    }
    tasks = [
        start(tmp_path, "--devices", 2, **job, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in (0, 1)
    ]
    for task in tasks:
        end(task)
    assert_alike(result(tmp_path, 0), result(tmp_path, 1))
    assert result(tmp_path, 0)["streams"] == 2


def swarm(out: Path, address: str, *options: Any) -> None:
    """Two scripts that know of each other by an address alone."""
    first = start(out / "first", "--listen", address, "--number", 0, *options, *resume(out / "first", options))
    second = start(out / "second", "--join", address, "--number", 1, *options, *resume(out / "second", options))
    code = -signal.SIGKILL if "--die-after" in options else 0
    end(first, code)
    end(second, code)


def resume(out: Path, options: Sequence[Any]) -> list[Any]:
    checkpoint = out / "checkpoints" / "step=8.ckpt"
    return ["--resume", checkpoint] if checkpoint.exists() else []


def test_two_scripts_that_join_are_killed_and_resumed_end_with_the_same_bits(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    swarm(whole, f"tcp://127.0.0.1:{free_ports()}")
    expected = result(whole / "first", 0)
    assert_alike(expected, result(whole / "second", 1))
    assert expected["others"] == {"number 1": expected["digest"]}
    swarm(parts, f"tcp://127.0.0.1:{free_ports()}", "--die-after", 12)
    assert not (parts / "first" / "0.json").exists()
    swarm(parts, f"tcp://127.0.0.1:{free_ports()}")
    assert_alike(expected, result(parts / "first", 0), result(parts / "second", 1))
