"""``calibrate``: fit, calibrate and report on three disjoint sets of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration import conformal
from asced_analysis.calibration.conformance import conformance_vectors
from asced_analysis.calibration.drift import run_counts
from asced_analysis.calibration.fitting import fit_variant
from asced_analysis.calibration.scoring import scores_of
from asced_analysis.calibration.source import Source, open_source
from asced_analysis.calibration.splits import FRACTIONS, Split, split_runs
from asced_analysis.thresholds import Correction, Guarantee, Thresholds
from asced_stores.errors import InputError

WINDOW = (0.2, 0.48)
"""First step and correction step, as shares of sampling: Mutation as the paper has it."""

METHODS = ("conformal", "robust", "risk", "labels", "outcome")
TIGHTER = (0.1, 0.05, 0.02, 0.01, 0.005, 0.001)


def calibrate(
    store: Any,
    variant: str = "calibrated",
    *,
    method: str = "conformal",
    false_alarm_rate: float = 0.05,
    confidence: float | None = None,
    window: tuple[float, float] = WINDOW,
    parameters: Mapping[str, Any] | None = None,
    strategy: str = "ttc",
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = 0,
    normal: Mapping[int, bool] | None = None,
    normal_name: str = "the given label",
) -> Thresholds:
    """Calibrate thresholds on recorded runs.

    Parameters
    ----------
    store : path, TrajectoryStore or xarray.Dataset
        Recorded runs.
    variant : str
        A name of `asced_analysis.detection.VARIANTS`.
    method : str
        `conformal`: split conformal at run level.
    false_alarm_rate : float
        Share of the population's runs that may be flagged.
    confidence : float, optional
        Keep the rate for this very calibration with this confidence, instead of on average.
    window : (float, float)
        Shares of sampling at which the window begins and at which the correction edits; the
        window's last step is the one before.
    parameters : mapping, optional
        Overrides of the variant's parameters.
    strategy : str
        Default correction.
    fractions : (float, float, float)
        Shares of the runs for fit, calibrate and report.
    seed : int
        Of the split.
    normal : mapping of run id to bool, optional
        Restricts the promise to runs that a label calls normal.
    normal_name : str
        What the label is called in the guarantee.

    Returns
    -------
    Thresholds

    Raises
    ------
    InputError
        Where there are too few runs for the promised rate (naming how many it needs), or an
        argument makes no sense.
    """
    conformal.check_rate(false_alarm_rate)
    if method not in METHODS:
        raise InputError(f"method {method!r} is unknown; expected one of {METHODS}")
    source = open_source(store)
    steps, correction = window_and_correction(source, window, strategy)
    split = split_runs(
        _prompts(source),
        source.runs,
        fractions=fractions,
        seed=seed,
        eligible=_eligible(source, normal),
    )
    conformal.order_statistic(  # fail before reading anything
        int(split.calibrate.sum()), false_alarm_rate, confidence=confidence
    )
    thresholds, population = fit_variant(
        source,
        variant,
        split.fit,
        window=steps,
        correction=correction,
        parameters=dict(parameters or {}),
    )
    rows, scores = scores_of(source, thresholds, split.calibrate | split.report)
    in_calibrate = split.calibrate[rows]
    level, rank = conformal.conformal_level(
        scores[in_calibrate], false_alarm_rate, confidence=confidence
    )
    if not np.isfinite(level):
        raise InputError(
            "more than the promised share of calibration runs can't be scored (no region survives "
            "the clean-up at any level); lower the clean-up sizes"
        )
    guarantee = _guarantee(
        scores[~in_calibrate] > level,
        split,
        rank,
        false_alarm_rate,
        confidence,
        "all runs" if normal is None else f"runs called normal by {normal_name}",
    )
    thresholds = replace(
        thresholds,
        levels=replace(thresholds.levels, level=level),
        guarantee=guarantee,
        counts=run_counts(None if population is None else population.run_means, scores),
    )
    return replace(thresholds, conformance=conformance_vectors(thresholds))


def window_and_correction(
    source: Source, window: tuple[float, float], strategy: str
) -> tuple[tuple[int, int], Correction]:
    """Steps of the window, and where the correction edits: the step right after it."""
    start, edit = window
    steps = source.steps
    if not 0 <= start < edit < 1:
        raise InputError(f"the window is {window}; expected two rising shares of sampling")
    edit_step = min(max(round(edit * steps), 2), steps - 1)
    first = min(round(start * steps), edit_step - 2)
    while not np.isfinite(source.log_snr[first]) and first < edit_step - 2:
        first += 1
    return (first, edit_step - 1), Correction(
        strategy, float(source.log_snr[edit_step]), edit_step / steps
    )


def _guarantee(
    flagged: npt.NDArray[np.bool_],
    split: Split,
    rank: int,
    rate: float,
    confidence: float | None,
    population: str,
) -> Guarantee:
    """What is promised and what the report set shows."""
    runs, count = int(flagged.size), int(split.calibrate.sum())
    return Guarantee(
        method="split conformal" + ("" if confidence is None else ", training-conditional"),
        promised=rate,
        finite_sample=True,
        confidence=confidence,
        unit=split.unit,
        population=population,
        fit=int(split.fit.sum()),
        calibrate=count,
        report=runs,
        order_statistic=rank,
        measured=float(flagged.mean()) if runs else None,
        interval=conformal.rate_interval(int(flagged.sum()), runs) if runs else None,
        needed={
            f"{tighter:g}": conformal.runs_needed(tighter, confidence=confidence)
            for tighter in TIGHTER
            if tighter < rate
        },
    )


def _prompts(source: Source) -> list[Any] | None:
    """Prompts by run, where they were recorded."""
    if "prompt" not in source.dataset.coords:
        return None
    return list(source.dataset["prompt"].values)


def _eligible(source: Source, normal: Mapping[int, bool] | None) -> npt.NDArray[np.bool_] | None:
    """Runs of the promise's population."""
    if normal is None:
        return None
    return np.array([bool(normal.get(int(run), False)) for run in source.dataset["run"].values])
