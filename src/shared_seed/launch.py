"""Processes that a launcher has started together (``devices=N``, torchrun, SLURM) as peers of one swarm.

They know of each other through torch's process group, which the launcher has set up: rank 0 listens, and tells the
others where. Gradients then go as bytes from peer to peer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from torch import distributed, nn

from shared_seed import notices
from shared_seed.errors import ManifestMismatchError, SwarmError
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.swarm.address import parse
from shared_seed.training import Training

Say = Callable[[str], None]
"""Shows a sentence to the user, once."""

NEAR = "127.0.0.1"
"""Where the processes of one machine find each other."""


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, and the host at which the others reach rank 0."""

    rank: int = 0
    ranks: int = 1
    host: str = NEAR


def settings_at(place: Place, settings: Settings) -> Settings:
    """How one process takes part: settings that are the same in all of them are made its own."""
    if place.ranks == 1:
        return settings
    rank = place.rank
    interface = NEAR if place.host == NEAR else "0.0.0.0"
    shared = settings.number is None and not settings.alone
    return dataclasses.replace(
        settings,
        # Where peers from elsewhere take part, a number of ours might be one of theirs.
        number=None if shared else (settings.number or 0) + rank,
        name=f"{settings.name[:56]}-{rank}",
        start_with=max(settings.start_with, place.ranks),
        listen=(settings.listen or f"tcp://{interface}:0") if rank == 0 else None,
        join=settings.join if rank == 0 else (),
        folder=settings.folder / f"rank-{rank}" if settings.folder and rank > 0 else settings.folder,
    )


def open_together(model: nn.Module, settings: Settings, training: Training, place: Place, say: Say) -> Session:
    """Open a session as one of several processes, of which each is a peer of its own.

    Where nobody else will know of the run, one that cannot go on from its checkpoint begins anew.

    Args:
        model: as for :meth:`Session.open`.
        settings: the same in all processes.
        training: what the Trainer is about to do.
        place: of this process.
        say: is told what the user should know.

    Raises:
        SwarmError: rank 0 could not open its own; says why.
        SharedSeedError: as :meth:`Session.open`.
    """

    def opened(mine: Settings) -> Session:
        try:
            return Session.open(model, mine, training)
        except ManifestMismatchError as error:
            if training.resume is None or not mine.private:
                raise
            say(notices.ANEW.format(error=error))
            left = max(1, training.rounds - training.resume.round)
            return Session.open(model, mine, dataclasses.replace(training, resume=None, rounds=left))

    mine = settings_at(place, settings)
    if place.ranks == 1:
        return opened(mine)
    if place.rank == 0:
        return _listen(opened, mine, place.host)
    told: list[tuple[str, str]] = [("", "")]
    distributed.broadcast_object_list(told, src=0)
    address, failure = told[0]
    if failure:
        raise SwarmError(f"rank 0 could not open the run: {failure}")
    return opened(dataclasses.replace(mine, join=(address,)))


def _listen(opened: Callable[[Settings], Session], settings: Settings, host: str) -> Session:
    """Open rank 0's session; the others wait to be told, so that they are told of a failure too."""
    try:
        session = opened(settings)
    except BaseException as error:
        distributed.broadcast_object_list([("", str(error) or type(error).__name__)], src=0)
        raise
    try:
        assert session.swarm is not None
        assert session.swarm.address is not None
        # With its key: processes on other machines have others.
        address = dataclasses.replace(parse(session.swarm.address), host=host)
        distributed.broadcast_object_list([(str(address), "")], src=0)
    except BaseException:
        session.close()
        raise
    return session
