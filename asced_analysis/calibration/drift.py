"""Drift: whether new runs still look like those the thresholds were calibrated on.

Pixels of one run depend on each other, so runs are compared, not pixels: each run's mean log change
in every grid cell, and its score. The shipped counts are sparse histograms of them. A change of
amplitude moves all cells by a little at once, which no single cell shows against the spread of the
runs; so the shift that they share is tested too. Half of the chance of a false alarm goes to the
energy of what was recorded, level by level, which hardly differs between runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.energies import mean_shift, run_energies
from asced_analysis.compute.source import open_source
from asced_analysis.detection import change_maps
from asced_analysis.detection.log_snr_grid import GridSignal
from asced_analysis.detection.population import fit_population
from asced_analysis.detection.scoring import scores_of, with_lookahead
from asced_analysis.thresholds.document import Thresholds, fingerprint_of
from asced_analysis.thresholds.parts import DriftCounts, SparseCounts
from asced_stores.errors import InputError

Floats = npt.NDArray[np.float64]

LARGEST_BIN = 2**53 - 1  # what JSON numbers hold exactly everywhere
COUNT_WIDTH = 0.02
FEWEST = 20
RECORDED: tuple[Literal["eps", "x0"], ...] = ("eps", "x0")


@dataclass(frozen=True)
class Drift:
    """Result of a drift check.

    Attributes
    ----------
    drifted : bool
        Whether any comparison is significant after control for their number (Holm).
    significance : float
        Family-wise.
    runs, shipped_runs : int
        New runs, and runs behind the shipped counts.
    comparisons : tuple of (str, float, float)
        Name, distance and p-value (not yet adjusted): of the score and of every cell the
        Kolmogorov-Smirnov distance, of ``amplitude`` the logarithm that all cells share, of
        energies the difference of mean logarithms.
    """

    drifted: bool
    significance: float
    runs: int
    shipped_runs: int
    comparisons: tuple[tuple[str, float, float], ...]


def run_counts(
    run_means: Floats | None, scores: Floats, energies: Mapping[str, Floats] | None = None
) -> DriftCounts:
    """Sparse counts that travel with the thresholds.

    Parameters
    ----------
    run_means : array, shape (run, cell), or None
        Each run's mean log change in every grid cell.
    scores : array, shape (run,)
        Scores of other runs; infinite ones are left out.
    energies : mapping of str to array, shape (run, level), optional
        As `asced_analysis.calibration.energies.run_energies` gives them.
    """
    cells = [] if run_means is None else [_sparse(column) for column in run_means.T]
    return {
        "bin_width": COUNT_WIDTH,
        "runs": int(scores.size if run_means is None else len(run_means)),
        "cells": cells,
        "score": _sparse(scores[np.isfinite(scores)]),
        "energies": {
            name: [_sparse(column) for column in energies[name].T]
            for name in RECORDED
            if energies is not None and name in energies
        },
    }


def two_sample(shipped: Mapping[str, Any], values: Floats, width: float) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance and p-value between shipped counts and new values.

    Both are binned, which makes the test slightly conservative.
    """
    from scipy import stats

    bins = np.asarray(shipped["bins"], dtype=np.int64)
    counts = np.asarray(shipped["counts"], dtype=np.int64)
    if bins.size == 0 or values.size == 0:
        raise InputError("no counts to compare; the thresholds were made without")
    old = np.repeat(bins, counts).astype(float)
    new = np.floor(values / width)
    result = stats.ks_2samp(old, new, method="asymp")
    return float(result.statistic), float(result.pvalue)


