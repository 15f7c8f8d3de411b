"""Philox4x32-10 in Python integers: slow, obvious, and the definition of every bit."""

from __future__ import annotations

from shared_seed.noise import BLOCK, Purpose, Sample

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

Words = tuple[int, int, int, int]


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """128 random bits as four 32-bit words (Salmon et al. 2011, section 3.3; Random123's ``philox4x32``)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            product1 >> 32 ^ c1 ^ k0,
            product1 & _MASK,
            product0 >> 32 ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def block(sample: Sample, tensor: int, purpose: Purpose, number: int = 0) -> Words:
    """The four words of one block of a tensor's noise."""
    key = (sample.key & _MASK, sample.key >> 32)
    return philox4x32(sample.counter(tensor, purpose, number), key)


def signs(sample: Sample, tensor: int, purpose: Purpose, count: int) -> list[int]:
    """The first ``count`` signs, each -1 or +1."""
    out: list[int] = []
    for number in range(-(-count // BLOCK)):
        for word in block(sample, tensor, purpose, number):
            out.extend(-1 if word >> bit & 1 else 1 for bit in range(32))
    return out[:count]
