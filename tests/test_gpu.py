"""The Triton kernels against the definition and the CPU's: on a GPU if there is one, else in the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_seed.noise import BLOCK, MOST_TENSORS, Purpose, Sample, cpu, reference
from shared_seed.noise.philox import second_word, table
from test_noise import KNOWN_ANSWERS, purposes, samples, tensors, words

gpu = pytest.importorskip("shared_seed.noise.gpu", reason="Triton is there on Linux only", exc_type=ImportError)

WHERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHARE = 16 * BLOCK
"""Elements that one program writes."""

edges = st.sampled_from([0, 1, 31, 32, 33, 127, 128, 129, SHARE - 1, SHARE, SHARE + 1, 2 * SHARE + 77])
sizes = st.one_of(st.integers(0, 700), edges)
steps = st.integers(-(1 << 20), 1 << 20)


def bits(values: torch.Tensor) -> bytes:
    return values.cpu().numpy().tobytes()


def test_a_program_writes_as_much_as_these_tests_think() -> None:
    assert [gpu._programs(n) for n in (1, SHARE, SHARE + 1, 2 * SHARE)] == [1, 1, 2, 2]


def test_the_known_answer_becomes_signs_lowest_bit_first() -> None:
    expected = [-1 if word >> bit & 1 else 1 for word in words(KNOWN_ANSWERS[0][3]) for bit in range(32)]
    assert gpu.signs(Sample(0, 0, 0), 0, Purpose.DENSE, BLOCK, WHERE).tolist() == expected


@settings(max_examples=150)
@given(sample=samples, tensor=tensors, purpose=purposes, count=sizes)
def test_signs_equal_the_reference(sample: Sample, tensor: int, purpose: Purpose, count: int) -> None:
    drawn = gpu.signs(sample, tensor, purpose, count, WHERE)
    assert drawn.dtype is torch.float32
    assert drawn.device.type == WHERE.type
    assert drawn.tolist() == reference.signs(sample, tensor, purpose, count)


@given(
    sample=samples,
    tensor=tensors,
    purpose=purposes,
    count=sizes,
    amount=st.integers(-64, 64),
    seed=st.integers(0),
    first=st.integers(0, 3),
)
def test_shift_gives_the_bits_of_the_cpu(
    sample: Sample, tensor: int, purpose: Purpose, count: int, amount: int, seed: int, first: int
) -> None:
    # Off any grid, where sums round: that, too, is alike.
    mine = np.random.default_rng(seed).normal(size=count).astype(np.float32)
    its = torch.from_numpy(mine.copy()).to(WHERE)
    cpu.shift(mine, sample, tensor, purpose, amount / 16, first=first)
    gpu.shift(its, sample, tensor, purpose, amount / 16, first)
    assert bits(its) == mine.tobytes()


@settings(max_examples=60)
@given(
    drawn=st.lists(st.tuples(samples, steps), max_size=7),
    tensor=tensors,
    count=sizes,
    exponent=st.integers(0, 24),
    seed=st.integers(0),
    first=st.integers(0, 3),
)
def test_add_signs_gives_the_bits_of_the_cpu(
    drawn: list[tuple[Sample, int]], tensor: int, count: int, exponent: int, seed: int, first: int
) -> None:
    chosen, amounts = [s for s, _ in drawn], np.array([u * 2.0**-exponent for _, u in drawn], np.float32)
    mine = np.random.default_rng(seed).normal(size=count).astype(np.float32)
    its = torch.from_numpy(mine.copy()).to(WHERE)
    cpu.add_signs(mine, first, second_word(tensor, Purpose.DENSE), table(chosen), amounts)
    gpu.add_signs(its, chosen, amounts, tensor, first)
    assert bits(its) == mine.tobytes()


@given(
    drawn=st.lists(st.tuples(samples, steps), max_size=4),
    tensor=tensors,
    start=st.lists(st.integers(-1000, 1000), max_size=300),
)
def test_add_signs_adds_the_integer_sum_of_the_reference(
    drawn: list[tuple[Sample, int]], tensor: int, start: list[int]
) -> None:
    values = torch.tensor(start, dtype=torch.float32, device=WHERE) / 16
    amounts = np.array([u for _, u in drawn], np.float32) / 16
    gpu.add_signs(values, [s for s, _ in drawn], amounts, tensor)
    totals = list(start)
    for sample, step in drawn:
        for e, sign in enumerate(reference.signs(sample, tensor, Purpose.DENSE, len(start))):
            totals[e] += step * sign
    assert values.tolist() == [total / 16 for total in totals]


@given(
    chosen=st.lists(samples, max_size=4), tensor=tensors, purpose=purposes, count=sizes, first=st.integers(0, 3)
)
def test_sign_rows_equal_the_reference(
    chosen: list[Sample], tensor: int, purpose: Purpose, count: int, first: int
) -> None:
    drawn = gpu.sign_rows(chosen, tensor, purpose, count, WHERE, first)
    assert drawn.dtype is torch.float32
    assert drawn.shape == (len(chosen), count)
    skipped = first * BLOCK
    whole = [reference.signs(sample, tensor, purpose, skipped + count) for sample in chosen]
    assert drawn.tolist() == [row[skipped:] for row in whole]


@given(sample=samples, wanted=st.lists(st.tuples(tensors, purposes, sizes), max_size=5))
def test_vectors_of_many_tensors_at_once_equal_the_reference(
    sample: Sample, wanted: list[tuple[int, Purpose, int]]
) -> None:
    drawn = gpu.vectors(sample, wanted, WHERE)
    assert [v.tolist() for v in drawn] == [reference.signs(sample, *one) for one in wanted]
    # Whatever reads them may read 16 bytes at a time.
    assert all(v.storage_offset() % BLOCK == 0 for v in drawn)


def test_a_matrix_is_shifted_row_by_row() -> None:
    sample, matrix = Sample(1, 2, 3), torch.zeros(33, 65, device=WHERE)
    gpu.shift(matrix, sample, MOST_TENSORS - 1, Purpose.DENSE, 0.25)
    assert (matrix.flatten() * 4).tolist() == reference.signs(sample, MOST_TENSORS - 1, Purpose.DENSE, 33 * 65)


def test_memory_that_is_not_in_a_row_is_refused() -> None:
    with pytest.raises(RuntimeError, match="view"):
        gpu.shift(torch.zeros(4, 6, device=WHERE).T, Sample(1, 2, 3), 0, Purpose.DENSE, 1.0)


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from shared_seed.noise import gpu

places = dict.fromkeys(["count", "base"], "i32")
for kernel, arguments in (
    (gpu._add_signs, {"values": "*fp32", **places, "table": "*i64", "amounts": "*fp32", "samples": "i32"}),
    (gpu._vectors, {"out": "*fp32", "table": "*i64"}),
):
    for generation in (75, 80, 90, 100):
        made = compile(ASTSource(kernel, arguments, {}), target=GPUTarget("cuda", generation, 32))
        high = made.asm["ptx"].count("mul.hi.u32")
        print(kernel.__name__, generation, high, len(made.asm["cubin"]) > 0, ".local" in made.asm["ptx"])
"""


def test_the_kernels_compile_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    # Triton reads the text of kernels, so the script does nothing but compile.
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 2 * 4
    # Two multiplications a round, ten rounds: Philox once a block, not once an element.
    assert {(high, cubin, local) for _, _, high, cubin, local in lines} == {("20", "True", "False")}