def common_shift(
    shipped: Sequence[Mapping[str, Any]], means: Floats, width: float
) -> tuple[float, float]:
    """Shift that all cells' means share, as a change of amplitude has it, and its p-value.

    The shift is estimated by generalised least squares, which gives little weight to cells in
    which runs differ much or alike. Only histograms of single cells are shipped, so how cells
    depend on each other is taken from the new runs; of more cells than a quarter of the runs, the
    directions are kept in which the runs differ most.

    Parameters
    ----------
    shipped : sequence of mapping
        Sparse counts of every cell.
    means : array, shape (run, cell)
        Mean log changes of new runs.
    width : float
        Of the shipped bins.

    Returns
    -------
    shift : float
        In logarithms: 0.1 is an amplitude of 1.1.
    p_value : float
        1 where there are too few runs or counts.
    """
    from scipy import stats

    known = np.isfinite(means).all(axis=1)
    bins = [(np.asarray(one["bins"], float), np.asarray(one["counts"], float)) for one in shipped]
    if known.sum() < FEWEST or not all(counts.sum() for _, counts in bins):
        return 0.0, 1.0
    old = np.array([((centre + 0.5) * width) @ counts / counts.sum() for centre, counts in bins])
    new, before = means[known], min(float(counts.sum()) for _, counts in bins)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(new.T)))
    most = max(1, min(old.size, len(new) // 4))
    kept = np.flatnonzero(values > 1e-9 * values.max())[-most:]
    if not kept.size:
        return 0.0, 1.0
    ones = np.ones(old.size) @ vectors[:, kept]
    information = (ones**2 / values[kept]).sum()
    shift = ((new.mean(axis=0) - old) @ vectors[:, kept] * ones / values[kept]).sum() / information
    error = np.sqrt((1 / len(new) + 1 / before) / information)
    # weights are fitted to the same runs: as many degrees of freedom are gone
    free = len(new) - kept.size
    error *= np.sqrt((len(new) - 1) / free)
    return float(shift), float(2 * stats.t.sf(abs(shift) / error, free))


def energy_tests(
    shipped: Mapping[str, Any], energies: Mapping[str, Floats]
) -> list[tuple[str, float, float]]:
    """Name, shift of the mean logarithm and p-value of every energy, level by level."""
    return [
        (f"energy of {name}, level {level}", *mean_shift(counts, values[:, level], COUNT_WIDTH))
        for name, values in energies.items()
        for level, counts in enumerate(shipped.get("energies", {}).get(name, ()))
    ]


def holm(
    p_values: Floats, significance: float, weights: npt.ArrayLike | None = None
) -> npt.NDArray[np.bool_]:
    """Which hypotheses Holm's step-down procedure rejects; weights are shares of the chance."""
    shares = np.ones(p_values.size) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(p_values / shares)
    left = np.cumsum(shares[order][::-1])[::-1]
    limits = significance * shares[order] / left
    passed = np.cumprod(p_values[order] <= limits).astype(bool)
    rejected = np.zeros(p_values.size, dtype=bool)
    rejected[order] = passed
    return rejected


def _sparse(values: Floats) -> SparseCounts:
    """Histogram of finite values without its empty bins."""
    finite = values[np.isfinite(values)]
    indices = np.clip(np.floor(finite / COUNT_WIDTH), -LARGEST_BIN, LARGEST_BIN)
    bins, counts = np.unique(indices.astype(np.int64), return_counts=True)
    return {"bins": bins.tolist(), "counts": counts.tolist()}


def check(
    runs: Any, thresholds: Thresholds, *, significance: float = 0.01, pipeline: Any = None
) -> Drift:
    """Compare new runs with the counts that travel with the thresholds.

    Parameters
    ----------
    runs : path, TrajectoryStore or xarray.Dataset
        New runs of the calibrated sampler.
    thresholds : Thresholds
    significance : float
        Chance of a false alarm over all comparisons together (Holm).
    pipeline : DiffusionPipeline, str or Path, optional
        For thresholds with a lookahead; by default the one that the store names.

    Raises
    ------
    InputError
        Where the thresholds carry no counts, or there are fewer than 20 runs.
    FingerprintMismatchError
        Where the runs come from another model or sample shape.

    Examples
    --------
    >>> from asced_analysis import Thresholds
    >>> from asced_analysis.calibration import check
    >>> check("runs.zarr", Thresholds.load("thresholds.json")).drifted
    False
    """
    source = open_source(runs)
    if source.runs < FEWEST:
        raise InputError(f"a drift check needs at least {FEWEST} runs, there are {source.runs}")
    shipped = thresholds.counts
    if not shipped.get("score", {}).get("bins"):
        raise InputError("these thresholds carry no counts; calibrate again to check for drift")
    thresholds.check_fingerprint(
        {**fingerprint_of(source.dataset.attrs, source.sample_shape), "steps": source.steps}
    )
    width = float(shipped["bin_width"])
    everything = np.ones(source.runs, dtype=bool)
    source = with_lookahead(source, thresholds, pipeline)
    scores = scores_of(source, thresholds, everything)[1]
    comparisons = [("score", *two_sample(shipped["score"], scores[np.isfinite(scores)], width))]
    weights = [1.0]
    if shipped["cells"]:
        parameters = change_maps.Parameters(**thresholds.parameters)
        signal = GridSignal(
            parameters.signal,
            thresholds.levels.log_snr,
            source.alpha,
            source.sigma,
            source.log_snr,
        )
        batches = source.batches(signal.needs(), steps=(signal.first_step, signal.last_step))
        means = fit_population(batches, signal, parameters).run_means
        comparisons += [
            (f"cell {cell}", *two_sample(counts, means[:, cell], width))
            for cell, counts in enumerate(shipped["cells"])
        ]
        weights = [1.0] * len(comparisons)
        comparisons.append(("amplitude", *common_shift(shipped["cells"], means, width)))
        weights.append(9.0 * len(weights))
    here = source.dataset.attrs.get("scheduler_class"), source.steps
    if here == (thresholds.fingerprint["scheduler_class"], thresholds.fingerprint["steps"]):
        # between the steps of another sampler energies are interpolated, which would be told
        tests = energy_tests(shipped, run_energies(source, thresholds.levels.log_snr))
        weights += [sum(weights) / max(1, len(tests))] * len(tests)
        comparisons += tests
    rejected = holm(np.array([p for _, _, p in comparisons]), significance, weights)
    return Drift(
        bool(rejected.any()), significance, source.runs, int(shipped["runs"]), tuple(comparisons)
    )
