"""Starts a swarm, lets everything go wrong that the schedule says, and lets the survivors finish."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from faulting import ours
from faulting.disk import SmallDisk
from faulting.doing import Doing
from faulting.fleet import Fleet, FleetError
from faulting.history import Event, History, Tails
from faulting.members import Member, Members
from faulting.network import Network, network
from faulting.schedule import Action, Plan, schedule

START, FINISH = 120.0, 240.0
"""Seconds that all may take to begin, and after the last fault to agree."""

HEARD = 3.0
"""Seconds that all are left in peace before they are to finish."""

TELL = 10.0
"""Seconds between two lines of progress."""


@dataclass(frozen=True)
class Options:
    """How to run a plan: ``net`` as in :func:`network`, ``pause`` seconds between a peer's steps."""

    plan: Plan
    net: str = "auto"
    lockstep: bool = True
    pause: float = 2.0
    deadline: float = 2.0


@dataclass(frozen=True)
class Found:
    """What a run was and what all its processes noted, in order of time; ``cores`` were busy on average."""

    options: Options
    actions: list[Action]
    events: list[Event]
    net: str
    loss: str
    mounting: bool
    seconds: float
    cores: float


class Runner:
    """One run in a folder of its own."""

    def __init__(self, options: Options, work: Path, tell: Callable[[str], None]) -> None:
        self.options, self.work, self.tell = options, work, tell
        self.plan = options.plan
        self.actions = schedule(self.plan)
        for name in ("histories", "keys"):
            (work / name).mkdir()
        self.tails = Tails(work / "histories")
        self.history = History(work / "histories" / "runner.jsonl")
        self.finish = work / "finish"
        self.network: Network
        self.fleet: Fleet
        self.members: Members
        self.doing: Doing

    def run(self) -> Found:
        """Do it; whatever happens, no process, namespace or mount is left.

        Raises:
            FleetError: a process that all depend on has failed, or not all have begun.
            CannotError: the network that was asked for cannot be made.
        """
        with ExitStack() as stack:
            stack.callback(self.history.close)
            stack.callback(self.tails.close)
            # Neither in the run's folder nor in TMPDIR: a Unix socket's path has 107 bytes at most.
            doors = Path(stack.enter_context(TemporaryDirectory(prefix="faults-", dir="/tmp")))
            self.network = network(self.options.net, self.plan.peers, self.plan.relays, doors / "proxy.socket")
            stack.callback(self.network.close)
            mounting = SmallDisk.possible()
            self.fleet = Fleet(self.work)
            self.members = Members(self.fleet, self.history, mounting)
            stack.callback(self.members.unmount)
            stack.callback(self.fleet.close)
            self.doing = Doing(self.members, self.network, self.history, doors / "hostile.socket")
            began = time.monotonic()
            self._begin()
            self._perform()
            self._heal()
            self._finish()
            seconds = time.monotonic() - began
            for pid in self._servants:
                self.fleet.signal(pid, signal.SIGKILL)
                self.fleet.join(pid)
            cores = self.fleet.used / seconds
            self._replay()
            self.tails.read()
        return Found(
            self.options,
            self.actions,
            sorted(self.tails.events, key=lambda event: event["at"]),
            self.network.name,
            self.network.loss,
            mounting,
            seconds,
            cores,
        )

    # The parts of a run

    def _begin(self) -> None:
        plan, net, hub = self.plan, self.network, self.network.namespace()
        founded = str(self.work / "founded")
        common: dict[str, Any] = {"founded": founded, "lockstep": self.options.lockstep}
        self._wait_for(self.fleet.start("found", "founder", **common), "founder")
        control = str(self.network.control)
        proxy = self.fleet.start("proxy", "proxy", lines=net.lines(), control=control, namespace=hub)
        whos = [f"relay{number}" for number in range(plan.relays)]
        keys = [ours.make_key(self.work / "keys" / who) for who in whos]
        for number, who in enumerate(whos):
            order = {**common, "listen": net.address(number), "namespace": hub}
            self.members.add(Member(who, "relay", self.work / who, order))
        door = str(self.doing.door)
        dialled = [net.address(relay, key=keys[relay]) for relay in range(plan.relays)]
        words: dict[str, Any] = {"relays": dialled, "founded": founded, "control": door}
        hostile = self.fleet.start("hostile", "hostile", namespace=hub, **words)
        self._servants = (proxy, hostile)
        doors = (self.network.control, self.doing.door)
        self._until(lambda: all(path.exists() for path in doors), START, "proxy and hostile member")
        for peer in range(plan.peers):
            order = {
                **common,
                "join": [net.address(relay, peer, keys[relay]) for relay in range(plan.relays)],
                "namespace": net.namespace(peer),
                "pause": self.options.pause,
                "deadline": self.options.deadline,
                "finish": str(self.finish),
                "seed": 1000 * plan.seed + peer,
            }
            self.members.add(Member(f"peer{peer}", "peer", self.work / f"peer{peer}", order))
        self._until(self._all_have_begun, START, "all peers to begin")
        self.tell(f"{plan.peers} peers have begun; network: {net.name}")

    def _perform(self) -> None:
        began = told = time.monotonic()
        for action in self.actions:
            while (left := began + action.at - time.monotonic()) > 0:
                self._attend(left)
            self.doing.do(action)
            if time.monotonic() > told + TELL:
                told = time.monotonic()
                self.tails.read()
                self.tell(f"{told - began:6.0f} s: {self.doing.kills} kills; {self.tails.summary()}")
        while (left := began + self.plan.seconds - time.monotonic()) > 0:
            self._attend(left)

    def _heal(self) -> None:
        self.history.note("healing")
        self.doing.undo(math.inf)
        self.members.enlarge_disks()
        self._until(self._all_have_begun, START, "all peers to come back")
        heard = time.monotonic() + HEARD
        self._until(lambda: time.monotonic() > heard and self._all_have_begun(), START, "all peers to stay")

    def _finish(self) -> None:
        self.history.note("finishing")
        self.finish.touch()
        self._until(lambda: all(peer.done for peer in self._peers()), FINISH, "all peers to finish", True)
        for member in self.members.all.values():
            self.members.signal(member.who, signal.SIGTERM)
        self._until(lambda: all(m.done for m in self.members.all.values()), 20, "the relays to end", True)

    def _replay(self) -> None:
        for member in self.members.all.values():
            if any(member.folder.glob("*.sslog")):
                folder = str(member.folder)
                self._wait_for(self.fleet.start("replay", member.who, member.life, folder=folder), member.who)

    # Time

    def _attend(self, seconds: float, finishing: bool = False) -> None:
        self.members.attend(finishing)
        dues = [member.due for member in self.members.all.values()] + [self.doing.due()]
        until = min([time.monotonic() + min(seconds, 0.1), *(due for due in dues if due is not None)])
        self.fleet.wait(until - time.monotonic())
        self.members.attend(finishing)
        self.doing.undo(time.monotonic())

    def _until(self, done: Callable[[], bool], seconds: float, what: str, finishing: bool = False) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise FleetError(f"waited {seconds:g} s for {what}; {self._missing()}")
            self._attend(0.1, finishing)

    def _missing(self) -> str:
        """Who has not begun, or not finished, and what they have last noted."""
        last = {event["who"]: event for event in self.tails.read() if "who" in event}
        waiting = [m for m in self.members.all.values() if not m.done and m.role == "peer"]
        return "; ".join(f"{m.who}, life {m.life}: {json.dumps(last.get(m.who))[:300]}" for m in waiting[:5])

    def _all_have_begun(self) -> bool:
        self.tails.read()
        alive = all(member.pid is not None and not member.full for member in self.members.all.values())
        return alive and all(self.tails.begun(peer.who, peer.life) for peer in self._peers())

    def _peers(self) -> list[Member]:
        return [member for member in self.members.all.values() if member.role == "peer"]

    def _wait_for(self, pid: int, who: str) -> None:
        code = self.fleet.join(pid)
        if code:
            raise FleetError(f"{who} ended with {code}:\n{(self.work / f'{who}.txt').read_text()[-2000:]}")
