"""Weighted sums of many rows in one pass, by machine code that LLVM makes for their width.

numpy multiplies, keeps the products and adds them up: three passes over what fills a cache. Here
it is one, and the sums are numpy's bit for bit: it adds halves (pairwise summation), down to
blocks of at most 128 products, and those in eight sums side by side.

The code goes to LLVM without numba between, and is ready in some 30 ms. numba takes half a second
to load its first function from disk, in which numpy adds up 3 GB of rows.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numpy.typing import NDArray

_WIDEST = 16_384  # columns; the code grows with them
_FEWEST = 64  # rows, below which numpy is as quick: a server of single rows keeps no code
_CHUNK_BYTES = 512 * 1024  # of float64 products made at once: they stay in a core's own cache
_BLOCK, _SUMS = 128, 8
_BYTE, _INT, _FLOAT, _DOUBLE = ir.IntType(8), ir.IntType(64), ir.FloatType(), ir.DoubleType()
_FLOATS, _DOUBLES = ir.VectorType(_FLOAT, _SUMS), ir.VectorType(_DOUBLE, _SUMS)
_ARGUMENTS = (_BYTE.as_pointer(), _INT, _INT, _DOUBLE.as_pointer(), _DOUBLE.as_pointer())
_AS_CALLED = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
)

Floats = NDArray[np.float64]


def weighted_sums(rows_ND: NDArray[Any], weights_D: Floats) -> Floats:
    """Return what ``row * weights`` adds up to, float64 of shape (N,).

    Parameters
    ----------
    rows_ND : ndarray of shape (N, D)
        Anywhere in memory. From 64 on, rows of float32 go the short way, up to 16,384 columns wide.
    weights_D : ndarray of float64, shape (D,)
        As many as a row has columns: that is the caller's duty.

    Notes
    -----
    Bit for bit ``np.add.reduce(np.multiply(rows_ND, weights_D, dtype=np.float64), axis=1)`` of
    contiguous rows. Python's lock is let go.

    Examples
    --------
    >>> weighted_sums(np.float32([[1, 2, 3]]), np.array([0.5, 0.25, 2.0]))
    array([7.])
    """
    weights_D = np.ascontiguousarray(weights_D, np.float64)
    sum_N = np.empty(len(rows_ND))
    is_worth_it = len(rows_ND) >= _FEWEST and 0 < len(weights_D) <= _WIDEST
    fill = _fill if is_worth_it and rows_ND.dtype == np.float32 else _numpy_fill
    are_contiguous = rows_ND.strides[1] == rows_ND.itemsize
    n_chunk = max(1, _CHUNK_BYTES // (8 * max(1, len(weights_D))))
    if fill is _fill and are_contiguous:
        n_chunk = max(1, len(rows_ND))
    for start in range(0, len(rows_ND), n_chunk):
        chunk_ND = rows_ND[start : start + n_chunk]
        if not are_contiguous:  # columns of Parquet
            chunk_ND = np.ascontiguousarray(chunk_ND)
        fill(chunk_ND, weights_D, sum_N[start : start + n_chunk])
    return sum_N


def _numpy_fill(rows_ND: NDArray[Any], weights_D: Floats, sum_N: Floats) -> None:
    products_ND = np.multiply(rows_ND, weights_D, dtype=np.float64)
    np.add.reduce(products_ND, axis=1, out=sum_N)


def _fill(rows_ND: NDArray[Any], weights_D: Floats, sum_N: Floats) -> None:
    summing = _summing(len(weights_D))  # held: its code goes with it, perhaps out of the cache
    summing.call(
        rows_ND.ctypes.data,
        rows_ND.strides[0],
        len(rows_ND),
        weights_D.ctypes.data,
        sum_N.ctypes.data,
    )


@dataclass(frozen=True)
class _Compiled:
    """A function, and the engine whose memory it lies in."""

    call: Callable[..., None]
    engine: Any


@lru_cache(maxsize=16)
def _summing(n_columns: int) -> _Compiled:
    """Return the code for rows of a width: (rows, bytes from row to row, N, weights, sums)."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=_cpu_features(), opt=3
    )
    module = binding.parse_assembly(str(_module(n_columns)))
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return _Compiled(_AS_CALLED(engine.get_function_address("fill_sums")), engine)


