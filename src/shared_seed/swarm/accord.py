"""How a run ends: whether others are there at all, hold what we hold, and have come to the same weights."""

from __future__ import annotations

import math

from shared_seed.archive import Archive
from shared_seed.swarm.exchange import Exchange
from shared_seed.swarm.greetings import Greetings
from shared_seed.swarm.roster import Roster
from shared_seed.swarm.wire import State


class Accord:
    """One peer's view of whether it is at one with the others."""

    def __init__(self, archive: Archive, roster: Roster, exchange: Exchange, greetings: Greetings) -> None:
        self._archive = archive
        self._roster = roster
        self._exchange = exchange
        self._greetings = greetings
        self._parted = False
        self._united = -math.inf
        """When we last heard somebody again after nobody."""

    def look(self, now: float) -> None:
        """Note whether we are cut off."""
        if self.cut_off(now) != self._parted:
            self._parted = not self._parted
            self._united = self._united if self._parted else now

    def cut_off(self, now: float) -> bool:
        """Whether we dialled somebody, hear nobody, and whom we heard last has not taken leave."""
        if not self._greetings or not self._roster.is_alone(now):
            return False
        last = self._roster.last_heard()
        return last is None or last.state is not State.LEAVING

    def is_expecting(self, now: float) -> bool:
        """Whether any peer may still have something to say; see :meth:`Roster.is_expecting`."""
        return self._roster.is_expecting(now, self._united)

    def all_equal(self, now: float) -> bool:
        """Whether every live peer holds what we hold; of relays, which have no weights, those that we talk to."""
        ours, held, near = len(self._archive), self._archive.digest(), self._exchange.near
        return all(
            peer.messages == ours and peer.held == held
            for stream, peer in self._roster.peers.items()
            if peer.is_live(now) and (peer.state is not State.RELAYING or stream in near)
        )

    def all_stated(self, now: float) -> bool:
        """Whether every live peer has stated the digest of its weights, but for relays."""
        return all(peer.digest or peer.state is State.RELAYING for peer in self._roster.live(now))

    def digests(self) -> dict[str, str]:
        """The digests, in hex, that peers with the same messages as we have state.

        By name, or by name and stream where names are not unique.
        """
        held = self._archive.digest()
        stated = {s: peer for s, peer in self._roster.peers.items() if peer.digest and peer.held == held}
        names = [peer.name for peer in stated.values()]
        return {
            peer.name if names.count(peer.name) == 1 else f"{peer.name} {stream}": peer.digest.hex()
            for stream, peer in stated.items()
        }
