"""Interleaved pairs: how every bench of this folder compares a plain way with ours.

Machines drift while a bench runs, so figures of two blocks of repetitions cannot be compared; a
ratio within a pair can. Who is first alternates, and the first pair warms both up.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Work = Callable[[], Any]


class Estimate(NamedTuple):
    """A median with the 95 % interval of its bootstrap."""

    median: float
    low: float
    high: float

    @property
    def interval(self) -> list[float]:
        """Both ends, rounded for printing."""
        return [round(self.low, 3), round(self.high, 3)]


def median_interval(values: NDArray[np.float64]) -> Estimate:
    """Median of ``(pair,)`` values, with a bootstrap over pairs."""
    draws = np.random.default_rng(0).choice(values, (2000, len(values)))
    low, high = np.quantile(np.median(draws, 1), [0.025, 0.975])
    return Estimate(float(np.median(values)), float(low), float(high))


def timed(work: Work) -> tuple[float, float]:
    """Wall and CPU seconds of all threads; on an accelerator, until everything has run."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    torch = sys.modules.get("torch")
    if torch is not None and torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


@dataclass(frozen=True)
class Pairs:
    """Seconds of a comparison: ``(pair, plain | ours, wall | CPU)``."""

    seconds: NDArray[np.float64]

    def wall(self, *, faster: bool = False) -> Estimate:
        """Our wall time over the plain one's; with ``faster``, how many times faster ours is."""
        return self._ratio(0, faster)

    def cpu(self, *, faster: bool = False) -> Estimate:
        """The same in CPU seconds."""
        return self._ratio(1, faster)

    def _ratio(self, kind: int, faster: bool) -> Estimate:
        plain, ours = self.seconds[:, 0, kind], self.seconds[:, 1, kind]
        return median_interval(plain / ours if faster else ours / plain)

    def row(self, name: str, *, faster: bool = False, **more: Any) -> dict[str, Any]:
        """Ratios with intervals, median seconds, and whatever else belongs to the row."""
        wall, cpu = self.wall(faster=faster), self.cpu(faster=faster)
        seconds = np.median(self.seconds, 0)
        (plain_wall, plain_cpu), (own_wall, own_cpu) = (
            [float(f"{value:.4g}") for value in way] for way in seconds
        )
        return {
            "row": name,
            "ratio": round(wall.median, 3),
            "interval": wall.interval,
            "cpu_ratio": round(cpu.median, 3),
            "cpu_interval": cpu.interval,
            "plain_s": plain_wall,
            "s": own_wall,
            "plain_cpu_s": plain_cpu,
            "cpu_s": own_cpu,
            "pairs": len(self.seconds),
            **more,
        }


def measure(prepare: Callable[[int], tuple[Work, Work]], pairs: int) -> Pairs:
    """Time what ``prepare`` returns for each pair's number, a plain way and ours."""
    found = []
    for pair in range(pairs + 1):
        works = prepare(pair)
        first = pair % 2
        times = {which: timed(works[which]) for which in (first, 1 - first)}
        if pair:
            found.append((times[0], times[1]))
    return Pairs(np.asarray(found))


def compare(plain: Work, ours: Work, pairs: int) -> Pairs:
    """Time two ways that need no preparation."""
    return measure(lambda _: (plain, ours), pairs)
