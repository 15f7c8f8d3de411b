"""What an archive has learnt since it was last asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from shared_seed.messages import Message
from shared_seed.signed import Signed, Statement


@dataclass
class News:
    """Messages that count, those that count no longer, and all for the log.

    ``fresh`` and ``withdrawn`` are about the weights; ``heard`` and ``statements`` are new in the archive.
    """

    fresh: list[Message] = field(default_factory=list)
    withdrawn: list[Message] = field(default_factory=list)
    heard: list[Signed] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)


class Newsroom:
    """Gathers news; a message that came and went meanwhile is none."""

    def __init__(self) -> None:
        self.heard: list[Signed] = []
        self.statements: list[Statement] = []
        self._fresh: dict[Message, None] = {}
        self._withdrawn: dict[Message, None] = {}

    @property
    def untaken(self) -> int:
        """How many messages have come to count, or count no longer."""
        return len(self._fresh) + len(self._withdrawn)

    @property
    def is_empty(self) -> bool:
        """Whether there is none, not even for the log."""
        return not (self.untaken or self.heard or self.statements)

    def bring(self, message: Message) -> None:
        """A message counts from now on."""
        if message in self._withdrawn:
            del self._withdrawn[message]
        else:
            self._fresh[message] = None

    def withdraw(self, message: Message) -> None:
        """A message counts no longer."""
        if message in self._fresh:
            del self._fresh[message]
        else:
            self._withdrawn[message] = None

    def unhear(self, gone: Iterable[Message]) -> None:
        """Keep messages that are not here any more out of the log."""
        without = set(gone)
        self.heard = [signed for signed in self.heard if signed.message not in without]

    def take(self) -> News:
        """All of it; the next begins empty."""
        news = News(list(self._fresh), list(self._withdrawn), self.heard, self.statements)
        self._fresh, self._withdrawn, self.heard, self.statements = {}, {}, [], []
        return news
