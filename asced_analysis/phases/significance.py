"""Whether activity changes along the steps at all, rises, and falls: tests that choose no split.

The statistic is the largest standardised difference between the means of two neighbouring windows,
over windows of every place and of many lengths, and each null replicate takes it over all of them
again: so where a curve is split plays no part in whether it may be split. Null replicates of a
population flip the signs of whole runs, which keeps the noise of every step and its dependence
between steps as it is (noise may grow along the steps). One run alone has only its steps: their
signs are flipped, and in other replicates their order is drawn anew, and the larger p-value holds;
its noise is taken to be independent from step to step (from block to block of a 24th of many
steps). A fall is tested against curves that never fall, a rise against curves that never rise:
what the best curve of that kind leaves over is flipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from asced_analysis.phases.change_points import is_wide_enough, splits_of
from asced_analysis.phases.intervals import blocks_of_runs

Floats: TypeAlias = npt.NDArray[np.float64]
Curves: TypeAlias = npt.NDArray[np.floating[Any]]

RUNS_TO_FLIP = 8
"""With fewer runs there are too few signs: of five, no p-value is below 2 / 2**5."""
FEWEST_REPLICATES = 99
_BLOCKS = 24  # of steps, in which a single curve is flipped


@dataclass(frozen=True)
class Significance:
    """P-values of one curve.

    Attributes
    ----------
    change : float
        Of the hypothesis that the mean is the same at every step.
    rise, fall : float
        Of the hypotheses that it never rises, and that it never falls.
    hump : tuple of float
        Of the same two hypotheses, from a rise and a fall with one plateau between them.
    """

    change: float
    rise: float
    fall: float
    hump: tuple[float, float]

    def boundaries(self, level: float) -> tuple[tuple[bool, float], tuple[bool, float]]:
        """Whether activity rises, and whether it falls, each with its p-value.

        Parameters
        ----------
        level : float
            Chance of finding any where the mean is the same at every step, and of finding a rise
            (a fall) where there is none beside a true fall (rise).
        """
        rise, fall = self.rise, self.fall
        if self.change > level:
            return (False, rise), (False, fall)
        if max(self.hump) <= level:
            return (True, self.hump[0]), (True, self.hump[1])
        # a fall and then a rise is not calm, active, calm
        valley = max(rise, fall) <= level
        return (rise <= level and not valley, rise), (fall <= level and not valley, fall)


class Windows:
    """Pairs of neighbouring windows: lengths are powers of two, or reach to an end of the curve.

    A window is long or wide enough to be a phase; inside it every step weighs the same, since the
    noise of the curve does not depend on the log-SNR that a step spans.

    Parameters
    ----------
    widths : numpy.ndarray, shape (step,)
        Log-SNR that the steps span.
    own_noise : bool
        Whether contrasts are measured by the noise of the curve itself.
    """

    def __init__(self, widths: Floats, *, own_noise: bool) -> None:
        steps, self.own_noise = widths.size, own_noise
        lengths = 2 ** np.arange(max(1, int(np.ceil(np.log2(steps)))))
        middle = np.arange(1, steps)[:, np.newaxis]
        left = np.concatenate([np.zeros_like(middle), middle - lengths], axis=1)[:, :, np.newaxis]
        right = np.concatenate([np.full_like(middle, steps), middle + lengths], axis=1)
        triples = np.broadcast_arrays(left, middle[:, :, np.newaxis], right[:, np.newaxis])
        every = np.unique(np.stack([part.ravel() for part in triples], axis=1), axis=0)
        every = every[(every[:, 0] >= 0) & (every[:, 2] <= steps)]
        start, split, end = every.T
        wide = is_wide_enough(widths, start, split) & is_wide_enough(widths, split, end)
        self.places: npt.NDArray[np.int64] = np.ascontiguousarray(every[wide], np.int64)
        start, split, end = self.places.T
        before, after = split - start, end - split
        size = np.sqrt(before * after / (before + after))
        self.factors: Floats = np.stack([size / before, size / after], axis=1)
        self.splits: npt.NDArray[np.int64] = np.stack(splits_of(widths), axis=1)

    def contrasts(self, curves: Floats) -> Floats:
        """Largest rise, fall and change of each curve, shape (curve, 3), in the noise's units."""
        from asced_analysis.phases.loops import contrasts

        found = np.empty((len(curves), 4))
        curves = np.ascontiguousarray(curves, np.float64)
        contrasts(curves, self.places, self.factors, self.splits, found)
        found[:, 2] = found[:, :3].max(axis=1)
        return found[:, :3] / self.scale(found[:, 3:])

    def scale(self, left_over: Floats) -> Floats:
        """What contrasts are divided by: of one run, what the best three means leave over.

        A run's own phases are in its null replicates too, as noise, and would hide themselves.
        """
        return np.sqrt(left_over + 1e-300) if self.own_noise else np.ones_like(left_over)

    def plateau(self, curve: Floats) -> tuple[float, float]:
        """The rise and the fall on both sides of one plateau whose smaller one is largest.

        The rise's right window ends, and the fall's left window begins, between the two.
        """
        sums = np.concatenate([[0.0], np.cumsum(curve)])
        start, split, end = self.places.T
        found = (sums[end] - sums[split]) * self.factors[:, 1]
        found -= (sums[split] - sums[start]) * self.factors[:, 0]
        steps = curve.size
        rise, fall = np.full((2, steps + 1, steps + 1), -np.inf)
        np.maximum.at(rise, (split, end), found)  # by where it lies and ends
        np.maximum.at(fall, (start, split), -found)  # by where it begins and lies
        rise = np.maximum.accumulate(rise, axis=1)
        fall = np.maximum.accumulate(fall[::-1], axis=0)[::-1]
        best = np.unravel_index(np.minimum(rise, fall).argmax(), rise.shape)
        split, end = self.splits.T
        parts = (sums[split], sums[end] - sums[split], sums[-1] - sums[end])
        sizes = (split, end - split, steps - end)
        gain = sum(part**2 / size for part, size in zip(parts, sizes, strict=True))
        scale = self.scale(np.array([max(0.0, float(np.sum(curve**2) - gain.max()))]))[0]
        return float(rise[best] / scale), float(fall[best] / scale)


