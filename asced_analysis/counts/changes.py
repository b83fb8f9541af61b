"""A change between two steps, widened piece by piece: what large runs are read for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

PART = 1 << 16
"""Values that are widened at once: they stay in the cache, and cost no memory."""


def parts_of(size: int, length: int = 0) -> Iterator[slice]:
    """Ranges of so many values, one after another.

    Parameters
    ----------
    size : int
        Of all.
    length : int, optional
        Of one; `PART` by default.
    """
    each = length or PART
    return (slice(at, min(at + each, size)) for at in range(0, size, each))


def steps_at_once(values: int) -> int:
    """Number of steps, of so many values each, that are widened at once: one where it is large."""
    return max(1, PART // values)


class Change:
    """What `Plan.values` gives of a step of one run, made piece by piece where it is wanted.

    Widened at once, a step and the one before took six times what is stored of a step.
    """

    last: npt.NDArray[Any] | None = None
    now: npt.NDArray[Any] | None = None
    scale: tuple[np.float32 | None, np.float32 | None] = (None, None)
    after: np.float32 | None = None

    @property
    def size(self) -> int:
        """Number of values."""
        return 0 if self.now is None else self.now.size

    def stored(self, which: slice) -> npt.NDArray[Any]:
        """Some neighbouring values of the step itself, as they are stored."""
        assert self.now is not None
        return self.now[which]

    def part(self, which: slice) -> npt.NDArray[np.float32]:
        """Some neighbouring values, a copy."""
        now = _scaled(self.stored(which), self.scale[1])
        if self.last is not None:
            np.subtract(now, _scaled(self.last[which], self.scale[0]), out=now)
            if self.after is not None:
                now *= self.after
        return now

    def parts(self, length: int = 0) -> Iterator[npt.NDArray[np.float32]]:
        """All values, so many at a time."""
        return (self.part(which) for which in parts_of(self.size, length))


def _scaled(values: npt.NDArray[Any], factor: np.float32 | None) -> npt.NDArray[np.float32]:
    """Values in float32 times a factor."""
    wide = np.empty(values.shape, np.float32)
    widen(values, wide)
    if factor is not None:
        wide *= factor
    return wide


def widen(values: npt.NDArray[np.floating[Any]], out: npt.NDArray[np.float32]) -> None:
    """``out = values``; fp16 numbers by their bits: 4 us for 65,536, NumPy's cast takes 76.

    Parameters
    ----------
    values : numpy.ndarray
        Of any floating type.
    out : numpy.ndarray, float32
        Of the same shape.
    """
    if values.dtype != np.float16:
        np.copyto(out, values, casting="unsafe")
        return
    from asced_analysis.signals.loops import widen as compiled

    compiled(np.ascontiguousarray(values).view(np.int16).reshape(-1), out.reshape(-1))
