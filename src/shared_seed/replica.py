"""One model's weights as a function of messages, with the log beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from shared_seed import update
from shared_seed.aggregation import Rounds
from shared_seed.manifest import Manifest
from shared_seed.messages import Message
from shared_seed.weights import Weights


class Replica:
    """Weights, and how many messages and gradients they contain."""

    def __init__(self, weights: Weights, manifest: Manifest) -> None:
        self.weights = weights
        self.manifest = manifest
        self.messages = 0
        self.gradients = 0
        rule = manifest.aggregation
        # With a plain sum a message's step depends on it alone, and there is nothing to remember.
        self._rounds = None if rule.kind == "sum" else Rounds(rule, manifest.run_bytes, manifest.scale_exponent)

    def apply(self, messages: Sequence[Message], sign: int = 1) -> None:
        """Move the weights by messages, all or none; ``sign=-1`` takes them back.

        Where the manifest's aggregation is not a plain sum, what their rounds came to without them is taken back
        too; messages that are there already, or are not there to be taken back, are passed over.

        Raises:
            HeadroomError: a weight would leave its grid; nothing was changed.
        """
        if self._rounds is not None:
            self._reconsider(self._rounds, messages, sign)
            return
        samples, steps = update.steps_of(messages, self.manifest.run_bytes, self.manifest.scale_exponent)
        update.apply(self.weights, samples, steps, sign)
        self._count(messages, sign)

    def _reconsider(self, rounds: Rounds, messages: Sequence[Message], sign: int) -> None:
        """Bring the rounds of messages to what they come to with them, or without."""
        fresh = rounds.fresh(messages, sign)
        moves = rounds.moves(fresh, sign)
        steps = np.array([move.step for move in moves], np.float64)
        signs = np.array([move.sign for move in moves], np.int32)
        update.apply(self.weights, [move.sample for move in moves], steps, signs)
        rounds.note(fresh, sign)
        self._count(fresh, sign)

    def _count(self, messages: Sequence[Message], sign: int) -> None:
        self.messages += sign * len(messages)
        self.gradients += sign * count_gradients(messages)

    def hold(self, messages: Sequence[Message]) -> None:
        """Note that the weights contain these messages already."""
        if self._rounds is not None:
            self._rounds.note(messages, 1)
        self._count(messages, 1)

    def outgrow(self, messages: Sequence[Message]) -> None:
        """Apply messages on wider grids; what the manifest says of the grids holds no longer."""
        self.weights.widen(self.manifest.epsilon)
        self.apply(messages)

    def digest(self) -> bytes:
        """SHA-256 of all trainable parameters."""
        return self.weights.digest()


def count_gradients(messages: Iterable[Message]) -> int:
    """How many projected gradients messages carry, abstentions among them."""
    return sum(len(message.codes) for message in messages)