def population_tests(
    curves: Curves, widths: Floats, replicates: int, rng: np.random.Generator
) -> tuple[Significance, str]:
    """Tests of the mean curve of a population.

    Parameters
    ----------
    curves : numpy.ndarray, shape (run, step)
        Activity; the mean of fewer than eight runs is tested as one run's.
    widths : numpy.ndarray, shape (step,)
        Log-SNR that the steps span.
    replicates : int
        How many; at least 99 are drawn.
    rng : numpy.random.Generator
        Where randomness comes from.

    Returns
    -------
    Significance
    test : str
        What was done.
    """
    if len(curves) < RUNS_TO_FLIP:
        mean = curves.mean(axis=0, keepdims=True, dtype=np.float64)
        found = run_tests(mean, widths, replicates, rng, level=1.0)[0]
        return found, "sign flips and permutations of steps"
    runs: Floats = np.asarray(blocks_of_runs(curves, rng), np.float64)
    runs = runs - runs.mean(axis=1, keepdims=True)
    number = max(replicates, FEWEST_REPLICATES)
    signs = rng.choice([-1.0, 1.0], (number, len(runs))) / len(runs)
    fitted = np.sqrt(len(runs) / (len(runs) - 1))  # a fitted curve takes one run's noise with it

    def flipped(without: Floats | None) -> Floats:
        return signs @ runs if without is None else signs @ (runs - without) * fitted

    return _tests(
        runs.mean(axis=0), flipped, Windows(widths, own_noise=False), 1.0
    ), "sign flips of runs"


def run_tests(
    curves: Curves,
    widths: Floats,
    replicates: int,
    rng: np.random.Generator,
    *,
    level: float = 0.05,
) -> list[Significance]:
    """Tests of every run's own curve, by flips and permutations of its steps.

    Parameters
    ----------
    curves, widths, replicates, rng
        As in `population_tests`.
    level : float, optional
        Where `change` is above it, rise and fall are not tested and are NaN.
    """
    steps, length = widths.size, block_length(widths.size)
    windows, number = Windows(widths, own_noise=True), max(replicates, FEWEST_REPLICATES)
    blocks = -(-steps // length) + 1
    rows = []
    for curve in np.asarray(curves, np.float64):
        centred = curve - curve.mean()
        block = (np.arange(steps) + rng.integers(0, length, (number, 1))) // length
        drawn = rng.choice(np.array([-1.0, 1.0]), (number, blocks))
        signs = drawn[np.arange(number)[:, np.newaxis], block]
        order = np.argsort(np.take_along_axis(rng.random((number, blocks)), block, 1), axis=1)

        def flipped(
            without: Floats | None, signs: Floats = signs, centred: Floats = centred
        ) -> Floats:
            return signs * centred if without is None else signs * (centred - without)

        rows.append(_tests(centred, flipped, windows, level, centred[order]))
    return rows


def block_length(steps: int) -> int:
    """Steps that stay together where there is one curve: one, or a 24th of many."""
    return max(1, steps // _BLOCKS)


def _tests(
    curve: Floats,
    flipped: Callable[[Floats | None], Floats],
    windows: Windows,
    level: float,
    shuffled: Floats | None = None,
) -> Significance:
    """Tests of one curve; ``flipped`` gives null curves of what a fitted curve leaves over."""
    from scipy.optimize import isotonic_regression

    if not len(windows.places):
        return Significance(1.0, 1.0, 1.0, (1.0, 1.0))

    def share(null: Floats, value: float) -> float:
        # what rounding could make is nothing
        return (1 + int((null >= value - 1e-9 * abs(value) - 1e-300).sum())) / (1 + len(null))

    own = windows.contrasts(curve[np.newaxis])[0]
    change = share(windows.contrasts(flipped(None))[:, 2], own[2])
    if shuffled is not None and change <= level:
        change = max(change, share(windows.contrasts(shuffled)[:, 2], own[2]))
    if change > level:
        return Significance(change, np.nan, np.nan, (np.nan, np.nan))
    rises = windows.contrasts(flipped(-isotonic_regression(-curve).x))[:, 0]
    falls = windows.contrasts(flipped(isotonic_regression(curve).x))[:, 1]
    up, down = windows.plateau(curve)
    return Significance(
        change, share(rises, own[0]), share(falls, own[1]), (share(rises, up), share(falls, down))
    )
