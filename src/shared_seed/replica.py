"""One model's weights as a function of messages, with the log beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared_seed import update
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

    def apply(self, messages: Sequence[Message], sign: int = 1) -> None:
        """Move the weights by messages, all or none; ``sign=-1`` takes them back.

        Raises:
            HeadroomError: a weight would leave its grid; nothing was changed.
        """
        samples, steps = update.steps_of(messages, self.manifest.run_bytes, self.manifest.scale_exponent)
        update.apply(self.weights, samples, steps, sign)
        self.messages += sign * len(messages)
        self.gradients += sign * count_gradients(messages)

    def hold(self, messages: Sequence[Message]) -> None:
        """Note that the weights contain these messages already."""
        self.messages += len(messages)
        self.gradients += count_gradients(messages)

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
