"""Peers that speak and do not hear, so that ten thousand of them fit into one process.

A stand-in has a key, a stream, a pace and a life of its own and publishes signed messages and heartbeats as every
peer does. What it would know of the others it takes from its *model*, a peer or relay near by that is simulated
whole: when it may begin, whom it waits for, what set and which digest it states. So whoever hears it cannot tell
it from a peer, and nothing is spent on what it hears itself.
"""

from __future__ import annotations

import math
from typing import Any

from shared_seed.archive import Archive
from shared_seed.manifest import Manifest
from shared_seed.swarm.author import Author
from shared_seed.swarm.output import Output
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.roster import PeerView, Roster
from shared_seed.swarm.wire import State
from simulation.life import Habits, Peer


class Eyes:
    """A model, asked by many at the same time: each question is answered once."""

    def __init__(self, model: Protocol) -> None:
        self.model = model
        self._now = -1.0
        self._seen: dict[object, Any] = {}

    def see(self, now: float, question: str, *words: object) -> Any:
        """What the model's method of that name answers at this time."""
        if now != self._now:
            self._now = now
            self._seen.clear()
        key = (question, *words)
        if key not in self._seen:
            self._seen[key] = getattr(self.model, question)(*words)
        return self._seen[key]

    def deadline(self, now: float) -> float:
        """That of the model's steps."""
        if now != self._now or "deadline" not in self._seen:
            self.see(now, "live", now)
            self._seen["deadline"] = self.model.roster.deadline(self.model.pace, now)
        seconds: float = self._seen["deadline"]
        return seconds

    def is_behind(self, round_: int) -> bool:
        """Whether the model itself is still to publish for a round."""
        return self.model.state in (State.READY, State.TRAINING) and self.model.round <= round_


class BorrowedSet(Archive):
    """The messages of a stand-in, which states the set of its model."""

    def __init__(self, manifest: Manifest, model: Archive) -> None:
        self._model: Archive | None = None
        super().__init__(manifest)
        self._model = model

    def __len__(self) -> int:
        return len(self._model) if self._model is not None else 0

    def digest(self) -> bytes:
        """That of the model's set."""
        assert self._model is not None
        return self._model.digest()

    def statements_digest(self) -> bytes:
        """That of the model's statements."""
        assert self._model is not None
        return self._model.statements_digest()


class BorrowedRoster(Roster):
    """Knows of others what the model does, as far as a life asks for it."""

    def __init__(self, eyes: Eyes) -> None:
        super().__init__(eyes.model.timing.timeout)
        self._eyes = eyes

    def deadline(self, own: float, now: float) -> float:
        """As the model has it: among many, one's own pace does not count for much."""
        return self._eyes.deadline(now)


class StandIn(Protocol):
    """Speaks for itself and looks at the swarm through a model's eyes."""

    def __init__(self, author: Author, manifest: Manifest, eyes: Eyes) -> None:
        model = eyes.model
        super().__init__(author, model.terms, BorrowedSet(manifest, model.archive), model.timing)
        self._eyes = eyes
        self.roster = BorrowedRoster(eyes)

    def tick(self, now: float) -> list[Output]:
        """Signs of life alone; there are no links. What the model is asked, the stand-in would be asked too."""
        if self._eyes.model._heartbeats.hastened > self._heartbeats.hastened:
            self._heartbeats.hasten(now)
        return [self._sign_of_life(now)] if self._heartbeats.is_due(now) else []

    def live(self, now: float) -> list[PeerView]:
        """The peers that the model knows of."""
        peers: list[PeerView] = self._eyes.see(now, "live", now)
        return peers

    def ready(self, now: float) -> int:
        """As the model counts, with itself."""
        count: int = self._eyes.see(now, "ready", now)
        return count

    def is_waiting(self, round_: int, now: float, deadline: float = math.inf) -> bool:
        """Whether the model is behind, or would wait if it were not."""
        waits: bool = self._eyes.see(now, "is_waiting", round_, now, deadline)
        return waits or self._eyes.is_behind(round_)

    def give_up_on(self, round_: int, now: float) -> list[PeerView]:
        """Those that the model waits for; when to give them up is its own affair."""
        late: list[PeerView] = self._eyes.see(now, "waits_for", round_, now)
        return late

    def swarm_round(self, now: float) -> int:
        """As the model sees it."""
        round_: int = self._eyes.see(now, "swarm_round", now)
        return round_

    def has_all(self, now: float) -> bool:
        """Whether the model has."""
        complete: bool = self._eyes.see(now, "has_all", now)
        return complete

    def is_quiet(self, now: float) -> bool:
        """Whether it is around the model."""
        quiet: bool = self._eyes.see(now, "is_quiet", now)
        return quiet

    def is_settled(self, now: float) -> bool:
        """Whether the model thinks so."""
        settled: bool = self._eyes.see(now, "is_settled", now)
        return settled


class StandInPeer(Peer):
    """The life of a stand-in; its weights are the model's."""

    def __init__(self, protocol: StandIn, model: Peer, habits: Habits, seed: str) -> None:
        super().__init__(protocol, None, habits, seed)
        self._model = model

    def allowed(self, now: float) -> tuple[float, float]:
        """Whom the model waits for is waited for, however long his steps take."""
        return math.inf, super().allowed(now)[1]

    def digest(self) -> bytes:
        """The digest that the model would state."""
        return self._model.digest()
