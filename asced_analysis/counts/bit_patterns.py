"""Bit patterns of floating-point numbers as keys: what counts are kept by.

The pattern of a non-negative number, read as an integer, orders as the number does. A float16 is
its own key (kind ``"half"``); of a float32, the upper 20 bits are (kind ``"single"``), so a bin is
2**-11 of its value wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Kind: TypeAlias = Literal["half", "single"]
"""Counted exactly, or in bins."""

RELATIVE_ERROR: Mapping[str, float] = {"half": 0.0, "single": 2.0**-11}
"""Largest relative error of a quantile, by kind."""

_WIDTH = 12  # of a float32 pattern; 11 bits of mantissa stay

SHIFT: Mapping[str, Any] = {"half": np.uint16(0), "single": np.uint32(_WIDTH)}
"""Bits of a pattern that the key leaves out."""

MAGNITUDE: Mapping[str, Any] = {"half": np.uint16(0x7FFF), "single": np.uint32(0x7FFFFFFF)}
"""Every bit of a pattern but the sign."""

INFINITY: Mapping[str, int] = {"half": 0x7C00, "single": 0x7F800000 >> _WIDTH}
"""Key of infinity; larger ones are NaN."""

SPAN: Mapping[str, int] = {"half": 1 << 15, "single": 1 << (31 - _WIDTH)}
"""Keys of one sign, NaN included."""

BLOCK = 1 << 10
"""Neighbouring keys that are kept or left out together: half an octave."""


def values_of(keys: npt.NDArray[np.integer[Any]], kind: Kind) -> npt.NDArray[np.float64]:
    """Lower edge of the bins (magnitudes) with these keys; the value itself for ``"half"``.

    Parameters
    ----------
    keys : array of int
        Non-negative keys.
    kind : {"half", "single"}
        What was counted.

    Returns
    -------
    numpy.ndarray of float64, the shape of `keys`
    """
    if kind == "half":
        return keys.astype(np.uint16).view(np.float16).astype(np.float64)
    return (keys.astype(np.uint32) << np.uint32(_WIDTH)).view(np.float32).astype(np.float64)
