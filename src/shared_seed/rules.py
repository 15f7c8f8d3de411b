"""What a run's terms allow in a message, and in the order of a stream's messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from shared_seed.errors import MessageError
from shared_seed.ledger import Ledger, chained_by_one
from shared_seed.manifest import Manifest
from shared_seed.messages import Message, as_float32
from shared_seed.proofs import Fork


class Rules:
    """Those of one run; ``rounds`` is how many it has, ``most`` how many messages there may be here."""

    def __init__(self, manifest: Manifest) -> None:
        self.rounds = manifest.rounds
        self.most = 1 << 40
        self._limits = manifest.limits
        self._most_rate = as_float32(manifest.limits.learning_rate)

    def check(self, message: Message) -> None:
        """Hold a message against the manifest's limits.

        Raises:
            MessageError: it is beyond one.
        """
        limits = self._limits
        if len(message.codes) > limits.samples_per_message:
            raise MessageError(
                f"{len(message.codes)} samples in one message; the manifest allows {limits.samples_per_message}"
            )
        if message.learning_rate > self._most_rate:
            raise MessageError(
                f"learning rate {message.learning_rate:g}; the manifest allows {limits.learning_rate:g}"
            )
        if message.round >= self.rounds:
            raise MessageError(f"round {message.round} of a run that has {self.rounds}")

    def check_room(self, messages: int) -> None:
        """Make sure that there may be so many messages here.

        Raises:
            MessageError: there may not.
        """
        if messages > self.most:
            raise MessageError(f"this archive takes no more than {self.most} messages")

    def check_next(self, ledger: Ledger, message: Message, fork: Fork | None) -> None:
        """Make sure that a message may be the next of its stream.

        Raises:
            MessageError: it is beyond a limit or a fork, or not the next, or of a round that is past.
        """
        if fork is not None and message.number >= fork.number:
            raise MessageError(f"stream {message.stream} ends at {fork.number}")
        if message.number != len(ledger):
            raise MessageError(f"message {message.number} of {message.stream}, which has {len(ledger)}")
        self._check_round(message, ledger.round)

    def follow(self, ledger: Ledger, encoded: Sequence[bytes]) -> tuple[list[Message], list[bytes]]:
        """The messages that would come next in a stream, and the head after each.

        Raises:
            MessageError: one of them may not.
        """
        messages = [Message.decode(data) for data in encoded]
        round_ = ledger.round
        for number, message in enumerate(messages, len(ledger)):
            if message.stream != ledger.stream or message.number != number:
                raise MessageError("a stretch that is not of consecutive messages")
            round_ = self._check_round(message, round_)
        return messages, list(accumulate(encoded, chained_by_one, initial=ledger.head))[1:]

    def _check_round(self, message: Message, before: int) -> int:
        """Hold a message against the limits, and against the round of the one before it."""
        self.check(message)
        if message.round <= before:
            raise MessageError(f"round {message.round} of stream {message.stream} comes after round {before}")
        return message.round
