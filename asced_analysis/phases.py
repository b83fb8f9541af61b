"""Profiling | Mutation | Refinement: where the phases of sampling begin, and how surely.

The activity curve of a run is the share of its pixels beyond c robust units of the run's own
innovation per unit of log-SNR, step by step; the population's is the mean over runs. Two change
points split the curve into calm, active, calm.

Whose unit? The robust unit is taken over the pixels of the run at that step (``unit="step"``), so
the curve says how *locally* a run changes its mind. A unit over all steps (``unit="run"``) is
there too, but with real networks it only shows that early predictions change more: the median
innovation per unit of log-SNR of `fashion` falls by a factor of 120 from the first step to the
last, without a hump. (A share beyond population quantiles by step would be flat by construction.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis import streaming
from asced_analysis.change_points import means_of, segment, shortest_segment
from asced_analysis.counting import Plan, plan_counts
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Floats: TypeAlias = npt.NDArray[np.float64]

Unit: TypeAlias = Literal["step", "run"]
"""Over which values of a run its robust unit is taken."""

CUTOFF = 3.0
"""Robust units beyond which a pixel counts as active."""

FORMAT = "asced-phases"
FORMAT_VERSION = 1

_FLOOR = 1e-3  # of the root mean square: a unit of zero would make every moving pixel active
_RUNS_AT_ONCE = 512  # whose replicates lie in memory at once
_MOST_BLOCKS = 1024  # runs are averaged to so many blocks before the bootstrap over them


@dataclass(frozen=True)
class Boundary:
    """Where a phase begins, with an interval of confidence.

    Attributes
    ----------
    step : float
        First step whose dynamics belong to the new phase; NaN where there is none.
    step_interval : tuple of float
        Lower and upper end.
    normalised_time, normalised_time_interval
        Step divided by the number of steps: 0 at the noisy end, 1 at the image.
    log_snr, log_snr_interval
        Log-SNR of the step, comparable between step counts and schedulers.
    """

    step: float
    step_interval: tuple[float, float]
    normalised_time: float
    normalised_time_interval: tuple[float, float]
    log_snr: float
    log_snr_interval: tuple[float, float]


@dataclass(frozen=True)
class Population:
    """The two boundaries of the population: where Mutation and where Refinement begins."""

    mutation: Boundary
    refinement: Boundary

    def __iter__(self) -> Iterator[Boundary]:
        """Both boundaries, in order."""
        return iter((self.mutation, self.refinement))


@dataclass(frozen=True)
class Phases:
    """Phases of a population and of each of its runs.

    Attributes
    ----------
    population : Population
        Boundaries of the mean activity curve; intervals by bootstrap over runs.
    per_run : pandas.DataFrame
        One row a run (indexed by run): ``mutation_step, refinement_step`` with ``_lower`` and
        ``_upper`` (residual block bootstrap over steps), ``_normalised_time``, ``_log_snr``.
    activity : xarray.DataArray, dims (step,)
        Mean share of active pixels, with ``log_snr`` and ``normalised_time`` coordinates.
    p_value : float
        Of the hypothesis that there are no phases: activity curves whose place along the steps
        carries no information.
    runs, cutoff, confidence : int, float, float
        What went in.
    attributes : dict
        Signal, test, pipeline and model of the store.
    """

    population: Population
    per_run: pd.DataFrame
    activity: xr.DataArray
    p_value: float
    runs: int
    cutoff: float
    confidence: float
    attributes: dict[str, Any] = field(default_factory=dict)

    def to_json(self, *, per_run: bool = True) -> str:
        """All of it as one JSON document; NaN is written as null.

        Parameters
        ----------
        per_run : bool, optional
            Whether the rows of the runs are written.
        """
        coordinates = {
            name: self.activity[name].values.tolist()
            for name in ("step", "normalised_time", "log_snr")
        }
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "population": {
                "mutation": asdict(self.population.mutation),
                "refinement": asdict(self.population.refinement),
            },
            "p_value": self.p_value,
            "runs": self.runs,
            "cutoff": self.cutoff,
            "confidence": self.confidence,
            "activity": {**coordinates, "share": self.activity.values.tolist()},
            "attributes": self.attributes,
        }
        if per_run:
            document["per_run"] = {
                "run": self.per_run.index.to_list(),
                **{name: self.per_run[name].to_list() for name in self.per_run.columns},
            }
        return json.dumps(_null(document), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Phases:
        """Read what `to_json` wrote.

        Raises
        ------
        InputError
            When it is something else, or a newer version.
        """
        import pandas as pd

        document = _nan(json.loads(text))
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise InputError("this is no phases file; write one with `asced phases --out`")
        if document["format_version"] > FORMAT_VERSION:
            raise InputError(
                f"phases file of version {document['format_version']}, this release reads up to "
                f"{FORMAT_VERSION}; upgrade asced-analysis"
            )
        boundaries: dict[str, Any] = {
            name: _read_boundary(entry) for name, entry in document["population"].items()
        }
        curve, rows = document["activity"], document.get("per_run", {"run": []})
        frame = pd.DataFrame(rows).set_index("run")
        activity = _activity_array(
            np.array(curve["share"], np.float64),
            np.array(curve["step"], np.int64),
            np.array(curve["normalised_time"], np.float64),
            np.array(curve["log_snr"], np.float64),
        )
        rest = {name: document[name] for name in ("p_value", "runs", "cutoff", "confidence")}
        return cls(
            population=Population(**boundaries),
            per_run=frame,
            activity=activity,
            attributes=document["attributes"],
            **rest,
        )


def segment_phases(
    ds: xr.Dataset,
    *,
    signal: str = "innovation",
    cutoff: float = CUTOFF,
    unit: Unit = "step",
    confidence: float = 0.95,
    replicates: int = 999,
    run_replicates: int = 199,
    seed: int = 0,
    progress: bool = False,
) -> Phases:
    """Boundaries Profiling | Mutation | Refinement of the population and of each run.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them; read one shard at a time.
    signal : {"innovation", "predicted_x0"}
        What the activity is measured on.
    cutoff : float, optional
        Robust units beyond which a pixel is active.
    unit : {"step", "run"}
        Whether a robust unit is that of the run at the step, or of all the steps of the run.
    confidence : float, optional
        Of the intervals.
    replicates, run_replicates : int, optional
        Bootstrap replicates over runs (and of the test), and over the steps of each run; 0 leaves
        the intervals of the runs out.
    seed : int, optional
        Of the bootstrap.
    progress : bool, optional
        Show a progress bar on standard error.

    Returns
    -------
    Phases

    Raises
    ------
    InputError
        With fewer than four steps, no runs, or a signal that is no difference.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} found; expected a number between 0 and 1")
    curves, steps = activity_curves(ds, signal=signal, cutoff=cutoff, unit=unit, progress=progress)
    rng = np.random.default_rng(seed)
    step, time, snr = _axes(ds, steps)
    finite: npt.NDArray[np.bool_] = np.all(np.isfinite(curves), axis=1)
    if not finite.any():
        raise InputError("no run has finite innovations; look at its status with `asced info`")
    used = curves[finite]
    mean = used.mean(axis=0)
    split = segment(mean)
    spread = _population_bootstrap(used, replicates, rng)
    tail = (1 - confidence) / 2
    boundaries = [
        _boundary(best[0], _interval(draws, tail), step, time, snr)
        for best, draws in zip((split.first, split.second), spread, strict=True)
    ]
    per_run = _run_frame(ds, curves, finite, run_replicates, tail, rng, (step, time, snr))
    p_value, test = _no_phases_test(used, float(split.gain[0]), replicates, rng)
    attributes = {"signal": signal, "unit": unit, "test": test, "failed_runs": int((~finite).sum())}
    attributes |= {
        name: ds.attrs[name]
        for name in ("pipeline", "scheduler_class", "model_fingerprint")
        if name in ds.attrs
    }
    return Phases(
        population=Population(*boundaries),
        per_run=per_run,
        activity=_activity_array(mean, step, time, snr),
        p_value=p_value,
        runs=int(finite.sum()),
        cutoff=cutoff,
        confidence=confidence,
        attributes=attributes,
    )


