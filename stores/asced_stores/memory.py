"""Memory that large arrays are read into and counted in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PAGE, _HUGE_PAGE = 4096, 1 << 21


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Make an uninitialised array that begins with a page of memory, where it is large.

    Some processors (AMD Zen 3 and later) copy at 3 GB/s instead of 25 where the target lies 1 to
    63 bytes further within its page than the source. Chunks of a shard lie 4 bytes further each
    than in memory, for their checksums, so that from the start of a page on they never do; what
    NumPy allocates begins 16 bytes into a page.

    From 2 MB on it begins with a huge page, which NumPy asks the system for from 4 MB on: in Dask's
    workers, where fresh memory is never kept, 800 faults a shard of 3.3 MB were a quarter of the
    time of counting it.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < 16 * _PAGE:
        return np.empty(shape, dtype)
    page = _PAGE if nbytes < _HUGE_PAGE else _HUGE_PAGE
    memory = np.empty(-(-nbytes // page) * page + page, np.uint8)
    start = -memory.__array_interface__["data"][0] % page
    return memory[start : start + nbytes].view(dtype).reshape(shape)
