"""A number of an fp16 pattern within a compiled loop, by the processor's own instruction.

Nearly every processor has one (F16C of x86, ARM's from version 8 on): 0.04 ns a number in the
first-level cache, where moving bits takes 0.07. Without it LLVM calls a function that a compiled
loop cannot reach, and Python dies; so bits are moved there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

_HALF_SCALE = np.float32(2.0**112)
_SIGN_AND_HALF = np.int32(-0x70002000)  # 0x8FFFE000: the sign, and fifteen bits below the top four
_HALF_INFINITY = np.int16(0x7C00)
_INFINITY = np.int32(0x7F800000)


def converts(machine: str, features: str) -> bool:
    """Whether a processor has the instruction.

    Parameters
    ----------
    machine : str
        As LLVM names it: ``x86_64-unknown-linux-gnu``.
    features : str
        Those that are compiled for: ``+avx,-avx512f,+f16c``.
    """
    return machine.startswith(("aarch64", "arm64")) or "+f16c" in features.split(",")


@intrinsic
def by_instruction(_: Any, half: Any) -> Any:
    """The float32 number of an fp16 pattern (int16), exactly."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.fpext(builder.bitcast(values[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.int16), generate


@njit(inline="always")
def by_bits(half: Any) -> Any:
    """The same: shifted by 13, the bits of a finite number are those of one 2**112 times smaller.

    Subnormal numbers included.
    """
    wide = (np.int32(half) << np.int32(13)) & _SIGN_AND_HALF
    if half & _HALF_INFINITY == _HALF_INFINITY:
        wide |= _INFINITY
    return np.int32(wide).view(np.float32) * _HALF_SCALE


def _instruction_here() -> bool:
    """Whether loops are compiled, for a processor that has the instruction."""
    if getattr(config, "DISABLE_JIT", False):
        return False
    machine, _, features = cpu_target.target_context.codegen().magic_tuple()
    return converts(machine, features)


to_float: Any = by_instruction if _instruction_here() else by_bits
"""The one for this processor; loops that Numba keeps on disk are kept for each kind of it."""