def activity_curves(
    ds: xr.Dataset,
    *,
    signal: str = "innovation",
    cutoff: float = CUTOFF,
    unit: Unit = "step",
    progress: bool = False,
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Activity curve of every run: the share of its pixels beyond `cutoff` of its own units.

    A unit is 1.4826 times the median absolute deviation from the median of the signal's change
    per unit of log-SNR, and at least a thousandth of its root mean square: over the flat
    background of an image the MAD may be zero.

    Parameters
    ----------
    ds, signal, cutoff, unit, progress
        As in `segment_phases`.

    Returns
    -------
    curves : numpy.ndarray, shape (run, step)
        NaN for a run with a number that is not finite.
    steps : numpy.ndarray, shape (step,)
        Position of the later step of each pair; pairs with an infinite log-SNR are left out.
    """
    if unit not in get_args(Unit):
        raise InputError(f"no unit {unit!r}; choose one of {', '.join(get_args(Unit))}")
    plan = plan_counts(ds, signal, "difference")
    levels = np.asarray(ds["log_snr"].values, np.float64)[list(plan.steps)]
    with np.errstate(invalid="ignore"):
        width = np.abs(np.diff(levels))
    usable = np.isfinite(width) & (width > 0)
    shortest_segment(int(usable.sum()))
    tasks = streaming.shard_tasks(
        ds,
        [plan.variable],
        _activity_block,
        plan=plan,
        rates=1 / width[usable],
        usable=usable,
        cutoff=cutoff,
        unit=unit,
    )
    label = f"Activity of {ds.sizes['run']} runs"
    curves = streaming.compute(
        streaming.tree_merge(tasks, _concatenate), progress=progress, label=label
    )
    return curves, np.asarray(plan.steps)[1:][usable]


def _activity_block(
    blocks: streaming.Blocks,
    *,
    plan: Plan,
    rates: Floats,
    usable: npt.NDArray[np.bool_],
    cutoff: float,
    unit: Unit,
) -> Floats:
    """Activity curves of the runs of one task, shape (run, step)."""
    axis = -1 if unit == "step" else (-2, -1)
    return np.concatenate(
        [
            _activity(run, rates, usable, plan, cutoff, axis)
            for block in blocks
            for run in np.split(block[plan.variable], len(block[plan.variable]))
        ]
    )


def _activity(
    run: npt.NDArray[Any],
    rates: Floats,
    usable: npt.NDArray[np.bool_],
    plan: Plan,
    cutoff: float,
    axis: int | tuple[int, ...],
) -> Floats:
    """Activity curve of one run, shape (1, step); the unit is taken over `axis`."""
    changes = np.stack([values.flatten() for _, values in plan.values(run)])[usable]
    rate = changes * rates.astype(np.float32)[:, np.newaxis]
    if not np.isfinite(rate).all():
        return np.full((1, len(rates)), np.nan)
    distance = np.abs(rate - np.median(rate, axis=axis, keepdims=True))
    typical = 1.4826 * np.median(distance, axis=axis, keepdims=True)
    floor = _FLOOR * np.sqrt(np.mean(np.square(rate), axis=axis, keepdims=True))
    share: Floats = (distance > cutoff * np.maximum(typical, floor)).mean(axis=-1)
    return share[np.newaxis]


def _concatenate(parts: Sequence[Floats]) -> Floats:
    return np.concatenate(list(parts))


def _population_bootstrap(
    curves: Floats, replicates: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Change points of the mean curve over resampled runs (blocks of runs, when there are many)."""
    blocks = curves
    if len(curves) > _MOST_BLOCKS:
        order = rng.permutation(len(curves))
        blocks = np.stack([curves[p].mean(axis=0) for p in np.array_split(order, _MOST_BLOCKS)])
    count = len(blocks)
    means = np.empty((replicates, curves.shape[1]))
    for row in range(replicates):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)
        means[row] = weights @ blocks / count
    split = segment(means)
    return split.first, split.second


