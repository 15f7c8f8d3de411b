"""How one peer takes part in a run: the same for both plugins, the recipes and the command line."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_seed.errors import RecipeError
from shared_seed.probe import check_epsilon


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything has a default; a peer that joins takes the fields marked * from the run it joins.

    Args:
        epsilon: * distance of the two probes from the weights; a power of two. bf16 needs at least 2**-8,
            fp32 is good from 2**-10 (``docs/experiments.md``).
        scale_exponent: * a byte stands for its E4M3 value times two to this.
        dense: * shell patterns of parameters that get dense signs although a Linear or Embedding owns them.
        lockstep: * wait at each step for the live peers' messages; otherwise never wait.
        start_with: * begin when this many peers are ready.
        most_learning_rate: * messages that ask for more are refused.
        seed: * with the model, names the run and so its noise.
        listen: accept peers at this address, ``tcp://HOST:PORT``.
        join: addresses of listening peers to connect to.
        folder: where the gradient log is kept; without one, nothing is written.
        name: what others see this peer as.
        number: a small integer that only this peer has, which makes a calm run reproducible; without one the
            peer's identity is random, unless it trains alone without a folder.
        deadline: seconds that a step waits for others at most; by default three times what steps have taken,
            and never less than two seconds.
        patience: seconds to wait for the first peers, and at the end for the last bytes.
    """

    epsilon: float = 2.0**-8
    scale_exponent: int = 0
    dense: tuple[str, ...] = ()
    lockstep: bool = True
    start_with: int = 1
    most_learning_rate: float = 1.0
    seed: int = 0
    listen: str | None = None
    join: tuple[str, ...] = ()
    folder: Path | None = None
    name: str = "peer"
    number: int | None = None
    deadline: float | None = None
    patience: float = 120.0

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        if not 1 <= len(self.name) <= 64:
            raise RecipeError(f"peer name {self.name!r} must have 1 to 64 characters")
        for name in ("start_with", "most_learning_rate", "patience"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name} is {getattr(self, name)!r}; expected a positive number")
        if self.deadline is not None and self.deadline <= 0:
            raise RecipeError(f"deadline is {self.deadline!r}; expected a positive number of seconds")

    @property
    def alone(self) -> bool:
        """Whether this peer neither listens nor joins."""
        return self.listen is None and not self.join

    @property
    def private(self) -> bool:
        """Whether nobody but this process will ever know of the run: alone, and without a folder."""
        return self.alone and self.folder is None

    def run_name(self, *parts: Any) -> str:
        """32 hex digits that name a run: a hash of the seed and of what is trained."""
        return hashlib.blake2b(repr((self.seed, *parts)).encode(), digest_size=16).hexdigest()

    def peer_name(self, run: str) -> bytes | None:
        """The peer's 12 bytes in a run, or ``None`` for random ones."""
        number = 0 if self.number is None and self.private else self.number
        if number is None:
            return None
        return hashlib.blake2b(f"{run} peer {number}".encode(), digest_size=12).digest()
