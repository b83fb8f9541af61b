"""What a schema cannot say of thresholds: lengths, orders, and numbers that fit each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from math import floor
from typing import TYPE_CHECKING, Any

from asced_analysis.thresholds.files import ThresholdsError

if TYPE_CHECKING:
    from asced_analysis.thresholds.content import Content
    from asced_analysis.thresholds.parts import Guarantee

LARGEST_LEVEL = 1e30
LARGEST_LOG_SNR = 200.0
"""Beyond any noise level of a sampler: signal and noise differ by 43 orders of magnitude."""

_BY_HAND = "the file was changed by hand?"


def check_consistency(thresholds: Content) -> None:
    """Refuse numbers that cannot belong together, the first one found.

    Raises
    ------
    ThresholdsError
        Naming the place in the file, what was found and what was expected.
    """
    for problem in (*_levels(thresholds), *_window(thresholds), *_guarantee(thresholds.guarantee)):
        raise ThresholdsError(f"{problem}; {_BY_HAND}")


def _levels(thresholds: Content) -> Iterator[str]:
    levels = thresholds.levels
    if any(b <= a for a, b in itertools.pairwise(levels.log_snr)):
        yield "levels.log_snr must rise"
    if max(map(abs, levels.log_snr)) > LARGEST_LOG_SNR:
        yield f"levels.log_snr must lie within -{LARGEST_LOG_SNR:g} to {LARGEST_LOG_SNR:g}"
    if len(levels.location) != len(levels.scale):
        yield "levels.location and levels.scale differ in length"
    if not _positive(levels.scale):
        yield "levels.scale must be positive everywhere"
    named = {"levels.level": levels.level}
    named |= {f"groups.{name}": level for name, level in thresholds.groups.items()}
    named |= {f"transfers.{n}.level": one.level for n, one in enumerate(thresholds.transfers)}
    for name, level in named.items():
        if isinstance(level, (int, float)) and abs(level) > LARGEST_LEVEL:
            yield f"{name} is {level:g}, and no score is that large"


def _window(thresholds: Content) -> Iterator[str]:
    window, grid = thresholds.window, thresholds.levels.log_snr
    if window.steps[0] > window.steps[1] or window.of_steps <= window.steps[1]:
        yield f"window.steps {window.steps} don't lie in order within {window.of_steps} steps"
    first, last = window.log_snr
    meets = last >= grid[0] - 1e-3 and first <= grid[-1] + 1e-3
    if first > last or not meets or max(abs(first), abs(last)) > LARGEST_LOG_SNR:
        yield (
            f"window.log_snr {first:g} to {last:g} does not rise, or lies outside levels.log_snr "
            f"({grid[0]:g} to {grid[-1]:g})"
        )
    if window.normalised_time[0] > window.normalised_time[1]:
        yield f"window.normalised_time {window.normalised_time} does not rise"
    if abs(thresholds.correction.log_snr) > LARGEST_LOG_SNR:
        yield f"correction.log_snr is {thresholds.correction.log_snr:g}, no sampler's noise level"


def _guarantee(guarantee: Guarantee) -> Iterator[str]:
    promised, order = guarantee.promised, guarantee.order_statistic
    if not 0 < promised < 1:
        yield f"guarantee.promised is {promised:g}; a level can promise a share between 0 and 1"
    if guarantee.confidence is not None and not 0 < guarantee.confidence < 1:
        yield f"guarantee.confidence is {guarantee.confidence:g}; it lies between 0 and 1"
    if order is not None:
        most = floor((guarantee.calibrate + 1) * promised + 1e-9)
        if not 1 <= order <= max(1, most):
            yield (
                f"guarantee.order_statistic is {order} of {guarantee.calibrate} calibration "
                f"{guarantee.unit}s; a promise of {promised:g} needs one from 1 to {most}"
            )
    if guarantee.interval is not None:
        low, high = guarantee.interval
        measured = low if guarantee.measured is None else guarantee.measured
        if not low <= measured <= high:
            yield (
                f"guarantee.interval {low:g} to {high:g} does not hold guarantee.measured "
                f"({guarantee.measured})"
            )


def _positive(values: Any) -> bool:
    """Whether all numbers of nested tuples are positive."""
    if isinstance(values, tuple):
        return all(_positive(value) for value in values)
    return bool(values > 0)
