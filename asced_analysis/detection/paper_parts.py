"""The paper's detector on one large image, of which few pixels are widened at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.counts.changes import parts_of
from asced_analysis.counts.selection import deviation_of, median_of

Floats = npt.NDArray[np.float32]


def largest_ratio(
    arrays: Mapping[str, Any],
    steps: range,
    kappa: tuple[float, ...],
    *,
    absolute: bool,
    around_zero: bool,
) -> Floats:
    """What `paper.Stream` has as its statistic after all steps, shape (1, y, x).

    Parameters
    ----------
    arrays : mapping of str to array, shape (1, step, channel, y, x)
        Holding ``eps``, read step by step.
    steps : range
        Places along its steps.
    kappa : tuple of float
        ``sigma / alpha`` of each.
    absolute : bool
        Whether the score bank holds absolute values.
    around_zero : bool
        Whether deviations are taken from zero, and not from the median.
    """
    *_, height, width = arrays["eps"].shape
    statistic = np.zeros(height * width, np.float32)
    last, bank = None, 0.0
    for seen, (step, factor) in enumerate(zip(steps, kappa, strict=True), start=1):
        values = np.asarray(arrays["eps"][:, step])[0]
        now = _Step(values.reshape(len(values), -1), np.float32(-factor))
        bank += now.bank(absolute=absolute)
        if last is not None:
            _take_in(statistic, last, now, bank / seen, around_zero=around_zero)
        last = now
    return statistic.reshape(1, height, width)


@dataclass(frozen=True)
class _Step:
    """A step's eps as it is stored, shape (channel, pixel), and what makes it a weighted score."""

    eps: npt.NDArray[Any]
    factor: np.float32

    def part(self, channel: int, which: slice) -> Floats:
        """Weighted score of some pixels."""
        values: Floats = self.eps[channel, which].astype(np.float32) * self.factor
        return values

    def parts(self) -> Iterator[tuple[int, slice]]:
        """Channels and pixels that are worked on together."""
        channels, pixels = self.eps.shape
        return ((at, which) for at in range(channels) for which in parts_of(pixels))

    def bank(self, *, absolute: bool) -> float:
        """Mean of the score, or of its absolute value."""
        values = (self.part(*one) for one in self.parts())
        total = sum(float((np.abs(one) if absolute else one).sum()) for one in values)
        return total / self.eps.size


def _take_in(statistic: Floats, last: _Step, now: _Step, bank: float, *, around_zero: bool) -> None:
    """The largest of what there was and of the dynamics by tau, in place."""
    size = now.eps.size

    def dynamics() -> Iterator[Floats]:
        return (now.part(*one) - last.part(*one) for one in now.parts())

    mad = np.float32(np.nan)
    if not any(np.isnan(part).any() for part in dynamics()):
        center = np.float32(0) if around_zero else median_of(dynamics, size)
        mad = deviation_of(dynamics, size, center)
    tau = np.maximum(np.maximum(mad, np.float32(bank)), np.float32(1e-6))
    for which in parts_of(now.eps.shape[1]):
        for channel in range(len(now.eps)):
            ratio = np.abs(now.part(channel, which) - last.part(channel, which)) / tau
            np.maximum(statistic[which], ratio, out=statistic[which])
