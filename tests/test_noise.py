"""The noise: Random123's vectors, the fast kernels against the definition, and its statistics."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_seed.noise import BLOCK, MOST_TENSORS, Purpose, Sample, cpu, packed, philox, reference, stream_key

WORD = (1 << 32) - 1
SPLIT = 3 * 65536 + 77
"""Elements enough for three threads, and no multiple of a block."""

KNOWN_ANSWERS = [
    ("zeros", "00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ones", "ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("pi", "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
"""``philox4x32`` with 10 rounds, from ``kat_vectors`` of Random123: name, counter, key, result."""

words32 = st.integers(0, WORD)
keys = st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from([0, WORD, WORD + 1, (1 << 63), (1 << 64) - 1]))
samples = st.builds(Sample, keys, words32, words32)
tensors = st.one_of(st.integers(0, MOST_TENSORS - 1), st.just(MOST_TENSORS - 1))
purposes = st.sampled_from(Purpose)
sizes = st.one_of(st.integers(0, 700), st.sampled_from([0, 1, 31, 32, 33, 127, 128, 129, 256]))


def words(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(
    ("counter", "key", "result"), [k[1:] for k in KNOWN_ANSWERS], ids=[k[0] for k in KNOWN_ANSWERS]
)
def test_reference_gives_the_known_answers_of_random123(counter: str, key: str, result: str) -> None:
    assert reference.philox4x32(words(counter), words(key)) == words(result)


def test_kernel_turns_the_known_answer_into_signs_lowest_bit_first() -> None:
    expected = [-1 if word >> bit & 1 else 1 for word in words(KNOWN_ANSWERS[0][3]) for bit in range(32)]
    assert cpu.signs(Sample(0, 0, 0), 0, Purpose.DENSE, BLOCK).tolist() == expected


def test_counter_has_the_documented_layout() -> None:
    counter = Sample(key=1, number=0xAABBCCDD, index=0x11223344).counter(0x00FEDCBA, Purpose.ROUNDING, block=9)
    assert counter == (9, 0x03FEDCBA, 0x11223344, 0xAABBCCDD)


def test_purposes_keep_the_numbers_that_logs_were_written_with() -> None:
    assert {p.name: int(p) for p in Purpose} == {"DENSE": 0, "ROW": 1, "COLUMN": 2, "ROUNDING": 3}


def test_stream_key_stays_what_logs_were_written_with() -> None:
    assert stream_key(bytes(range(16)), b"peer-number1" + b"\x07\0\0\0") == 0x488574425F0484D5


@settings(max_examples=150)
@given(sample=samples, tensor=tensors, purpose=purposes, count=sizes)
def test_signs_equal_the_reference(sample: Sample, tensor: int, purpose: Purpose, count: int) -> None:
    fast = cpu.signs(sample, tensor, purpose, count)
    assert fast.dtype == np.float32
    assert fast.tolist() == reference.signs(sample, tensor, purpose, count)


@settings(max_examples=80)
@given(
    sample=samples,
    tensor=tensors,
    purpose=purposes,
    start=st.lists(st.integers(-1000, 1000), max_size=300),
    amount=st.integers(-64, 64),
)
def test_shift_adds_the_reference_signs(
    sample: Sample, tensor: int, purpose: Purpose, start: list[int], amount: int
) -> None:
    values = np.array(start, np.float32) / 16
    cpu.shift(values, sample, tensor, purpose, amount / 16)
    signs = reference.signs(sample, tensor, purpose, len(start))
    assert values.tolist() == [(w + amount * s) / 16 for w, s in zip(start, signs, strict=True)]


@settings(max_examples=80)
@given(
    drawn=st.lists(st.tuples(samples, st.integers(-(1 << 20), 1 << 20)), max_size=7),
    tensor=tensors,
    start=st.lists(st.integers(-1000, 1000), max_size=300),
    exponent=st.integers(0, 24),
    first=st.integers(0, 2),
)
def test_add_signs_adds_the_integer_sum_of_the_reference(
    drawn: list[tuple[Sample, int]], tensor: int, start: list[int], exponent: int, first: int
) -> None:
    chosen, units = [s for s, _ in drawn], [u for _, u in drawn]
    unit = np.float32(math.ldexp(1.0, -exponent))
    values = np.array(start, np.float32) * unit
    amounts = np.array(units, np.float32) * unit
    cpu.add_signs(values, first, philox.second_word(tensor, Purpose.DENSE), philox.table(chosen), amounts)
    totals = list(start)
    for sample, step in drawn:
        signs = reference.signs(sample, tensor, Purpose.DENSE, BLOCK * first + len(start))[BLOCK * first :]
        totals = [total + step * sign for total, sign in zip(totals, signs, strict=True)]
    assert values.tolist() == [total * float(unit) for total in totals]


@settings(max_examples=60)
@given(chosen=st.lists(samples, max_size=70), tensor=tensors, count=sizes, first=st.integers(0, 2))
def test_packed_signs_and_rows_of_signs_equal_the_reference(
    chosen: list[Sample], tensor: int, count: int, first: int
) -> None:
    words = np.zeros((-(-len(chosen) // 32), count + 5), np.uint32)
    packed.pack(words, first, count, philox.second_word(tensor, Purpose.ROW), philox.table(chosen))
    rows = cpu.sign_rows(chosen, tensor, Purpose.ROW, count, first)
    assert rows.shape == (len(chosen), count)
    assert not words[:, count:].any()
    for i, sample in enumerate(chosen):
        expected = reference.signs(sample, tensor, Purpose.ROW, BLOCK * first + count)[BLOCK * first :]
        assert rows[i].tolist() == expected
        assert [-1 if word >> (i % 32) & 1 else 1 for word in words[i // 32, :count].tolist()] == expected


@settings(max_examples=60)
@given(chosen=st.lists(samples, max_size=6), count=st.integers(0, 9))
def test_rounding_words_are_the_first_words_of_the_reference(chosen: list[Sample], count: int) -> None:
    table = cpu.rounding_words(chosen, count)
    assert table.dtype == np.uint32
    assert table.tolist() == [[reference.block(s, t, Purpose.ROUNDING)[0] for t in range(count)] for s in chosen]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_do_not_change_signs(threads: int) -> None:
    sample = Sample((1 << 64) - 3, WORD, WORD - 1)
    expected = reference.signs(sample, 7, Purpose.ROW, SPLIT)
    assert cpu.signs(sample, 7, Purpose.ROW, SPLIT, threads).tolist() == expected


def test_a_range_that_begins_later_continues_the_same_noise() -> None:
    sample = Sample(5, 6, 7)
    long = cpu.signs(sample, 1, Purpose.DENSE, 1000)
    assert cpu.signs(sample, 1, Purpose.DENSE, 300).tolist() == long[:300].tolist()


BASE = (Sample(11, 22, 33), 44, Purpose.DENSE)
OTHERS = {
    "key low": (Sample(12, 22, 33), 44, Purpose.DENSE),
    "key high": (Sample(11 | 1 << 32, 22, 33), 44, Purpose.DENSE),
    "number": (Sample(11, 23, 33), 44, Purpose.DENSE),
    "number high": (Sample(11, 22 | 1 << 31, 33), 44, Purpose.DENSE),
    "index": (Sample(11, 22, 34), 44, Purpose.DENSE),
    "index and number swapped": (Sample(11, 33, 22), 44, Purpose.DENSE),
    "tensor": (Sample(11, 22, 33), 45, Purpose.DENSE),
    **{p.name: (Sample(11, 22, 33), 44, p) for p in Purpose if p is not Purpose.DENSE},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_anything_that_differs_gives_unrelated_bits(other: tuple[Sample, int, Purpose]) -> None:
    count = 1 << 14
    product = float(np.mean(cpu.signs(*BASE, count) * cpu.signs(*other, count)))
    # The mean of 2**14 independent signs has standard deviation 2**-7; equal or opposite bits would give +-1.
    assert abs(product) < 5 * 2**-7


@settings(max_examples=200)
@given(pair=st.lists(st.tuples(samples, tensors, purposes), min_size=2, max_size=2, unique=True))
def test_two_directions_never_share_a_block(pair: list[tuple[Sample, int, Purpose]]) -> None:
    first, second = (reference.block(*one) for one in pair)
    assert first != second


def test_blocks_of_one_tensor_differ() -> None:
    seen = {reference.block(Sample(1, 2, 3), 4, Purpose.DENSE, number) for number in range(4096)}
    assert len(seen) == 4096


def test_mean_of_four_million_signs_is_zero() -> None:
    count = 1 << 22
    mean = float(np.mean(cpu.signs(Sample(99, 1, 0), 3, Purpose.DENSE, count), dtype=np.float64))
    # Standard deviation of the mean of n fair signs: n**-0.5 = 2**-11. Five of them: one draw in 1.7 million.
    assert abs(mean) < 5 * count**-0.5


def test_each_bit_position_of_a_block_is_fair() -> None:
    blocks = 1 << 15
    table = cpu.signs(Sample(7, 7, 7), 7, Purpose.DENSE, blocks * BLOCK).reshape(blocks, BLOCK)
    worst = float(np.abs(table.mean(axis=0, dtype=np.float64)).max())
    # 128 means of deviation 2**-7.5 each; beyond six deviations lies one in 500 million, times 128.
    assert worst < 6 * blocks**-0.5


def test_vectors_of_different_samples_are_uncorrelated() -> None:
    count = 1 << 16
    grid = itertools.product((1, 1 << 33), (0, 1), (0, 1), (0, 1), Purpose)
    vectors = [cpu.signs(Sample(k, n, i), t, p, count) for k, n, i, t, p in grid]
    correlation = (np.stack(vectors) @ np.stack(vectors).T) / count
    off_diagonal = correlation[~np.eye(len(vectors), dtype=bool)]
    # 64 vectors make 2016 pairs, each correlation of deviation 2**-8: six deviations are missed once in 250 000.
    assert len(vectors) == 64
    assert np.all(np.diag(correlation) == 1)
    assert float(np.abs(off_diagonal).max()) < 6 * count**-0.5


def test_lagged_signs_are_uncorrelated() -> None:
    count = 1 << 20
    signs = cpu.signs(Sample(5, 5, 5), 5, Purpose.COLUMN, count).astype(np.float64)
    worst = max(abs(float(signs[lag:] @ signs[:-lag])) / count for lag in (*range(1, 65), 96, 128, 256, 512))
    # 68 lags, each of deviation 2**-10; six deviations are missed once in seven million.
    assert worst < 6 * count**-0.5
