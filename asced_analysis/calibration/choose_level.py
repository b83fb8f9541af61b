"""The level and its guarantee, by method, once a variant is fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.groups import group_levels
from asced_analysis.calibration.labels import level_from_labels
from asced_analysis.calibration.risk import risk_curve, risk_level
from asced_analysis.calibration.robust import robust_level
from asced_analysis.calibration.splits import Split
from asced_analysis.compute.source import Source
from asced_analysis.detection.scoring import scores_of, statistics_of
from asced_analysis.thresholds import conformal
from asced_analysis.thresholds.document import Guarantee, Thresholds
from asced_stores.errors import InputError

Floats = npt.NDArray[np.float64]

LEARNING = "outcome"
"""The method that learns a variant from how the recorded runs ended."""
METHODS = ("conformal", "robust", "risk", "labels", LEARNING)
TIGHTER = (0.1, 0.05, 0.02, 0.01, 0.005, 0.001)
# Robust units of a logarithm: the grid is fixed beforehand, as risk control demands.
RISK_LEVELS = (-5.0, 80.0)


@dataclass(frozen=True)
class Request:
    """What the caller asked for; see `calibrate`."""

    method: str
    rate: float
    confidence: float | None
    groups: str | None
    labels: Mapping[int, bool] | None
    costs: tuple[float, float]
    population: str


@dataclass(frozen=True)
class Chosen:
    """A level, its guarantee, and the scores it was found on."""

    level: float
    guarantee: Guarantee
    scores: Floats
    groups: Mapping[str, float] = field(default_factory=dict)


def choose_level(source: Source, thresholds: Thresholds, split: Split, request: Request) -> Chosen:
    """Find the level on the calibration set and measure it on the report set.

    Raises
    ------
    InputError
        Where the runs don't allow what was asked for.
    """
    rows, scores = scores_of(source, thresholds, split.calibrate | split.report)
    own = split.calibrate[rows]
    if request.method == "risk":
        return _risk(source, thresholds, split, request, scores)
    if request.method == "labels":
        return _labels(source, rows, scores, split, request)
    if request.method == "robust":
        level, share = robust_level(scores[own], request.rate)
        notes = (
            "robust level: no finite-sample guarantee",
            f"estimated share of broken runs in the calibration set: {share:.3f}",
        )
        guarantee = _guarantee(
            scores[~own] > level, split, request, "robust quantile", None, False, notes
        )
        return Chosen(level, guarantee, scores)
    level, rank = conformal.conformal_level(
        scores[own], request.rate, confidence=request.confidence
    )
    if not np.isfinite(level):
        raise InputError(
            "more than the promised share of calibration runs can't be scored (no region survives "
            "the clean-up at any level); lower the clean-up sizes"
        )
    levels: dict[str, float] = {}
    flagged = scores[~own] > level
    remarks: tuple[str, ...] = ()
    if request.groups is not None:
        names = source.dataset[request.groups].values[rows]
        levels = group_levels(
            scores[own],
            list(names[own]),
            request.rate,
            confidence=request.confidence,
            runs=source.runs,
        )
        limits = np.array([levels.get(str(name), level) for name in names[~own]])
        flagged = scores[~own] > limits
        remarks = (f"levels by {request.groups} where groups are large enough",)
    method = "split conformal"
    if request.confidence is not None:
        method += ", training-conditional"
    guarantee = _guarantee(flagged, split, request, method, rank, True, remarks)
    return Chosen(level, guarantee, scores, levels)


def _risk(
    source: Source, thresholds: Thresholds, split: Split, request: Request, scores: Floats
) -> Chosen:
    """Conformal risk control of the flagged share of the image."""
    curve = risk_curve(statistics_of(source, thresholds, split.calibrate), *RISK_LEVELS)
    level = risk_level(curve, request.rate)
    shares = [
        (statistic > level).reshape(len(statistic), -1).mean(axis=1)
        for statistic in statistics_of(source, thresholds, split.report)
    ]
    report = np.concatenate(shares) if shares else np.zeros(0)
    measured, interval = None, None
    if report.size:
        measured = float(report.mean())
        half = 1.96 * float(report.std()) / np.sqrt(report.size)
        interval = (max(0.0, measured - half), min(1.0, measured + half))
    guarantee = Guarantee(
        method="conformal risk control of the flagged share of the image",
        promised=request.rate,
        finite_sample=True,
        confidence=None,
        unit=split.unit,
        population=request.population,
        fit=int(split.fit.sum()),
        calibrate=int(split.calibrate.sum()),
        report=int(split.report.sum()),
        order_statistic=None,
        measured=measured,
        interval=interval,
        notes=(*split.notes, "the interval of the measured share is a normal one"),
    )
    return Chosen(level, guarantee, scores)


def _labels(
    source: Source,
    rows: npt.NDArray[np.intp],
    scores: Floats,
    split: Split,
    request: Request,
) -> Chosen:
    """Cheapest level for labelled runs."""
    labels = request.labels or {}
    runs = source.dataset["run"].values[rows]
    broken = np.array([labels[int(run)] for run in runs], dtype=bool)
    own = split.calibrate[rows]
    finite = np.where(np.isfinite(scores), scores, np.min(scores[np.isfinite(scores)]) - 1)
    alarm, miss = request.costs
    found = level_from_labels(finite[own], broken[own], false_alarm_cost=alarm, miss_cost=miss)
    calm = ~own & ~broken
    notes = (
        f"costs {alarm:g} a false alarm, {miss:g} a miss; {found.cost:.4g} a run, "
        f"{found.detection_rate:.3f} detected, {found.false_alarm_rate:.3f} false alarms on "
        "held-out folds",
    )
    guarantee = _guarantee(
        finite[calm] > found.level,
        split,
        request,
        "cheapest level for labels",
        None,
        False,
        notes,
        population="runs labelled normal",
    )
    return Chosen(found.level, guarantee, scores)


def _guarantee(
    flagged: npt.NDArray[np.bool_],
    split: Split,
    request: Request,
    method: str,
    rank: int | None,
    finite_sample: bool,
    notes: tuple[str, ...],
    *,
    population: str | None = None,
) -> Guarantee:
    """What is promised, and what the report set shows."""
    runs = int(flagged.size)
    return Guarantee(
        method=method,
        promised=request.rate,
        finite_sample=finite_sample,
        confidence=request.confidence,
        unit=split.unit,
        population=population or request.population,
        fit=int(split.fit.sum()),
        calibrate=int(split.calibrate.sum()),
        report=runs,
        order_statistic=rank,
        measured=float(flagged.mean()) if runs else None,
        interval=conformal.rate_interval(int(flagged.sum()), runs) if runs else None,
        needed={
            f"{rate:g}": conformal.runs_needed(rate, confidence=request.confidence)
            for rate in TIGHTER
            if finite_sample and rate < request.rate
        },
        notes=(*split.notes, *notes),
    )
