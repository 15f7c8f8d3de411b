"""How one peer takes part in a run: the same for both plugins, the recipes and the command line."""

from __future__ import annotations

import hashlib
import math
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from shared_seed.admission import Invite
from shared_seed.errors import RecipeError
from shared_seed.grid import check_epsilon
from shared_seed.manifest import (
    BYTES_PER_SECOND,
    BYTES_PER_SECOND_END,
    LEAST_BYTES_PER_SECOND,
    MOST_STREAMS_PER_KEY,
    STREAMS_PER_KEY,
    Admission,
)
from shared_seed.messages import MOST_CODES
from shared_seed.rate import PROMISE

OPEN = Admission()
"""Everybody may take part."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything has a default; a peer that joins takes the fields marked * from the run it joins.

    Args:
        epsilon: * distance of the two probes from the weights; a power of two. bf16 needs at least 2**-8,
            fp32 is good from 2**-10 (``docs/experiments.md``). None is 2**-8, and 2**-6 for an adapter of PEFT.
        scale_exponent: * a byte stands for its E4M3 value times two to this.
        dense: * shell patterns of parameters that get dense signs although a Linear or Embedding owns them.
        aggregation: * what the gradients of a round come to: all added up (``"sum"``), or, with hostile peers in
            mind, ``"clip"`` or ``"trimmed"`` (``docs/attacks.md``).
        factor: * for ``"clip"``: a peer counts for so many times the median peer at most.
        trim: * for ``"trimmed"``: the share that is left out at each end.
        lockstep: * wait at each step for the live peers' messages; otherwise never wait.
        start_with: * begin when this many peers are ready.
        most_learning_rate: * messages that ask for more are refused.
        most_samples: * likewise messages with more samples.
        streams_per_key: * of one key, more streams than this do not count.
        bytes_per_second: * what one key sends into one node beyond is dropped unread.
        promise: what each probe's step is to lower its loss by at first, in the loss's unit, nats of a
            cross-entropy: the learning rate follows from the projected gradients, and what is promised from the
            losses (:mod:`shared_seed.rate`); what the Trainer says is their schedule. None goes by the Trainer's
            learning rate.
        directions: that are probed on each batch; with one, at both sides of the weights, with more, each at one
            side and all against the loss at the weights: one evaluation for each, and one in common.
        schedule: "linear" lets learning rates fall to 0 over the run's rounds, wherever this peer begins or
            goes on, on top of the Trainer's scheduler.
        seed: * with the model, names the run and so its noise.
        admission: * who may take part in a run that begins here; everybody by default.
        invite: the token that admits this peer to a run that admits by invite.
        listen: accept peers at this address, ``tcp://HOST:PORT``.
        join: addresses of listening peers or relays to connect to; the first one gives the run's terms. An
            address is ``tcp://KEY@HOST:PORT``, or ``tcp://HOST:PORT`` for a peer with this user's key.
        via: addresses of relays to connect to, in a run that begins here.
        folder: where the gradient log is kept; without one, nothing is written.
        name: what others see this peer as.
        number: a small integer that only this peer has, which makes a calm run reproducible; without one the
            peer's identity is random, unless it trains alone without a folder.
        deadline: seconds that a step waits for others at most; by default it follows from the median and the
            spread of the peers' times, and is never less than two seconds.
        adapt: where this peer is slower than most, make fewer probes a step than the Trainer asks for; what it
            does then depends on how fast it is, so such runs are not reproducible.
        patience: seconds to wait for the first peers, and at the end for the last bytes.
    """

    epsilon: float | None = None
    scale_exponent: int = 0
    dense: tuple[str, ...] = ()
    aggregation: Literal["sum", "clip", "trimmed"] = "sum"
    factor: float = 3.0
    trim: float = 0.25
    lockstep: bool = True
    start_with: int = 1
    most_learning_rate: float = 1.0
    most_samples: int = MOST_CODES
    streams_per_key: int = STREAMS_PER_KEY
    bytes_per_second: int = BYTES_PER_SECOND
    promise: float | None = PROMISE
    directions: int = 4
    schedule: Literal["constant", "linear"] = "constant"
    seed: int = 0
    admission: Admission = OPEN
    invite: str | None = field(default=None, repr=False)
    listen: str | None = None
    join: tuple[str, ...] = ()
    via: tuple[str, ...] = ()
    folder: Path | None = None
    name: str = "peer"
    number: int | None = None
    deadline: float | None = None
    adapt: bool = False
    patience: float = 120.0

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            check_epsilon(self.epsilon)
        if not 1 <= len(self.name) <= 64:
            raise RecipeError(f"peer name {self.name!r} must have 1 to 64 characters")
        if not self.name.isprintable():
            raise RecipeError(f"peer name {self.name!r} must have no control characters, which others would see")
        for name, most in (("most_samples", MOST_CODES), ("streams_per_key", MOST_STREAMS_PER_KEY)):
            if not 1 <= getattr(self, name) <= most:
                raise RecipeError(f"{name} is {getattr(self, name)!r}; expected 1 to {most}")
        if not LEAST_BYTES_PER_SECOND <= self.bytes_per_second < BYTES_PER_SECOND_END:
            raise RecipeError(
                f"bytes_per_second is {self.bytes_per_second!r}; expected at least {LEAST_BYTES_PER_SECOND}"
            )
        if not 1 <= self.directions <= MOST_CODES:
            raise RecipeError(f"directions is {self.directions!r}; expected 1 to {MOST_CODES}")
        if self.schedule not in ("constant", "linear"):
            raise RecipeError(f"schedule is {self.schedule!r}; expected 'constant' or 'linear'")
        if self.aggregation not in ("sum", "clip", "trimmed"):
            raise RecipeError(f"aggregation is {self.aggregation!r}; expected 'sum', 'clip' or 'trimmed'")
        if math.isinf(self.factor):
            raise RecipeError(f"factor is {self.factor!r}; expected a finite number, or aggregation 'sum'")
        if not 0 <= self.trim < 0.5:
            raise RecipeError(f"trim is {self.trim!r}; expected at least 0 and less than a half at each end")
        for name in ("start_with", "most_learning_rate", "patience", "factor"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name} is {getattr(self, name)!r}; expected a positive number")
        if self.promise is not None and not 0 < self.promise < math.inf:
            raise RecipeError(f"promise is {self.promise!r}; expected nats, a positive number such as {PROMISE}")
        if self.deadline is not None and self.deadline <= 0:
            raise RecipeError(f"deadline is {self.deadline!r}; expected a positive number of seconds")
        if self.invite is not None:
            Invite.parse(self.invite)

    @property
    def alone(self) -> bool:
        """Whether this peer neither listens nor dials."""
        return self.listen is None and not self.join and not self.via

    @property
    def private(self) -> bool:
        """Whether nobody but this process will ever know of the run: alone, and without a folder."""
        return self.alone and self.folder is None

    def run_name(self, *parts: Any) -> str:
        """32 hex digits that name a run: a hash of the seed and of what is trained."""
        return hashlib.blake2b(repr((self.seed, *parts)).encode(), digest_size=16).hexdigest()

    def peer_name(self, run: str) -> bytes | None:
        """The peer's 12 bytes in a private run, or ``None`` for random ones."""
        number = 0 if self.number is None and self.private else self.number
        if number is None:
            return None
        return hashlib.blake2b(f"{run} peer {number}".encode(), digest_size=12).digest()

    def label(self) -> bytes:
        """8 bytes that tell this peer from others with the same key: its number, or random ones."""
        return secrets.token_bytes(8) if self.number is None else self.number.to_bytes(8, "little")
