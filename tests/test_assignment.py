"""Which rows a probe takes: the same for everybody, all different, and evenly spread."""

from __future__ import annotations

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shared_seed.assignment import rows_of
from shared_seed.noise.reference import philox4x32

SEEDS = st.integers(0, 1 << 70)
STREAMS = st.binary(min_size=16, max_size=16)
WORDS = st.integers(0, (1 << 32) - 1)


@given(SEEDS, STREAMS, WORDS, st.integers(0, 254), st.integers(1, 10**6), st.integers(1, 64))
def test_rows_are_different_in_range_and_as_many_as_there_can_be(
    seed: int, stream: bytes, round_: int, probe: int, rows: int, size: int
) -> None:
    drawn = rows_of(seed, stream, round_, probe, rows, size)
    assert len(drawn) == len(set(drawn)) == min(size, rows)
    assert all(0 <= row < rows for row in drawn)
    assert drawn == rows_of(seed, stream, round_, probe, rows, size)


@given(SEEDS, STREAMS, st.integers(1, 40))
def test_a_batch_as_large_as_the_data_is_all_of_it(seed: int, stream: bytes, rows: int) -> None:
    assert sorted(rows_of(seed, stream, 3, 1, rows, rows + 5)) == list(range(rows))


@given(SEEDS, STREAMS, WORDS, st.integers(0, 254), st.integers(2, 32))
def test_a_smaller_batch_is_the_beginning_of_a_larger_one(
    seed: int, stream: bytes, round_: int, probe: int, size: int
) -> None:
    larger = rows_of(seed, stream, round_, probe, 1000, size)
    assert rows_of(seed, stream, round_, probe, 1000, size - 1) == larger[:-1]


@given(SEEDS, STREAMS, st.integers(0, 1 << 31), st.integers(0, 253))
def test_each_of_seed_stream_round_and_probe_changes_the_rows(
    seed: int, stream: bytes, round_: int, probe: int
) -> None:
    other = bytes([stream[0] ^ 1]) + stream[1:]
    restarted = stream[:12] + ((int.from_bytes(stream[12:], "little") + 1) % (1 << 32)).to_bytes(4, "little")
    names = [
        (seed, stream, round_, probe),
        (seed + 1, stream, round_, probe),
        (seed, other, round_, probe),
        (seed, restarted, round_, probe),
        (seed, stream, round_ + 1, probe),
        (seed, stream, round_, probe + 1),
    ]
    drawn = {tuple(rows_of(*name, 10**9, 8)) for name in names}
    assert len(drawn) == len(names)


def test_the_rows_of_a_release_are_those_of_the_next() -> None:
    assert rows_of(0, bytes(16), 0, 0, 10, 4) == [3, 4, 2, 1]
    assert rows_of(7, bytes(range(16)), 12, 3, 9000, 4) == [4730, 1966, 8021, 5719]


def test_the_first_row_is_the_first_number_of_the_first_block() -> None:
    stream = bytes(range(16))
    key = hashlib.blake2b(b"5 " + stream, digest_size=8, person=b"shared-seed rows").digest()
    low, high = (int.from_bytes(half, "little") for half in (key[:4], key[4:]))
    words = philox4x32((0, 0, 2, 9), (low, high))
    assert rows_of(5, stream, 9, 2, 1 << 40, 1) == [(words[1] << 32 | words[0]) % (1 << 40)]


def test_all_rows_are_taken_about_as_often() -> None:
    """Chi-squared over 50 rows and 2,000 batches of 4: mean 49, standard deviation 9.9."""
    seen = Counter(row for round_ in range(2000) for row in rows_of(1, bytes(16), round_, 0, 50, 4))
    expected = 2000 * 4 / 50
    statistic = sum((seen[row] - expected) ** 2 / expected for row in range(50))
    assert 15 < statistic < 100


def test_every_place_of_a_batch_sees_every_row() -> None:
    places: list[set[int]] = [set(), set(), set()]
    for round_ in range(300):
        for place, row in enumerate(rows_of(2, bytes(16), round_, 0, 5, 3)):
            places[place].add(row)
    assert places == [set(range(5))] * 3
