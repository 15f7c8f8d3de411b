"""Sums of rank-1 directions by table look-up: "the method of the four Russians", in vector registers.

For four samples, ``sum_i units[i] * u_i[r] * v_i[c]`` has only 16 different values, one for each pattern of the
four signs ``u_i[r] * v_i[c]``. A table of 16 float32 numbers fills one AVX-512 register, and one permutation
instruction looks up 16 elements at once: as much as 64 multiplications and additions of a matrix product
(Arlazarov, Dinic, Kronrod, Faradzhev 1970; Albrecht, Bard, Hart 2010, section 2). Turning the signs of a row,
``u_i[r]``, only permutes the tables.

All sums are of grid units and exact, so the result has the same bits as a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from shared_seed.noise.packed import pack

LANES = 16
"""float32 numbers in a register."""

GROUPS = 8
"""Groups of four samples in a word of 32."""

FEW = 2
"""Groups that are looked up where a word holds no more: with few samples most time would go to empty groups."""

_FLOAT, _WORD, _SIZE = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _WORDS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_WORD, LANES)


def available() -> bool:
    """Whether the kernels below can run on this processor, as numba is set to compile for it."""
    features = numba.config.CPU_FEATURES
    if features is not None:
        return "+avx512f" in features
    return numba.config.CPU_NAME is None and host_has_avx512()


@cache
def host_has_avx512() -> bool:
    """Whether this processor has the instruction that looks up 16 numbers."""
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any, to: Any) -> Any:
    """Where ``array[index]`` of a flat array lies, as a pointer to a vector."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def _permute(builder: Any, values: Any, index: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS, _WORDS])
    instruction = builder.module.declare_intrinsic("llvm.x86.avx512.permvar.sf.512", fnty=kind)
    return builder.call(instruction, [values, index])


def _shifted(builder: Any, words: Any, group: int) -> Any:
    """A group's four bits, lowest; the permutation looks at no others."""
    return builder.lshr(words, ir.Constant(_WORDS, [4 * group] * LANES))