def _cpu_features() -> str:
    try:
        return str(binding.get_host_cpu_features().flatten())
    except RuntimeError:  # LLVM cannot tell on every system
        return ""


def _module(n_columns: int) -> ir.Module:
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), _ARGUMENTS), "fill_sums")
    rows, row_bytes, n_rows, weights, sums = function.args
    before = function.append_basic_block()
    builder = ir.IRBuilder(before)
    builder.branch(body := function.append_basic_block())

    builder.position_at_end(body)
    n = builder.phi(_INT)
    row = builder.gep(rows, [builder.mul(n, row_bytes)], source_etype=_BYTE)
    total = _Row(builder, row, weights).sum(0, n_columns)
    # numpy begins with a zero, which makes 0 of a sum of -0
    total = builder.fadd(_DOUBLE(0.0), total)
    builder.store(total, builder.gep(sums, [n], source_etype=_DOUBLE))
    after_n = builder.add(n, _INT(1))
    n.add_incoming(_INT(0), before)
    n.add_incoming(after_n, builder.block)
    end = function.append_basic_block()
    builder.cbranch(builder.icmp_unsigned("<", after_n, n_rows), body, end)

    builder.position_at_end(end)
    builder.ret_void()
    return module


@dataclass(frozen=True)
class _Row:
    """Writes the code that adds up columns of one row times their weights."""

    builder: ir.IRBuilder
    row: ir.Value
    weights: ir.Value

    def sum(self, start: int, n: int) -> ir.Value:
        """Add up ``n`` columns as numpy's pairwise summation does."""
        if n > _BLOCK:
            half = n // 2
            half -= half % _SUMS
            left = self.sum(start, half)
            return self.builder.fadd(left, self.sum(start + half, n - half))
        end, n_eights = start + n, n - n % _SUMS
        total = self._sum_of_eights(start, start + n_eights) if n_eights else None
        for column in range(start + n_eights, end):
            product = self._product(_INT(column), _FLOAT, _DOUBLE)
            total = product if total is None else self.builder.fadd(total, product)
        return total

    def _sum_of_eights(self, start: int, end: int) -> ir.Value:
        """Write a loop over columns, eight at a time into eight sums, and add these in pairs."""
        builder, before = self.builder, self.builder.block
        builder.branch(body := builder.append_basic_block())
        builder.position_at_end(body)
        column, sums = builder.phi(_INT), builder.phi(_DOUBLES)
        added = builder.fadd(sums, self._product(column, _FLOATS, _DOUBLES))
        after_column = builder.add(column, _INT(_SUMS))
        for value, first, following in (
            (column, _INT(start), after_column),
            (sums, ir.Constant(_DOUBLES, [0.0] * _SUMS), added),
        ):
            value.add_incoming(first, before)
            value.add_incoming(following, body)
        is_more = builder.icmp_unsigned("<", after_column, _INT(end))
        builder.cbranch(is_more, body, after := builder.append_basic_block())
        builder.position_at_end(after)
        return self._sum_of_pairs(added)

    def _sum_of_pairs(self, sums: ir.Value) -> ir.Value:
        """Add neighbours until one is left: ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))."""
        builder = self.builder
        left = [builder.extract_element(sums, _INT(k)) for k in range(_SUMS)]
        while len(left) > 1:
            left = [builder.fadd(*pair) for pair in zip(left[::2], left[1::2], strict=True)]
        return left[0]

    def _product(self, column: ir.Value, narrow: ir.Type, wide: ir.Type) -> ir.Value:
        """Multiply features from a column on by their weights, as float64."""
        feature = self._load(self.row, column, _FLOAT, narrow)
        weight = self._load(self.weights, column, _DOUBLE, wide)
        return self.builder.fmul(self.builder.fpext(feature, wide), weight)

    def _load(self, start: ir.Value, column: ir.Value, item: ir.Type, kind: ir.Type) -> ir.Value:
        """Read numbers at any address."""
        start = self.builder.bitcast(start, item.as_pointer())
        place = self.builder.gep(start, [column], source_etype=item)
        place = self.builder.bitcast(place, kind.as_pointer())
        return self.builder.load(place, align=1, typ=kind)
