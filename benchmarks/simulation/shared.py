"""Decoding a frame, and checking a signature, once, however many simulated peers hear it.

Both are pure functions of bytes, so what the protocols do stays the same; only that thousands of them in one
process share the results, which are immutable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from unittest import mock

from shared_seed import identity
from shared_seed.messages import Message
from shared_seed.swarm import wire


@contextmanager
def shared_decoding(most: int) -> Iterator[None]:
    """While it lasts, the last ``most`` frames, messages and signatures are remembered."""
    with (
        mock.patch.object(wire, "decode", lru_cache(most)(wire.decode)),
        mock.patch.object(Message, "decode", lru_cache(most)(Message.decode)),
        mock.patch.object(identity, "verify", lru_cache(most)(identity.verify)),
    ):
        yield
