"""Memory that large arrays are read into and counted in."""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PAGE, _HUGE_PAGE = 4096, 1 << 21
_KEPT = 32 << 20  # bytes for a thread: a shard of eps and x0 is read while another is worked on


class _Memory(threading.local):
    """What a thread has asked for lately, the latest last."""

    def __init__(self) -> None:
        self.arrays: list[NDArray[np.uint8]] = []

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """An array of this size that only this list refers to, or a new one."""
        for index in range(len(self.arrays)):
            array = self.arrays[index]
            if array.nbytes == nbytes and sys.getrefcount(array) == _references:
                del self.arrays[index]
                break
        else:
            array = np.empty(nbytes, np.uint8)
        self.arrays.append(array)
        while sum(each.nbytes for each in self.arrays) > _KEPT:
            del self.arrays[0]
        return array


def _count_references() -> int:
    """References to an array that a list and a variable hold, as this Python counts them."""
    arrays = [np.empty(0)]
    array = arrays[0]
    return sys.getrefcount(array)


_memory = _Memory()
_references = _count_references()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Make an uninitialised array that begins with a page of memory, where it is large.

    Some processors (AMD Zen 3 and later) copy at 3 GB/s instead of 25 where the target lies 1 to
    63 bytes further within its page than the source. Chunks of a shard lie 4 bytes further each
    than in memory, for their checksums, so that from the start of a page on they never do; what
    NumPy allocates begins 16 bytes into a page.

    From 2 MB on it begins with a huge page, which NumPy asks the system for from 4 MB on: in Dask's
    workers, where fresh memory is never kept, 800 faults a shard of 3.3 MB were a quarter of the
    time of counting it. A thread's last 32 MB are used again once nothing refers to them
    any more: reading one shard after another takes two thirds of the time.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < 16 * _PAGE:
        return np.empty(shape, dtype)
    page = _PAGE if nbytes < _HUGE_PAGE else _HUGE_PAGE
    memory = _block(-(-nbytes // page) * page + page)
    start = -memory.__array_interface__["data"][0] % page
    return memory[start : start + nbytes].view(dtype).reshape(shape)


def _block(nbytes: int) -> NDArray[np.uint8]:
    """Memory of this size: what this thread used last time, if it is free."""
    if not _HUGE_PAGE <= nbytes <= _KEPT:
        return np.empty(nbytes, np.uint8)
    return _memory.take(nbytes)
