"""Relays and orders, with real processes: peers that only dial out, a relay that is killed, a banned peer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from peer_process import small_model
from shared_seed import history, identity, log
from shared_seed.admission import Introduction
from shared_seed.folder import LOG_NAME
from shared_seed.identity import Key
from shared_seed.log import Contents
from shared_seed.replay import rebuild
from shared_seed.swarm.zmq import free_ports

SCRIPT = Path(__file__).with_name("peer_process.py")
CLI = [sys.executable, "-m", "shared_seed"]

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process, with another key if one is given."""
    started: list[subprocess.Popen[str]] = []

    def starter(*words: object, key: Path | None = None) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if key is not None:
            environment[identity.VARIABLE] = str(key)
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
        started.append(subprocess.Popen([str(word) for word in words], **pipes))
        return started[-1]

    yield starter
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def relay(start: Start, port: int, folder: Path, *options: object) -> subprocess.Popen[str]:
    words = ("--listen", f"tcp://127.0.0.1:{port}", "--status", "0", "-o", folder, *options)
    return start(*CLI, "relay", *words)


def peer(start: Start, number: int, folder: Path, *options: object, key: Path | None = None) -> Any:
    words = ("--number", number, "--folder", folder, *options)
    return start(sys.executable, SCRIPT, *words, key=key)


def line(process: subprocess.Popen[str], beginning: str) -> str:
    """The rest of the next line that begins so."""
    assert process.stdout is not None
    heard = []
    for text in process.stdout:
        heard.append(text)
        if text.startswith(beginning):
            return text[len(beginning) :].strip()
    raise AssertionError(f"ended without {beginning!r}: {heard}")


def event(process: subprocess.Popen[str], **wanted: object) -> dict[str, Any]:
    assert process.stdout is not None
    heard = []
    for text in process.stdout:
        heard.append(text)
        if text.startswith("{"):
            found: dict[str, Any] = json.loads(text)
            if wanted.items() <= found.items():
                return found
    raise AssertionError(f"ended without {wanted}: {heard[-3:]}")


def replayed(folder: Path) -> str:
    return rebuild(small_model(), log.read(folder / LOG_NAME)).digest().hex()


def status(address: str, page: str = "status.json") -> str:
    with urllib.request.urlopen(address + page, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


COMMON = ("--rounds", 120, "--pause", 0.1, "--deadline", 2)


def test_peers_that_only_dial_out_meet_at_a_relay_which_keeps_the_run(start: Start, tmp_path: Path) -> None:
    port = free_ports()
    passing = relay(start, port, tmp_path / "relay")
    line(passing, "relay     waiting for a peer")
    via = f"tcp://127.0.0.1:{port}"
    first = peer(start, 0, tmp_path / "0", "--via", via, "--start-with", 2, *COMMON)
    address = line(passing, "address")
    shown = line(passing, "status")
    second = peer(start, 1, tmp_path / "1", "--join", address, *COMMON)
    event(first, event="step", round=20)
    now = json.loads(status(shown))
    assert {p["name"]: p["state"] for p in now["peers"]} == {"p0": "training", "p1": "training"}
    assert now["live_peers"] == 2
    assert now["messages"] >= 40
    assert "shared_seed_live_peers 2.0" in status(shown, "metrics")
    page = status(shown, "")
    assert "<h2>2 peers</h2>" in page
    assert now["run"] in page
    passing.send_signal(signal.SIGKILL)
    passing.wait()
    passing = relay(start, port, tmp_path / "relay")
    line(passing, "address")
    digests = {event(process, event="finished")["digest"] for process in (first, second)}
    passing.send_signal(signal.SIGINT)
    assert passing.wait() == 0
    assert len(digests) == 1
    assert {replayed(tmp_path / name) for name in ("0", "1", "relay")} == digests
    assert (tmp_path / "0" / LOG_NAME).read_bytes() == (tmp_path / "1" / LOG_NAME).read_bytes()


def without(contents: Contents, key: bytes) -> str:
    """The digest of the weights that the others' messages give."""
    archive = history.archive_of(contents)
    kept = [
        signed
        for signed in contents.signed
        if (known := archive.introduction(signed.message.stream)) is None or known.key != key
    ]
    known = [statement for statement in contents.statements if isinstance(statement, Introduction)]
    rest = Contents(contents.manifest, kept, signature=contents.signature, statements=known)
    return rebuild(small_model(), rest).digest().hex()


def test_the_owner_takes_out_a_peer_exactly_and_brings_it_back(start: Start, tmp_path: Path) -> None:
    port = free_ports()
    other = tmp_path / "key"
    banned = identity.load(other).public
    listen = f"tcp://127.0.0.1:{port}"
    common = ("--rounds", 800, "--pause", 0.1, "--deadline", 2)
    first = peer(start, 0, tmp_path / "0", "--listen", listen, "--start-with", 2, *common)
    owner = Key(identity.load().seed).public
    address = f"tcp://{identity.show(owner)}@127.0.0.1:{port}"
    second = peer(start, 1, tmp_path / "1", "--join", address, *common, key=other)
    event(first, event="step", round=30)
    stranger = start(*CLI, "ban", identity.show(owner), "--run", address, key=other)
    assert stranger.wait() == 1
    assert stranger.stdout is not None
    assert "only the owner of the run" in stranger.stdout.read()
    order = start(*CLI, "ban", identity.show(banned), "--run", address)
    assert order.wait() == 0, order.stdout.read() if order.stdout else ""
    assert "has banned this machine's key" in event(second, event="error")["text"]
    digest = event(first, event="finished")["digest"]
    assert first.wait() == 0
    contents = log.read(tmp_path / "0" / LOG_NAME)
    assert any(m.stream.peer != contents.messages[0].stream.peer for m in contents.messages)
    assert digest == replayed(tmp_path / "0") == without(contents, banned)
    order = start(*CLI, "unban", identity.show(banned), "--run", tmp_path / "0")
    assert order.wait() == 0
    whole = replayed(tmp_path / "0")
    assert whole != digest
    assert whole == without(contents, b"")
