"""A peer whose losses are not finite: it abstains, everybody goes on, and replicas stay identical."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from peer_process import small_model
from shared_seed import codec, log
from shared_seed.folder import LOG_NAME
from shared_seed.replay import rebuild
from shared_seed.swarm.zmq import free_ports

SCRIPT = Path(__file__).with_name("peer_process.py")


def last_event(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=120)
    events: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    return events[-1]


def test_a_peer_whose_losses_are_not_finite_abstains_and_moves_nobody(tmp_path: Path) -> None:
    port = free_ports()
    words = (sys.executable, str(SCRIPT), "--rounds", "12", "--start-with", "2", "--deadline", "20")
    first, second = (
        subprocess.Popen(
            [*words, "--number", str(n), "--folder", str(tmp_path / str(n)), *more],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n, more in (
            (0, ["--listen", f"tcp://127.0.0.1:{port}"]),
            (1, ["--join", f"tcp://127.0.0.1:{port}", "--broken", "nan", "inf"]),
        )
    )
    ends = [last_event(process) for process in (first, second)]
    assert [end["event"] for end in ends] == ["finished"] * 2, ends
    assert ends[0]["digest"] == ends[1]["digest"]
    contents = log.read(tmp_path / "0" / LOG_NAME)
    abstained = [m for m in contents.messages if all(map(codec.is_abstention, m.codes))]
    assert len({message.stream for message in abstained}) == 1
    assert sorted(message.round for message in abstained) == [2, 5, 8, 11]
    assert rebuild(small_model(), contents).digest().hex() == ends[0]["digest"]
