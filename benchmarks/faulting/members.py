"""Peers and relays over all their lives: starting, dying, what becomes of their folders meanwhile."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faulting.disk import SmallDisk
from faulting.fleet import Fleet
from faulting.history import History
from faulting.schedule import Action, After, Kind

RESTART = 0.5
"""Seconds after which a process that ended by itself is started again."""

FILLING = 20.0
"""Seconds for which a peer with a full disk is not killed, so that it may notice."""


@dataclass
class Member:
    """A peer or relay; ``pid`` is that of its process, if there is one, ``action`` why that was killed."""

    who: str
    role: str
    folder: Path
    order: dict[str, Any]
    life: int = 0
    pid: int | None = None
    action: Action | None = None
    due: float | None = None
    started: float = 0.0
    full: bool = False
    room: int | None = None
    disk: SmallDisk | None = None
    done: bool = False
    helper: int | None = None


@dataclass
class Members:
    """All peers and relays of a run; ``mounting`` says whether disks can be mounted."""

    fleet: Fleet
    history: History
    mounting: bool
    all: dict[str, Member] = field(default_factory=dict)

    def add(self, member: Member) -> None:
        """Take one in and start it."""
        self.all[member.who] = member
        self._start(member)

    def kill(self, who: str, action: Action) -> bool:
        """SIGKILL a member's process, if there is one; it comes back as the action has it."""
        member = self.all[who]
        filling = member.full and time.monotonic() < member.started + FILLING
        if member.pid is None or member.action is not None or (filling and action.at > 0):
            return False
        member.action = action
        self.fleet.signal(member.pid, signal.SIGKILL)
        return True

    def signal(self, who: str, what: signal.Signals) -> int | None:
        """Send another signal to a member's process; its number, if there is one."""
        member = self.all[who]
        if member.pid is not None:
            self.fleet.signal(member.pid, what)
        return member.pid

    def attend(self, finishing: bool = False) -> None:
        """Note who has ended, and start again whoever is due."""
        while self.fleet.ends:
            pid, code = self.fleet.ends.popleft()
            for member in self.all.values():
                if pid == member.pid:
                    self._ended(member, code, finishing)
                elif pid == member.helper:
                    member.helper = None
                    self.history.note("tore", who=member.who, code=code)
        for member in self.all.values():
            if member.due is not None and member.helper is None and time.monotonic() >= member.due:
                self._start(member)

    def enlarge_disks(self) -> None:
        """Restart whoever has a full disk and has not noticed yet."""
        for member in self.all.values():
            if member.full and member.pid is not None:
                self.kill(member.who, Action(0.0, Kind.KILL))

    def unmount(self) -> None:
        """Unmount all disks, when no process is left."""
        for member in self.all.values():
            self._enlarge(member)

    def _enlarge(self, member: Member) -> None:
        member.room = None
        if member.disk is not None:
            member.disk.grow()
            member.disk = None

    def _start(self, member: Member) -> None:
        member.due = None
        member.life += 1
        member.started = time.monotonic()
        order = {**member.order, "asked": member.started, "room": member.room}
        self.history.note("start", who=member.who, life=member.life, full=member.full)
        member.pid = self.fleet.start(member.role, member.who, member.life, folder=str(member.folder), **order)

    def _ended(self, member: Member, code: int, finishing: bool) -> None:
        action, member.pid, member.action = member.action, None, None
        full, member.full = member.full, False
        killed = action is not None and code == -signal.SIGKILL
        self.history.note("end", who=member.who, life=member.life, code=code, killed=killed, full=full)
        self._enlarge(member)
        if code == 0 and finishing:
            member.done = True
            return
        member.due = time.monotonic() + (action.seconds if action is not None else RESTART)
        if action is not None:
            self._damage(member, action)

    def _damage(self, member: Member, action: Action) -> None:
        there = any(member.folder.glob("*.sslog"))
        match action.how:
            case After.LOST:
                shutil.rmtree(member.folder, ignore_errors=True)
                self.history.note("lost", who=member.who)
            case After.FULL if there:
                member.full = True
                self._fill(member, int(action.amount))
            case After.TORN | After.ZEROS if there:
                zeros = action.how == After.ZEROS
                words = {"folder": str(member.folder), "amount": int(action.amount), "zeros": zeros}
                member.helper = self.fleet.start("tear", member.who, member.life, **words)

    def _fill(self, member: Member, amount: int) -> None:
        """Leave a peer little room: on a disk of its own, or for each of its files."""
        if self.mounting and amount % 2:
            member.disk = SmallDisk(member.folder, amount % 3)
        else:
            member.room = amount + sum(file.stat().st_size for file in member.folder.glob("*.sslog"))
