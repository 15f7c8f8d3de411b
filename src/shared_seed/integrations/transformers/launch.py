"""Peers of one ``torchrun``: every rank is a peer; rank 0 listens, and tells the others where."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from torch import distributed

from shared_seed.errors import SwarmError
from shared_seed.session import Session
from shared_seed.settings import Settings

Opener = Callable[[Settings], Session]


def open_together(opener: Opener, mine: Settings, ranks: int) -> Session:
    """Open a session as one of ``ranks`` processes, of which each is a peer of its own.

    Args:
        opener: opens one with the settings that it is given.
        mine: as :func:`settings_of` gives them.
        ranks: 1 for a process by itself.

    Raises:
        SwarmError: rank 0 could not open its own; says why.
        SharedSeedError: as :meth:`Session.open`.
    """
    if ranks == 1:
        return opener(mine)
    if mine.listen is not None:
        return _listen(opener, mine)
    told: list[tuple[str, str]] = [("", "")]
    distributed.broadcast_object_list(told, src=0)
    address, failure = told[0]
    if failure:
        raise SwarmError(f"rank 0 could not open the run: {failure}")
    return opener(dataclasses.replace(mine, join=(address,)))


def settings_of(settings: Settings, rank: int, ranks: int) -> Settings:
    """How one rank takes part: settings that are the same on all ranks are made its own."""
    if ranks == 1:
        return settings
    shared = settings.number is None and not settings.alone
    return dataclasses.replace(
        settings,
        # Where peers from elsewhere take part, a number of ours might be one of theirs.
        number=None if shared else (settings.number or 0) + rank,
        name=f"{settings.name[:56]}-{rank}",
        start_with=max(settings.start_with, ranks),
        listen=(settings.listen or f"tcp://{_interface()}:0") if rank == 0 else None,
        join=settings.join if rank == 0 else (),
        folder=settings.folder / f"rank-{rank}" if settings.folder and rank > 0 else settings.folder,
    )


def _listen(opener: Opener, settings: Settings) -> Session:
    """Open rank 0's session; the others wait to be told, so that they are told of a failure too."""
    try:
        session = opener(settings)
    except BaseException as error:
        distributed.broadcast_object_list([("", str(error) or type(error).__name__)], src=0)
        raise
    try:
        port = str(getattr(session.swarm, "address", "")).rpartition(":")[2]
        distributed.broadcast_object_list([(f"tcp://{_host()}:{port}", "")], src=0)
    except BaseException:
        session.close()
        raise
    return session


def _one_machine() -> bool:
    return os.environ.get("LOCAL_WORLD_SIZE", "") == os.environ.get("WORLD_SIZE", "1")


def _interface() -> str:
    return "127.0.0.1" if _one_machine() else "0.0.0.0"


def _host() -> str:
    """Where the other ranks reach rank 0, as torch's own rendezvous does."""
    return "127.0.0.1" if _one_machine() else os.environ["MASTER_ADDR"]
