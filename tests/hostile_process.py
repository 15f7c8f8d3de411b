"""A peer that publishes random bytes instead of what it measures: ``hostile_process.py WORDS OF SHARED-SEED``."""

from __future__ import annotations

import random
from types import SimpleNamespace

from shared_seed import cli, codec, session

DRAW = random.Random(1)


def encode(gradient: float, scale_exponent: int) -> int:
    """A random byte of about the right size."""
    return codec.encode(DRAW.gauss(0, abs(gradient)), scale_exponent)


if __name__ == "__main__":
    # In this process only, which does nothing else.
    session.codec = SimpleNamespace(encode=encode)  # type: ignore[assignment]
    cli.main()