@intrinsic
def _turn(typing_context, turned, base, signs):  # type: ignore[no-untyped-def]
    """``turned[16 * g + p] = base[16 * g + (p ^ s)]``, ``s`` the four bits of ``signs`` for group ``g``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds, first = signature.args, ir.Constant(_SIZE, 0)
        into = _pointer(context, builder, kinds[0], args[0], first, _FLOATS)
        source = _pointer(context, builder, kinds[1], args[1], first, _FLOATS)
        undefined, zeros = ir.Constant(_WORDS, ir.Undefined), ir.Constant(_WORDS, [0] * LANES)
        one = builder.insert_element(undefined, args[2], ir.Constant(_WORD, 0))
        signs = builder.shuffle_vector(one, one, zeros)
        patterns = ir.Constant(_WORDS, list(range(LANES)))
        for group in range(GROUPS):
            at = [ir.Constant(_SIZE, group)]
            index = builder.xor(_shifted(builder, signs, group), patterns)
            found = _permute(builder, builder.load(builder.gep(source, at), align=4), index)
            builder.store(found, builder.gep(into, at), align=4)
        return context.get_dummy_value()

    return types.void(turned, base, signs), generate


def _adder(rows: int, groups: int) -> Callable[..., None]:
    """An intrinsic that adds what is looked up for the first groups to 16 columns of so many rows."""

    @intrinsic
    def add(typing_context, values, at, stride, words, column, tables):  # type: ignore[no-untyped-def]
        """``values[at + q * stride + l] += sum_g tables[128 * q + 16 * g + pattern]`` for ``q`` below ``rows``."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            at, stride = args[1], args[2]
            words = builder.load(_pointer(context, builder, kinds[3], args[3], args[4], _WORDS), align=4)
            tables = _pointer(context, builder, kinds[5], args[5], ir.Constant(_SIZE, 0), _FLOATS)
            patterns = [_shifted(builder, words, group) for group in range(groups)]
            for row in range(rows):
                where = builder.add(at, builder.mul(stride, ir.Constant(_SIZE, row)))
                place = _pointer(context, builder, kinds[0], args[0], where, _FLOATS)
                terms = [builder.load(place, align=4)]
                for group in range(groups):
                    table = builder.gep(tables, [ir.Constant(_SIZE, GROUPS * row + group)])
                    terms.append(_permute(builder, builder.load(table, align=4), patterns[group]))
                # In pairs: a chain of additions would wait for each in turn.
                while len(terms) > 1:
                    odd = terms[len(terms) // 2 * 2 :]
                    terms = [builder.fadd(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)] + odd
                builder.store(terms[0], place, align=4)
            return context.get_dummy_value()

        return types.void(values, at, stride, words, column, tables), generate

    return add  # type: ignore[no-any-return]


# Four rows share the shifted patterns of their columns; the last rows of a matrix come one by one.
_four_rows, _one_row = _adder(4, GROUPS), _adder(1, GROUPS)
_four_rows_few, _one_row_few = _adder(4, FEW), _adder(1, FEW)


@numba.njit(cache=True, nogil=True)
def _tables(amounts):  # type: ignore[no-untyped-def]
    """float32 [words, 128]: for each group of four samples, the sum for each pattern of signs."""
    words = (amounts.size + 31) // 32
    out = np.zeros((words, 128), np.float32)
    for i in range(amounts.size):
        for pattern in range(16):
            sign = np.float32(-1) if pattern >> (i % 4) & 1 else np.float32(1)
            out[i // 32, 16 * (i % 32 // 4) + pattern] += amounts[i] * sign
    return out


@numba.njit(cache=True, nogil=True)
def _add_to(values, at, stride, columns, rows, words, tables, few):  # type: ignore[no-untyped-def]
    """Look up a multiple of 16 columns of four rows or of one, ``values[at + row * stride + column]``."""
    for column in range(0, columns, 16):
        if rows == 4 and few:
            _four_rows_few(values, at + column, stride, words, column, tables)
        elif rows == 4:
            _four_rows(values, at + column, stride, words, column, tables)
        elif few:
            _one_row_few(values, at + column, stride, words, column, tables)
        else:
            _one_row(values, at + column, stride, words, column, tables)


@numba.njit(cache=True, nogil=True)
def _add_rows(values, first, rows, row_words, column_words, tables, turned, few):  # type: ignore[no-untyped-def]
    """One word of samples for rows ``first`` to ``first + rows``: four of them, or one."""
    columns = values.shape[1]
    whole = columns // 16 * 16
    for q in range(rows):
        _turn(turned[128 * q : 128 * q + 128], tables, row_words[first + q])
    _add_to(values.reshape(-1), first * columns, columns, whole, rows, column_words, turned, few)
    if whole < columns:
        edge = np.zeros(64, np.float32)
        for q in range(rows):
            edge[16 * q : 16 * q + columns - whole] = values[first + q, whole:]
        _add_to(edge, 0, 16, 16, rows, column_words[whole:], turned, few)
        for q in range(rows):
            values[first + q, whole:] = edge[16 * q : 16 * q + columns - whole]


@numba.njit(cache=True, nogil=True)
def add(values, first_block, row_c1, column_c1, samples, amounts):  # type: ignore[no-untyped-def]
    """``values[r, c] += sum_i amounts[i] * u_i[r] * v_i[c]``, in place.

    Args:
        values: float32 [rows, columns], contiguous; row 0 is row ``128 * first_block`` of the tensor.
        first_block: see above.
        row_c1: the counter's second word for ``u``.
        column_c1: and for ``v``.
        samples: uint64 [samples, 3].
        amounts: float32 [samples], multiples of the grid's unit.
    """
    rows, columns = values.shape
    tables = _tables(amounts)
    row_words = np.zeros((tables.shape[0], rows), np.uint32)
    column_words = np.zeros((tables.shape[0], (columns + 15) // 16 * 16), np.uint32)
    pack(row_words, first_block, rows, row_c1, samples)
    pack(column_words, 0, columns, column_c1, samples)
    turned = np.empty(128 * 4, np.float32)
    first = 0
    while first < rows:
        count = 4 if rows - first >= 4 else 1
        for w in range(tables.shape[0]):
            few = amounts.size - 32 * w <= 4 * FEW
            _add_rows(values, first, count, row_words[w], column_words[w], tables[w], turned, few)
        first += count
