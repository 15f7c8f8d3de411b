"""Several peers on this machine: real processes, one display."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shared_seed import card, report
from shared_seed.collection import Request
from shared_seed.errors import SharedSeedError
from shared_seed.progress import Display, Event
from shared_seed.recipe import Recipe
from shared_seed.summary import Summary
from shared_seed.swarm.zmq import free_ports

GRACE = 30.0
"""Seconds that a peer gets to end by itself after an interrupt."""


@dataclass
class _Peer:
    """One child process, and what it last complained of."""

    name: str
    process: subprocess.Popen[str]
    error: str = ""
    pump: threading.Thread = field(default_factory=threading.Thread)


def run_peers(request: Request, terms: Recipe, peers: int, folder: Path, options: Sequence[str]) -> Summary:
    """Run a recipe with ``peers`` processes, each with its shard of the data where the run does not assign rows.

    Args:
        request: the recipe as it is asked for.
        terms: what it says.
        peers: how many; the first listens, the others join it.
        folder: the first peer's run folder; the others get ``peers/2`` and so on inside it.
        options: further options of ``shared-seed run`` for the first peer.

    Raises:
        SharedSeedError: the first peer ended with an error; the message is its own.
    """
    address = f"tcp://127.0.0.1:{free_ports()}"
    events: queue.SimpleQueue[tuple[_Peer, Event | None]] = queue.SimpleQueue()
    first = [
        "run",
        *request.options(),
        "--listen",
        address,
        "--start-with",
        str(peers),
        "-o",
        str(folder),
        *options,
    ]
    started: list[_Peer] = []
    try:
        with Display(terms.title or request.reference) as display:
            for number in range(peers):
                where = folder if number == 0 else folder / "peers" / str(number + 1)
                words = first if number == 0 else ["join", address, "-o", str(where)]
                if terms.training.batches == "shuffled":
                    words = [*words, "--shard", f"{number + 1}/{peers}"]
                started.append(_start(number, peers, words, events))
            _watch(started, events, display)
    finally:
        _end(started)
    if started[0].process.returncode != 0:
        raise SharedSeedError(started[0].error or f"{started[0].name} ended without a word")
    return _together(folder, started)


def _start(
    number: int, peers: int, words: list[str], events: queue.SimpleQueue[tuple[_Peer, Event | None]]
) -> _Peer:
    name = f"peer {number + 1}"
    common = ["--name", name, "--number", str(number), "--progress", "json"]
    threads = str(max(1, (os.cpu_count() or 1) // peers))
    process = subprocess.Popen(
        [sys.executable, "-m", "shared_seed", *words, *common],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"},
    )
    peer = _Peer(name, process)

    def pump() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # some library's own words
            events.put((peer, event))
        process.wait()
        events.put((peer, None))

    peer.pump = threading.Thread(target=pump, name=f"pump {name}", daemon=True)
    peer.pump.start()
    return peer


def _watch(peers: list[_Peer], events: queue.SimpleQueue[tuple[_Peer, Event | None]], display: Display) -> None:
    """Show what happens until the first peer has ended, and the others after it."""
    running = len(peers)
    while running:
        peer, event = events.get()
        if event is None:
            running -= 1
            code = peer.process.returncode
            text = "done" if code == 0 else f"gone (exit code {code}) {peer.error}".rstrip()
            display.show(peer.name, {"event": "status", "text": text})
            if peer is peers[0] and code != 0:
                return
        elif event.get("event") == "error":
            peer.error = str(event["text"])
        else:
            display.show(peer.name, event)


def _end(peers: list[_Peer]) -> None:
    """Make sure that no child outlives us."""
    for peer in peers:
        if peer.process.poll() is None:
            peer.process.terminate()
    for peer in peers:
        try:
            peer.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            peer.process.kill()
            peer.process.wait()
        peer.pump.join()
        if peer.process.stdout is not None:
            peer.process.stdout.close()


def _together(folder: Path, peers: list[_Peer]) -> Summary:
    """The first peer's summary with the bytes of all and every replica's own digest."""
    own = Summary.load(folder)
    parts = {peers[0].name: own}
    for number, peer in enumerate(peers[1:], 2):
        if peer.process.returncode == 0:
            parts[peer.name] = Summary.load(folder / "peers" / str(number))
    whole = replace(
        own,
        replicas={name: part.digest for name, part in parts.items()},
        peers=len(peers),
        sent=sum(part.sent for part in parts.values()),
        received=sum(part.received for part in parts.values()),
        gradient_received=sum(part.gradient_received for part in parts.values()),
        usage=replace(
            own.usage,
            memory=max((part.usage.memory or 0 for part in parts.values()), default=0) or None,
            device_memory=max((part.usage.device_memory or 0 for part in parts.values()), default=0) or None,
        ),
    )
    whole.save(folder)
    card.write(folder)
    report.attempt(folder)
    return whole
