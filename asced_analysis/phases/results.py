"""What `segment_phases` finds: boundaries with intervals, by population and run, and their JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.thresholds.typed_json import finite_json
from asced_stores.errors import InputError
from asced_stores.notebook import html_table

if TYPE_CHECKING:
    import pandas as pd

Floats: TypeAlias = npt.NDArray[np.float64]

FORMAT = "asced-phases"
FORMAT_VERSION = 1


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
    p_value : float
        Of the hypothesis that activity never rises (Mutation) or never falls (Refinement): a
        boundary that could be chance at the level of the intervals is NaN, and only this is
        known.
    """

    step: float
    step_interval: tuple[float, float]
    normalised_time: float
    normalised_time_interval: tuple[float, float]
    log_snr: float
    log_snr_interval: tuple[float, float]
    p_value: float = float("nan")


@dataclass(frozen=True)
class Population:
    """The two boundaries of the population: where Mutation and where Refinement begins."""

    mutation: Boundary
    refinement: Boundary

    def __iter__(self) -> Iterator[Boundary]:
        """Both boundaries, in order."""
        return iter((self.mutation, self.refinement))

    def spans(self, axis: str, low: float, high: float) -> list[tuple[str, float, float]]:
        """Which phases there are, and from where to where; two where one boundary is missing.

        Parameters
        ----------
        axis : {"step", "normalised_time", "log_snr"}
        low, high : float
            Ends of the axis.
        """
        first, second = (getattr(boundary, axis) for boundary in self)
        names = ["Profiling", "Mutation", "Refinement"]
        if np.isnan(first) and np.isnan(second):
            return []
        if np.isnan(second):
            return [(names[0], low, first), (names[1], first, high)]
        if np.isnan(first):
            return [(names[1], low, second), (names[2], second, high)]
        return list(zip(names, (low, first, second), (first, second, high), strict=True))


@dataclass(frozen=True, repr=False)
class Phases:
    """Phases of a population and of each of its runs.

    Attributes
    ----------
    population : Population
        Boundaries of the mean activity curve; intervals by bootstrap over runs (over blocks of
        steps, of fewer than five runs).
    per_run : pandas.DataFrame
        One row a run (indexed by run): ``mutation_step, mutation_normalised_time,
        mutation_log_snr`` and likewise ``refinement``, each with an interval (residual block
        bootstrap over steps): ``mutation_lower, mutation_upper`` in steps,
        ``mutation_log_snr_lower`` and so on. ``p_value`` is that of the run's own curve,
        ``mutation_p_value`` and ``refinement_p_value`` of its boundaries; what may be chance is
        NaN, as in the population.
    activity : xarray.DataArray, dims (step,)
        Mean share of active pixels, with ``log_snr`` and ``normalised_time`` coordinates.
    p_value : float
        Of the hypothesis that there are no phases: that mean activity is the same at every step.
        Where it is above ``1 - confidence`` there are no boundaries.
    runs, cutoff, confidence : int, float, float
        What went in.
    attributes : dict
        Signal, test, pipeline and model of the store; runs and steps that were left out.
    """

    population: Population
    per_run: pd.DataFrame
    activity: xr.DataArray
    p_value: float
    runs: int
    cutoff: float
    confidence: float
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> float:
        """Largest p-value at which a boundary is reported."""
        return 1 - self.confidence

    def verdict(self) -> str:
        """What was found, in a sentence without numbers of steps; the same words everywhere."""
        switches = self.attributes.get("network_switches")
        if not switches:
            return self._found()
        at = " and ".join(f"step {step}" for step in switches)
        return f"{self._found()} Another network takes over at {at}: that change is left out."

    def _found(self) -> str:
        tested = f"(p = {self.p_value:.2g}, level {self.level:.2g})"
        found = [np.isfinite(boundary.step) for boundary in self.population]
        if all(found):
            return f"Activity rises and falls again {tested}."
        if any(found):
            what = "rises and does not fall again" if found[0] else "only falls"
            return f"Activity {what} {tested}: one boundary, the other may be chance."
        if self.p_value > self.level:
            return f"No phases were found: activity may be the same at every step {tested}."
        return (
            f"No phases were found: activity changes along the steps {tested}, but does not rise "
            "and fall again."
        )

    def __repr__(self) -> str:
        return f"<Phases of {self.activity.sizes['step']} steps: {self.verdict()}>"

    def _repr_html_(self) -> str:
        """A short table for notebooks."""
        rows = [
            (name, f"{b.step:.0f}", "{:.0f} to {:.0f}".format(*b.step_interval), f"{b.log_snr:.2f}")
            for name, b in zip(("Mutation", "Refinement"), self.population, strict=True)
            if np.isfinite(b.step)
        ]
        return html_table(
            f"Phases of {self.runs:,} runs",
            ("begins", "at step", f"{100 * self.confidence:g} % interval", "log-SNR"),
            rows,
            self.verdict(),
        )

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
        return json.dumps(finite_json(document), allow_nan=False)

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
        activity = activity_array(
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


def activity_array(
    share: npt.NDArray[np.floating[Any]], step: npt.NDArray[np.int64], time: Floats, snr: Floats
) -> xr.DataArray:
    """The mean activity curve with its three axes.

    Parameters
    ----------
    share : numpy.ndarray, shape (step,)
        Of active pixels.
    step, time, snr : numpy.ndarray, shape (step,)
        Step, normalised time and log-SNR of the later step of each pair.

    Returns
    -------
    xarray.DataArray, dims (step,)
    """
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


def _nan(value: Any) -> Any:
    """Put NaN back where there was None."""
    if isinstance(value, dict):
        return {key: _nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_nan(entry) for entry in value]
    return np.nan if value is None else value
