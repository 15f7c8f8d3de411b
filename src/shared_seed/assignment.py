"""Which rows a probe is evaluated on, where the run says so instead of the peer.

The rows are a function of what everybody knows, so that anybody who has the data can take another peer's probe
again. A peer cannot choose them: the round of its message goes in, and so does its stream.

=========  =======================================================================================
key        BLAKE2b of (data seed, stream), 64 bits, ``person = "shared-seed rows"``
counter 0  block of four words
counter 1  0
counter 2  index of the probe in its message
counter 3  round of the message
=========  =======================================================================================

Of each Philox block (Salmon et al. 2011) the words give two numbers of 64 bits, low word first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from shared_seed.noise.reference import philox4x32

_WORD = 0xFFFFFFFF


def rows_of(seed: int, stream: bytes, round_: int, probe: int, rows: int, batch_size: int) -> list[int]:
    """The rows of one probe: ``min(batch_size, rows)`` different ones, uniformly drawn.

    The first steps of Durstenfeld's shuffle (1964, Algorithm 235), with a 64-bit number modulo what is left: the
    bias is below ``rows / 2**64``.

    Args:
        seed: of the data, not negative.
        stream: the 16 bytes of the stream that publishes the probe.
        round_: of the message that carries it.
        probe: its index in the message.
        rows: how many there are, numbered from 0.
        batch_size: how many are wanted.
    """
    named = hashlib.blake2b(b"%d " % seed + stream, digest_size=8, person=b"shared-seed rows")
    numbers = _numbers(int.from_bytes(named.digest(), "little"), round_, probe)
    moved: dict[int, int] = {}
    drawn: list[int] = []
    for place in range(min(batch_size, rows)):
        chosen = place + next(numbers) % (rows - place)
        drawn.append(moved.get(chosen, chosen))
        moved[chosen] = moved.get(place, place)
    return drawn


def _numbers(key: int, round_: int, probe: int) -> Iterator[int]:
    """Random 64-bit numbers without an end."""
    block = 0
    while True:
        words = philox4x32((block, 0, probe, round_), (key & _WORD, key >> 32))
        yield words[1] << 32 | words[0]
        yield words[3] << 32 | words[2]
        block += 1
