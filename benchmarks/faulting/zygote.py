"""A process that has imported and compiled everything, and that all others are forked from.

A restart then takes tens of milliseconds instead of seconds. It has one thread, no socket and no ZeroMQ context,
so that a fork of it is as good as a fresh process. Orders come in as lines of JSON, what became of the children
goes out the same way. When the orders end, whatever the reason, all children are killed.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch

from faulting import ours, roles
from shared_seed import log, replay

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1


def warm_up() -> None:
    """Import and compile what peers and replays need."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder) / "run"
        model = ours.small_model()
        session = ours.open_session(model, ours.settings(folder=at))
        session.begin()
        for _ in range(2):
            ours.step(session, model, torch.Generator().manual_seed(0))
        session.finish()
        replay.rebuild(ours.small_model(), log.read(ours.log_path(at)))
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        raise RuntimeError(f"{len(threads)} threads before the first fork; expected one, or children may hang")
    gc.collect()
    gc.freeze()


def _enter_namespace(name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {name}")


class Zygote:
    """The loop that takes orders."""

    def __init__(self) -> None:
        self.children: set[int] = set()
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Serve until the orders end."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._say(event="ready")
        waiting = b""
        try:
            while True:
                ready, _, _ = select.select([0, self._read], [], [])
                if self._read in ready:
                    os.read(self._read, 4096)
                    self._reap()
                if 0 in ready:
                    data = os.read(0, 1 << 16)
                    if not data:
                        return
                    *lines, waiting = (waiting + data).split(b"\n")
                    for line in lines:
                        self._obey(json.loads(line))
        finally:
            for child in self.children:
                os.kill(child, signal.SIGKILL)

    def _say(self, **report: object) -> None:
        os.write(1, json.dumps(report).encode() + b"\n")

    def _obey(self, order: dict[str, Any]) -> None:
        if order["order"] == "signal":
            # Children stay zombies until they are reaped here, so the number is nobody else's.
            if order["pid"] in self.children:
                os.kill(order["pid"], order["signal"])
            return
        child = os.fork()
        if child == 0:
            self._become(order)
        self.children.add(child)
        self._say(event="started", pid=child, who=order["who"])

    def _become(self, order: dict[str, Any]) -> None:
        """Be what the order says; never returns."""
        code = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self._read)
            os.close(self._write)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if order["namespace"]:
                _enter_namespace(order["namespace"])
            ours.use_key(Path(order["key"]))
            code = roles.ROLES[order["role"]](order)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self.children:
            child, status, usage = os.wait4(-1, os.WNOHANG)
            if child == 0:
                return
            self.children.discard(child)
            used = usage.ru_utime + usage.ru_stime
            self._say(event="ended", pid=child, code=os.waitstatus_to_exitcode(status), used=used)


if __name__ == "__main__":
    warm_up()
    Zygote().run()
