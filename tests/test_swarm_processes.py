"""Real processes, real sockets, real SIGKILL: whatever happens, everybody ends with the same bits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from peer_process import small_model
from shared_seed import log
from shared_seed.folder import LOG_NAME
from shared_seed.replay import rebuild
from shared_seed.swarm.zmq import free_ports

SCRIPT = Path(__file__).with_name("peer_process.py")


class Peer:
    """A child process and the events that it prints."""

    def __init__(self, number: int, folder: Path | None, *options: object) -> None:
        where = ["--folder", str(folder)] if folder else []
        words = [sys.executable, str(SCRIPT), "--number", str(number), *where, *map(str, options)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def events(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def until(self, **wanted: object) -> dict[str, Any]:
        for event in self.events():
            if wanted.items() <= event.items():
                return event
        raise AssertionError(f"the peer ended (exit code {self.process.wait()}) without {wanted}")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        self.process.send_signal(how)
        return self.end()

    def end(self) -> int:
        code = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


Start = Callable[..., Peer]


@pytest.fixture
def start() -> Iterator[Start]:
    peers: list[Peer] = []

    def starter(number: int, folder: Path | None, *options: object) -> Peer:
        peers.append(Peer(number, folder, *options))
        return peers[-1]

    yield starter
    for peer in peers:
        if peer.process.poll() is None:
            peer.kill()
        else:
            peer.end()


@pytest.fixture
def address() -> str:
    return f"tcp://127.0.0.1:{free_ports()}"


def digest_of(peer: Peer) -> str:
    finished = peer.until(event="finished")
    assert set(finished["others"].values()) <= {finished["digest"]}
    assert peer.end() == 0
    return str(finished["digest"])


def replayed(folder: Path) -> str:
    """The digest that a fresh model gets from the log, which must also be the one that the log states."""
    contents = log.read(folder / LOG_NAME)
    replica = rebuild(small_model(), contents)
    assert contents.digest == (len(contents.messages), replica.digest())
    return replica.digest().hex()


def run_three(start: Start, address: str, folder: Path) -> set[str]:
    first = start(0, folder / "0", "--listen", address, "--start-with", 3)
    others = [start(n, folder / str(n), "--join", address) for n in (1, 2)]
    return {digest_of(peer) for peer in (first, *others)}


def test_three_peers_and_their_logs_agree_and_a_calm_run_is_reproducible(
    start: Start, address: str, tmp_path: Path
) -> None:
    digests = run_three(start, address, tmp_path / "a")
    assert len(digests) == 1
    assert {replayed(tmp_path / "a" / str(n)) for n in range(3)} == digests
    assert run_three(start, f"tcp://127.0.0.1:{free_ports()}", tmp_path / "b") == digests


def test_a_peer_that_starts_after_100_steps_ends_with_the_same_bits(
    start: Start, address: str, tmp_path: Path
) -> None:
    common = ["--rounds", 400, "--pause", 0.04, "--deadline", 1]
    first = start(0, tmp_path / "0", "--listen", address, *common)
    first.until(event="step", round=100)
    late = start(1, tmp_path / "1", "--join", address, *common)
    assert late.until(event="began")["round"] > 100
    assert late.until(event="step")["round"] > 100
    assert digest_of(first) == digest_of(late) == replayed(tmp_path / "0") == replayed(tmp_path / "1")


@pytest.mark.parametrize("victim", [0, 2], ids=["the listening peer", "a joined peer"])
def test_a_peer_killed_and_restarted_ends_with_the_same_bits(
    start: Start, address: str, tmp_path: Path, victim: int
) -> None:
    common = ["--rounds", 500, "--pause", 0.05, "--deadline", 1]
    words: dict[int, list[object]] = {
        0: ["--listen", address, "--start-with", 3, *common],
        1: ["--join", address, *common],
        2: ["--join", address, *common],
    }
    peers = {n: start(n, tmp_path / str(n), *words[n]) for n in words}
    peers[victim].until(event="step", round=50)
    assert peers[victim].kill() == -signal.SIGKILL
    peers[victim] = start(victim, tmp_path / str(victim), *words[victim])
    digests = {digest_of(peer) for peer in peers.values()}
    assert len(digests) == 1
    assert {replayed(tmp_path / str(n)) for n in range(3)} == digests
    streams = {m.stream for m in log.read(tmp_path / "0" / LOG_NAME).messages}
    assert len(streams) == 4, "the restarted peer writes a stream of its own"


@pytest.mark.parametrize("rule", ["clip", "trimmed"])
def test_rounds_that_messages_come_late_to_end_with_the_same_bits(
    start: Start, address: str, tmp_path: Path, rule: str
) -> None:
    common = ["--rounds", 500, "--pause", 0.05, "--deadline", 1, "--aggregation", rule]
    words: dict[int, list[object]] = {
        0: ["--listen", address, "--start-with", 3, *common],
        1: ["--join", address, *common],
        2: ["--join", address, *common],
    }
    peers = {n: start(n, tmp_path / str(n), *words[n]) for n in words}
    peers[1].until(event="step", round=30)
    peers[1].process.send_signal(signal.SIGSTOP)
    peers[0].until(event="step", late=["p1"])
    peers[1].process.send_signal(signal.SIGCONT)
    peers[2].until(event="step", round=100)
    assert peers[2].kill() == -signal.SIGKILL
    peers[2] = start(2, tmp_path / "2", *words[2])
    digests = {digest_of(peer) for peer in peers.values()}
    assert len(digests) == 1
    assert {replayed(tmp_path / str(n)) for n in range(3)} == digests
    assert log.read(tmp_path / "2" / LOG_NAME).manifest.aggregation.kind == rule


def test_free_running_peers_agree(start: Start, address: str, tmp_path: Path) -> None:
    first = start(0, tmp_path / "0", "--listen", address, "--start-with", 2, "--free", "--rounds", 200)
    second = start(1, tmp_path / "1", "--join", address, "--pause", 0.02)
    assert digest_of(first) == digest_of(second) == replayed(tmp_path / "1")


def test_a_silent_peer_costs_one_deadline_and_catches_up(start: Start, address: str, tmp_path: Path) -> None:
    common = ["--rounds", 200, "--pause", 0.02, "--deadline", 1]
    first = start(0, tmp_path / "0", "--listen", address, "--start-with", 2, *common)
    second = start(1, None, "--join", address, *common)
    second.until(event="step", round=20)
    second.process.send_signal(signal.SIGSTOP)
    assert first.until(event="step", late=["p1"])["peers"] == 1
    assert first.until(event="step")["late"] == []
    second.process.send_signal(signal.SIGCONT)
    assert digest_of(first) == digest_of(second)


def test_ctrl_c_leaves_a_folder_that_goes_on(start: Start, tmp_path: Path) -> None:
    peer = start(0, tmp_path, "--rounds", 100, "--pause", 0.02)
    peer.until(event="step", round=30)
    assert peer.kill(signal.SIGINT) != 0
    before = log.read(tmp_path / LOG_NAME)
    assert before.torn == 0
    again = start(0, tmp_path, "--rounds", 100)
    assert again.until(event="began")["round"] == max(m.round for m in before.messages) + 1
    assert digest_of(again) == replayed(tmp_path)


def test_a_joiner_with_another_base_model_is_told_which_parameter_differs(start: Start, address: str) -> None:
    first = start(0, None, "--listen", address, "--rounds", 10_000, "--pause", 0.05)
    first.until(event="began")
    stranger = start(1, None, "--join", address, "--model-seed", 7)
    error = stranger.until(event="error")
    assert error["kind"] == "ManifestMismatchError"
    assert "'0.weight'" in error["text"]
    assert "same base model" in error["text"]
    assert stranger.end() == 1


def test_a_port_in_use_is_refused(start: Start, address: str) -> None:
    start(0, None, "--listen", address, "--rounds", 10_000, "--pause", 0.05).until(event="began")
    second = start(1, None, "--listen", address)
    error = second.until(event="error")
    assert error["kind"] == "AddressInUseError"
    assert "is in use" in error["text"]
    assert second.end() == 1


def test_nobody_at_the_address(start: Start, tmp_path: Path) -> None:
    lonely = start(
        1, tmp_path / "x", "--listen", "tcp://127.0.0.1:0", "--start-with", 2, "--join", "tcp://nowhere"
    )
    error = lonely.until(event="error")
    assert error["kind"] == "RecipeError"
    assert "tcp://HOST:PORT" in error["text"]
    assert not (tmp_path / "x").exists()
