"""What a forked child may become."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from faulting import disk, hostile, ours, proxy
from faulting.history import History, resident
from shared_seed import log, replay
from shared_seed.errors import SharedSeedError
from shared_seed.folder import LOG_NAME
from shared_seed.session import Session

Order = dict[str, Any]

EVERY = 2.0
"""Seconds between two looks at the memory."""

PATIENCE = 60.0
"""Seconds that a peer waits for anybody to answer, then it exits with an error and is started again."""


@contextmanager
def limited(size: int | None) -> Iterator[None]:
    """Let no file grow beyond a size here: a full disk where none can be mounted."""
    if size is None:
        yield
        return
    with disk.files_of_at_most(size):
        yield


def _history(order: Order) -> History:
    return History(Path(order["history"]), who=order["who"], life=order["life"])


class _Peer:
    """One life of a peer."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.history = _history(order)
        self.folder = Path(order["folder"])
        self.finish = Path(order["finish"])
        self.seen: ours.Version = {}
        self.looked = 0.0

    def live(self) -> None:
        order = self.order
        model = ours.small_model()
        settings = ours.settings(
            join=tuple(order["join"]),
            folder=self.folder,
            name=order["who"],
            lockstep=order["lockstep"],
            deadline=order["deadline"],
            patience=PATIENCE,
        )
        chance = torch.Generator().manual_seed(order["seed"])
        session: Session | None = None
        with limited(order["room"]):
            try:
                session = ours.open_session(model, settings)
                self.seen = ours.version(session)
                session.begin()
                self._note("rejoined", seconds=time.monotonic() - order["asked"], round=session.round)
                while not self.finish.exists():
                    self._step(session, model, chance)
                    self._pause(order["pause"])
                outcome = session.finish()
                self._note(
                    "finished", digest=outcome.digest, others=outcome.others, messages=session.replica.messages
                )
            finally:
                if session is not None:
                    session.close()

    def _step(self, session: Session, model: torch.nn.Module, chance: torch.Generator) -> None:
        stream, number = ours.next_message(session)
        before = ours.version(session)
        ours.step(session, model, chance)
        kept = {s: [self.seen.get(s, 0), n] for s, n in before.items() if n > self.seen.get(s, 0)}
        self.seen = before
        digest = ours.published(session, stream, number)
        self._note(
            "step",
            round=session.round,
            stream=stream,
            number=number,
            digest=digest,
            kept=kept,
            refused=session.traffic.refused,
        )
        if time.monotonic() > self.looked + EVERY:
            self.looked = time.monotonic()
            self._note("memory", bytes=resident(), messages=session.replica.messages)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.finish.exists():
            time.sleep(min(0.5, max(0.0, until - time.monotonic())))

    def _note(self, event: str, **fields: object) -> None:
        """Histories have room where logs have none."""
        with limited(resource.RLIM_INFINITY if self.order["room"] is not None else None):
            self.history.note(event, **fields)

    def note_error(self, error: SharedSeedError) -> None:
        self._note("error", kind=type(error).__name__, text=str(error))


def peer(order: Order) -> int:
    """Train until the file ``finish`` is there, from the log in the folder on."""
    one = _Peer(order)
    try:
        one.live()
    except SharedSeedError as error:
        one.note_error(error)
        return 1
    return 0


def relay(order: Order) -> int:
    """Relay until asked to end."""
    history, asked, looked = _history(order), [False], [0.0]
    signal.signal(signal.SIGTERM, lambda *_: asked.__setitem__(0, True))

    def on(messages: int, refused: int) -> bool:
        if time.monotonic() > looked[0] + EVERY or asked[0]:
            looked[0] = time.monotonic()
            history.note("memory", bytes=resident(), messages=messages, refused=refused)
        return not asked[0]

    ours.relay(Path(order["founded"]), Path(order["folder"]), order["listen"], on)
    return 0


def found(order: Order) -> int:
    """Begin the run."""
    ours.found(Path(order["founded"]), order["lockstep"])
    return 0


def tear(order: Order) -> int:
    """Damage the end of a dead peer's log as a crash of its machine would."""
    path = Path(order["folder"]) / LOG_NAME
    lost = disk.tear(path, order["amount"], order["zeros"])
    _history(order).note("torn", lost=lost, amount=order["amount"], zeros=order["zeros"])
    return 0


def rebuild(order: Order) -> int:
    """Replay a log on a fresh model."""
    contents = log.read(Path(order["folder"]) / LOG_NAME)
    replica = replay.rebuild(ours.small_model(), contents)
    held = {f"{m.stream.to_bytes().hex()} {m.number}": ours.message_digest(m) for m in contents.messages}
    _history(order).note("replayed", digest=replica.digest().hex(), held=held, torn=contents.torn)
    return 0


ROLES: dict[str, Callable[[Order], int]] = {
    "peer": peer,
    "relay": relay,
    "found": found,
    "tear": tear,
    "replay": rebuild,
    "proxy": lambda order: proxy.run(order["lines"], order["control"]),
    "hostile": lambda order: hostile.run(
        _history(order), Path(order["founded"]), order["relays"], Path(order["control"])
    ),
}
"""By the name in the order; each gives an exit code."""
