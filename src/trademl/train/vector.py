"""Eight float32 numbers in one register, for code that numba compiles.

A sum of floating-point numbers depends on its order. BLAS picks the order by the shape of the whole
product and by the machine; the loops that use these functions fix it, so that a model's bits depend
on nothing that is trained beside it. LLVM maps the operations to whatever vectors a CPU has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils as _cgutils
from numba.extending import models, register_model

LANES = 8
cgutils: Any = _cgutils
intrinsic: Any = extending.intrinsic  # its own annotations describe the body, not the call
_INT, _FLOAT = ir.IntType(32), ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(_INT, LANES)
# exp(x) = 2**n exp(r), n an integer and r within ln(2) / 2; exp(r) by Taylor's series to r**7
_LOG2_E = 1.4426950408889634
_LN_2_HIGH, _LN_2_LOW = 0.693145751953125, 1.4286068203094172e-6  # n times the first is exact
_SERIES = tuple(1.0 / math.factorial(power) for power in range(7, -1, -1))
_LOWEST = -87.0  # exp of it is still a normal float32


class Float8(types.Type):
    """The numba type of a vector of eight float32."""

    def __init__(self) -> None:
        super().__init__(name="Float8")


float8: Any = Float8()


@register_model(Float8)
class _Float8Model(models.PrimitiveModel):
    def __init__(self, manager: Any, front_end: Any) -> None:
        super().__init__(manager, front_end, _VECTOR)  # type: ignore[no-untyped-call]


def _same(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [value] * LANES)


def _call(builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> ir.Value:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(arguments))
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, arguments)


def _address(
    context: Any, builder: ir.IRBuilder, kind: Any, array: ir.Value, at: Sequence[ir.Value]
) -> ir.Value:
    held = context.make_array(kind)(context, builder, array)
    item = cgutils.get_item_pointer(context, builder, kind, held, at, wraparound=False)
    return builder.bitcast(item, _VECTOR.as_pointer())


Intrinsic = tuple[Any, Callable[..., Any]]


@intrinsic
def load8(typing: Any, array: Any, row: Any, column: Any) -> Intrinsic:
    """Return ``array[row, column : column + 8]``; bounds are the caller's duty."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(
            _address(context, builder, signature.args[0], arguments[0], arguments[1:])
        )
        value.align = 4
        return value

    return float8(array, types.intp, types.intp), emit


@intrinsic
def store8(typing: Any, array: Any, row: Any, column: Any, value: Any) -> Intrinsic:
    """Write a vector to ``array[row, column : column + 8]``; bounds are the caller's duty."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = _address(context, builder, signature.args[0], arguments[0], arguments[1:3])
        builder.store(arguments[3], target).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, float8), emit


@intrinsic
def zero8(typing: Any) -> Intrinsic:
    """Return eight zeros."""
    return float8(), lambda context, builder, signature, arguments: _same(0.0)


@intrinsic
def splat8(typing: Any, number: Any) -> Intrinsic:
    """Return one float32 in all eight lanes."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(nothing, arguments[0], ir.Constant(_INT, 0))
        return builder.shuffle_vector(first, nothing, ir.Constant(_INTS, [0] * LANES))

    return float8(types.float32), emit


@intrinsic
def fma8(typing: Any, x: Any, y: Any, z: Any) -> Intrinsic:
    """Return ``x * y + z`` lane by lane, rounded once."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "fma", *arguments)

    return float8(float8, float8, float8), emit


@intrinsic
def sum8(typing: Any, vector: Any) -> Intrinsic:
    """Return the sum of the lanes: halves are added until one number is left."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, width = arguments[0], LANES // 2
        while width:
            picks = ir.VectorType(_INT, width)
            low, high = (list(range(start, start + width)) for start in (0, width))
            value = builder.fadd(
                builder.shuffle_vector(value, value, ir.Constant(picks, low)),
                builder.shuffle_vector(value, value, ir.Constant(picks, high)),
            )
            width //= 2
        return builder.extract_element(value, ir.Constant(_INT, 0))

    return types.float32(float8), emit


@intrinsic
def decay8(typing: Any, vector: Any) -> Intrinsic:
    """Return ``exp(-abs(x))`` lane by lane, to 2e-7 relative; below exp(-87) it stays there."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = _call(builder, "fabs", arguments[0])
        exponent = _call(builder, "maxnum", builder.fneg(size), _same(_LOWEST))
        power = _call(builder, "fma", exponent, _same(_LOG2_E), _same(0.5))
        whole = _call(builder, "floor", power)
        rest = _call(builder, "fma", whole, _same(-_LN_2_HIGH), exponent)
        rest = _call(builder, "fma", whole, _same(-_LN_2_LOW), rest)
        value = _same(_SERIES[0])
        for coefficient in _SERIES[1:]:
            value = _call(builder, "fma", value, rest, _same(coefficient))
        biased = builder.add(builder.fptosi(whole, _INTS), ir.Constant(_INTS, [127] * LANES))
        bits = builder.shl(biased, ir.Constant(_INTS, [23] * LANES))
        return builder.fmul(value, builder.bitcast(bits, _VECTOR))

    return float8(float8), emit
