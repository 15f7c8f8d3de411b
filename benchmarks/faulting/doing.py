"""Carries out the actions of a schedule, and undoes them when their time is over."""

from __future__ import annotations

import heapq
import json
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

from faulting.history import History
from faulting.members import Members
from faulting.network import Network
from faulting.schedule import Action, Kind


@dataclass
class Doing:
    """What actions act on; ``door`` is the socket that the hostile member takes orders at."""

    members: Members
    network: Network
    history: History
    door: Path
    kills: int = 0
    _undo: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    def do(self, action: Action) -> None:
        """Do it, and note whether there was anything to do it to."""
        done = True
        match action.kind:
            case Kind.KILL:
                done = self.members.kill(f"peer{action.peers[0]}", action)
                self.kills += done
            case Kind.KILL_RELAY:
                killed = [self.members.kill(f"relay{relay}", action) for relay in action.relays]
                done = any(killed)
            case Kind.STOP:
                done = self._stop(action)
            case Kind.HOSTILE:
                self._misbehave(action)
            case _:
                for peer in action.peers:
                    self._disturb(action, peer)
        what = {"kind": action.kind, "how": action.how, "seconds": action.seconds}
        self.history.note("action", done=done, peers=action.peers, relays=action.relays, **what)

    def due(self) -> float | None:
        """When the next action is to be undone."""
        return self._undo[0][0] if self._undo else None

    def undo(self, until: float) -> None:
        """Undo whatever is due until then."""
        while self._undo and self._undo[0][0] <= until:
            heapq.heappop(self._undo)[2]()

    def _later(self, action: Action, undo: Callable[[], None]) -> None:
        heapq.heappush(self._undo, (time.monotonic() + action.seconds, next(self._order), undo))

    def _stop(self, action: Action) -> bool:
        whos = [f"peer{n}" for n in action.peers] + [f"relay{n}" for n in action.relays]
        pids = [pid for who in whos if (pid := self.members.signal(who, signal.SIGSTOP)) is not None]
        for pid in pids:
            self._later(action, partial(self.members.fleet.signal, pid, signal.SIGCONT))
        return bool(pids)

    def _misbehave(self, action: Action) -> None:
        order = {"how": action.how, "amount": int(action.amount), "relay": action.relays[0]}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.sendto(json.dumps(order).encode(), str(self.door))

    def _disturb(self, action: Action, peer: int) -> None:
        net = self.network
        if action.kind is Kind.NARROW:
            net.narrow(peer, action.amount)
            self._later(action, partial(net.widen, peer))
        for relay in action.relays:
            match action.kind:
                case Kind.PART:
                    net.part(action.how, peer, relay)
                    self._later(action, partial(net.heal, action.how, peer, relay))
                case Kind.CUT:
                    net.tell("reset", peer, relay)
                case Kind.SLOW:
                    net.tell("delay", peer, relay, action.amount)
                    self._later(action, partial(net.tell, "delay", peer, relay))
                case Kind.CORRUPT:
                    net.tell("corrupt", peer, relay, action.amount)