def _no_phases_test(
    curves: Floats, observed: float, replicates: int, rng: np.random.Generator
) -> tuple[float, str]:
    """Share of shuffled populations whose best split explains as much as the observed one.

    Each run's curve is turned by a random number of steps, which keeps its own shape and forgets
    its place; a handful of runs is shuffled in blocks of steps instead.
    """
    runs, steps = curves.shape
    if runs > _MOST_BLOCKS:
        curves = curves[rng.choice(runs, _MOST_BLOCKS, replace=False)]
        observed = float(segment(curves.mean(axis=0)).gain[0])
        runs = _MOST_BLOCKS
    turn = runs >= 8
    length = _block_length(steps)
    means = np.empty((replicates, steps))
    for row in range(replicates):
        offset = rng.integers(0, steps, (runs, 1))
        order = (np.arange(steps) + offset) % steps
        if not turn:
            pieces = [np.array_split(o, -(-steps // length)) for o in order]
            order = np.stack(
                [np.concatenate([p[i] for i in rng.permutation(len(p))]) for p in pieces]
            )
        means[row] = np.take_along_axis(curves, order, axis=1).mean(axis=0)
    as_large = int((segment(means).gain >= observed).sum())
    test = "circular shifts of each run" if turn else f"shuffled blocks of {length} steps"
    return (1 + as_large) / (1 + replicates), test


def _run_frame(
    ds: xr.Dataset,
    curves: Floats,
    finite: npt.NDArray[np.bool_],
    replicates: int,
    tail: float,
    rng: np.random.Generator,
    axes: tuple[npt.NDArray[np.int64], Floats, Floats],
) -> pd.DataFrame:
    """Boundaries of each run, with intervals by residual block bootstrap over steps."""
    import pandas as pd

    step, time, snr = axes
    used = curves[finite]
    split = segment(used)
    intervals = _run_intervals(used, replicates, tail, rng) if replicates else None
    columns: dict[str, Floats] = {}
    for number, (name, best) in enumerate(
        (("mutation", split.first), ("refinement", split.second))
    ):
        columns[f"{name}_step"] = _at(step, best)
        if intervals is not None:
            lower, upper = intervals[number]
            columns[f"{name}_lower"] = _at(step, np.where(np.isnan(best), np.nan, lower))
            columns[f"{name}_upper"] = _at(step, np.where(np.isnan(best), np.nan, upper))
        columns[f"{name}_normalised_time"] = _at(time, best)
        columns[f"{name}_log_snr"] = _at(snr, best)
    frame = pd.DataFrame(columns, index=pd.Index(ds["run"].values[finite], name="run"))
    return frame.reindex(pd.Index(ds["run"].values, name="run"))


def _run_intervals(
    curves: Floats, replicates: int, tail: float, rng: np.random.Generator
) -> Floats:
    """Ends of the intervals of each run, shape (2, 2, run); some runs at a time, in flat memory."""
    parts = []
    for start in range(0, len(curves), _RUNS_AT_ONCE):
        draws = _step_bootstrap(curves[start : start + _RUNS_AT_ONCE], replicates, rng)
        parts.append([_interval(each, tail) for each in draws])
    return np.concatenate(parts, axis=-1) if parts else np.empty((2, 2, 0))


def _step_bootstrap(curves: Floats, replicates: int, rng: np.random.Generator) -> Floats:
    """Change points of resampled curves, shape (2, replicate, run)."""
    runs, steps = curves.shape
    fitted = means_of(curves, segment(curves))
    # three means and two places were fitted: residuals are too small by this factor
    residuals = (curves - fitted) * np.sqrt(steps / max(1, steps - 5))
    length = _block_length(steps)
    result = np.empty((2, replicates, runs))
    rows = np.arange(runs)[:, None]
    for replicate in range(replicates):
        starts = rng.integers(0, steps, (runs, -(-steps // length)))
        index = (starts[:, :, None] + np.arange(length)) % steps
        drawn = residuals[rows, index.reshape(runs, -1)[:, :steps]]
        split = segment(fitted + drawn)
        result[:, replicate] = split.first, split.second
    return result


def _block_length(steps: int) -> int:
    """Length of the blocks of a bootstrap over steps."""
    return max(1, round(float(np.cbrt(steps))))


def _interval(draws: Floats, tail: float) -> tuple[Any, Any]:
    """Percentile interval over the leading axis, rounded outwards to whole steps."""
    with np.errstate(invalid="ignore"):
        have = np.isfinite(draws).any(axis=0)
        filled = np.where(have, draws, 0.0)
        lower = np.nanquantile(filled, tail, axis=0, method="lower")
        upper = np.nanquantile(filled, 1 - tail, axis=0, method="higher")
    return np.where(have, lower, np.nan), np.where(have, upper, np.nan)


def _boundary(
    best: float,
    interval: tuple[Any, Any],
    step: npt.NDArray[np.int64],
    time: Floats,
    snr: Floats,
) -> Boundary:
    """One boundary in steps, normalised time and log-SNR."""
    ends = np.array([float(interval[0]), float(interval[1])])
    ends = (
        np.array([min(ends[0], best), max(ends[1], best)]) if np.isfinite(best) else ends * np.nan
    )

    def both(axis: npt.NDArray[Any]) -> tuple[float, tuple[float, float]]:
        values = _at(axis, np.array([best, *ends]))
        return float(values[0]), (float(values[1]), float(values[2]))

    return Boundary(*both(step), *both(time), *both(snr))


def _at(axis: npt.NDArray[Any], position: npt.NDArray[Any]) -> Floats:
    """Values of an axis at positions that may be NaN."""
    known = np.isfinite(position)
    index = np.where(known, position, 0).astype(int)
    return np.where(known, axis[index], np.nan)


def _axes(
    ds: xr.Dataset, steps: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Step, normalised time and log-SNR of the pairs."""
    step = np.asarray(ds["step"].values, np.int64)[steps]
    snr = np.asarray(ds["log_snr"].values, np.float64)[steps]
    return step, step / ds.sizes["step"], snr


def _activity_array(
    share: Floats, step: npt.NDArray[np.int64], time: Floats, snr: Floats
) -> xr.DataArray:
    """The mean activity curve with its three axes."""
    return xr.DataArray(
        share,
        dims="step",
        coords={"step": step, "normalised_time": ("step", time), "log_snr": ("step", snr)},
        name="activity",
        attrs={"long_name": "share of active pixels", "units": "1"},
    )


def _read_boundary(entry: dict[str, Any]) -> Boundary:
    """A boundary from JSON, where intervals are lists."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()
    }
    return Boundary(**values)


def _null(value: Any) -> Any:
    """Replace what JSON cannot hold by None."""
    if isinstance(value, dict):
        return {key: _null(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null(entry) for entry in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _nan(value: Any) -> Any:
    """Put NaN back where there was None."""
    if isinstance(value, dict):
        return {key: _nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_nan(entry) for entry in value]
    return np.nan if value is None else value
