"""What a replica does with news: log it, hold what is for later, apply what is due, take back what is gone."""

from __future__ import annotations

from shared_seed.errors import HeadroomError
from shared_seed.interrupts import deferred
from shared_seed.log import RunLog
from shared_seed.messages import Message
from shared_seed.news import News
from shared_seed.replica import Replica


class Follower:
    """Keeps one replica, and the log where there is one, up with what is heard.

    Attributes:
        replica: what messages are applied to.
        log: where what is heard is written down, or None.
        held: messages that are not applied yet.
    """

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.log: RunLog | None = None
        self.held: list[Message] = []

    def take_in(self, news: News) -> None:
        """Log what is new, and follow it."""
        if self.log is not None and (news.heard or news.statements):
            self.log.append(news.statements, news.heard)
        self.follow(news)

    def follow(self, news: News) -> None:
        """Hold what is to be applied, and take back what counts no longer.

        Raises:
            HeadroomError: a weight would leave its grid on the way back; nothing was changed.
        """
        gone = set(news.withdrawn)
        held = gone.intersection(self.held)
        with deferred():
            try:
                self.replica.apply([m for m in news.withdrawn if m not in held], -1)
            except HeadroomError as error:
                raise HeadroomError(
                    "what a banned or lying peer has written cannot be taken back from here, since on the way a "
                    "weight would leave its grid; the weights are as they were, and the log knows what counts; "
                    "start again with the same folder, which begins from the base model without it"
                ) from error
            self.held = [m for m in self.held if m not in held] + news.fresh

    def apply_before(self, round_: int | None) -> list[Message]:
        """Apply what is held for rounds before ``round_``, or all of it; returns what was applied.

        Raises:
            HeadroomError: a weight would leave its grid; nothing was changed.
        """
        due = [m for m in self.held if round_ is None or m.round < round_]
        with deferred():
            self.replica.apply(due)
            self.held = [m for m in self.held if round_ is not None and m.round >= round_]
        return due

    def outgrow(self) -> None:
        """Apply all that is held on wider grids, on which nobody else can follow."""
        self.replica.outgrow(self.held)
        self.held.clear()

    def close(self) -> None:
        """Close the log."""
        if self.log is not None:
            self.log.close()
