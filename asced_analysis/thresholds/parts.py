"""The parts of thresholds as they stand in the file: names, types and bounds, said once.

The published JSON Schema follows from these classes, and files are read into them
(`asced_analysis.thresholds.schema`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, NotRequired, TypeAlias, TypedDict

from msgspec import Meta

Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=10**12)]
Step: TypeAlias = Annotated[int, Meta(ge=0, le=100_000)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]
Key: TypeAlias = Annotated[str, Meta(pattern="^[a-z_]{1,40}$")]
Long: TypeAlias = Annotated[str, Meta(max_length=2000)]
Row: TypeAlias = Annotated[list[float], Meta(max_length=4096)]
Picture: TypeAlias = Annotated[
    list[Annotated[list[Row], Meta(max_length=1024)]], Meta(max_length=16)
]
Cells: TypeAlias = Annotated[tuple[float, ...], Meta(min_length=1, max_length=4096)]
Numbers: TypeAlias = Annotated[
    tuple[float | Annotated[tuple[float | Cells, ...], Meta(min_length=1, max_length=4096)], ...],
    Meta(min_length=1, max_length=4096),
]
"""One number a grid cell, or a map of them."""
Correlation: TypeAlias = Annotated[float, Meta(ge=-1.0001, le=1.0001)]
Six: TypeAlias = Annotated[tuple[float, ...], Meta(min_length=6, max_length=6)]
Bin: TypeAlias = Annotated[int, Meta(ge=1 - 2**53, le=2**53 - 1)]


@dataclass(frozen=True)
class Levels:
    """The level and what it is measured in.

    Attributes
    ----------
    log_snr : tuple of float
        Rising grid; n + 1 points make n cells. For variants without a grid, the window's ends.
    location, scale : nested tuples of float
        The population's, by cell (and place), or of the run score.
    level : float
        In robust units; a run whose score lies above it is flagged.
    whitening : nested tuples of float or None
        Of `diffpath` alone.
    """

    log_snr: Annotated[tuple[float, ...], Meta(min_length=2, max_length=4096)]
    location: Numbers
    scale: Numbers
    level: float
    whitening: Annotated[tuple[Six, ...], Meta(min_length=6, max_length=6)] | None = None


@dataclass(frozen=True)
class Window:
    """The part of sampling that is looked at, in three units.

    Attributes
    ----------
    log_snr, normalised_time : (float, float)
        First and last; time runs from 0 (noise) to 1.
    steps : (int, int)
        First and last step of the calibrating sampler, both included.
    of_steps : int
        Number of that sampler's steps.
    """

    log_snr: tuple[float, float]
    normalised_time: tuple[Share, Share]
    steps: tuple[Step, Step]
    of_steps: Annotated[int, Meta(ge=2, le=100_000)]


@dataclass(frozen=True)
class Cleanup:
    """What a flagged region must measure, as fractions of the image's area and shorter side.

    Attributes
    ----------
    kind : str
        `opening`, `components` or `none`.
    min_area, min_width : float
        Fractions; rounded up to pixels (or map cells), at least 3 and 2 where not 0.
    """

    kind: Literal["opening", "components", "none"]
    min_area: Share = 0.0
    min_width: Share = 0.0

    def pixels(self, height: int, width: int) -> tuple[int, int]:
        """Least area and least width for an image (or map) of this size."""
        area = max(3, math.ceil(self.min_area * height * width - 1e-9)) if self.min_area else 0
        side = max(2, math.ceil(self.min_width * min(height, width) - 1e-9))
        return area, side if self.min_width else 1


@dataclass(frozen=True)
class Correction:
    """How flagged runs are corrected by default.

    Attributes
    ----------
    strategy : str
        A name of `asced_analysis.correction`.
    log_snr, normalised_time : float
        Of the step whose entering sample is edited.
    strength : float
        Noise scale of the perturbation of predicted x0.
    seed : int
        Of the correction's own noise.
    grow : float
        Growth of the mask before the edit, as a fraction of the shorter side.
    parameters : mapping
        Of the strategy, by name (see `asced_analysis.correction.STRATEGIES`).
    """

    strategy: Key
    log_snr: float
    normalised_time: Share
    strength: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    grow: Share = 0.0
    parameters: Annotated[
        Mapping[Key, float | Annotated[str, Meta(max_length=100)] | bool | list[float]],
        Meta(max_length=20),
    ] = field(default_factory=dict)

    def __str__(self) -> str:
        """For people: ``renoise, where foreground, at 0.48 of sampling``."""
        parameters = "".join(f", {name} {value}" for name, value in self.parameters.items())
        return f"{self.strategy}{parameters}, at {self.normalised_time:.2f} of sampling"


@dataclass(frozen=True)
class Guarantee:
    """What is promised about false alarms, to whom, and what was measured.

    Attributes
    ----------
    method : str
        How the level was found.
    promised : float
        False-alarm rate (or share of the image, for risk control) that is promised.
    finite_sample : bool
        Whether the promise holds at every sample size (robust levels have none).
    confidence : float or None
        Of a training-conditional promise; None where the promise is on average over calibrations.
    unit : str
        The exchangeable unit: `run` or `prompt`.
    population : str
        Of which runs the promise speaks.
    fit, calibrate, report : int
        Sizes of the three disjoint sets, in units.
    order_statistic : int or None
        The level is this largest of the calibration scores.
    measured, interval : float or None, (float, float) or None
        Rate on the report set, and its 95 % Clopper-Pearson interval.
    needed : mapping of str to int
        Calibration units needed for tighter rates.
    notes : tuple of str
        Anything a reader must know.
    """

    method: Name
    promised: Share
    finite_sample: bool
    confidence: Share | None
    unit: Literal["run", "prompt", "seed"]
    population: Long
    fit: Count
    calibrate: Count
    report: Count
    order_statistic: Count | None
    measured: Share | None
    interval: tuple[Share, Share] | None
    needed: Mapping[str, Count] = field(default_factory=dict)
    notes: Annotated[tuple[Long, ...], Meta(max_length=50)] = ()

    def band(self, coverage: float = 0.99) -> tuple[int, int] | None:
        """Interval in which the number of flagged runs of the report set was to be expected.

        Parameters
        ----------
        coverage : float
            Of the central interval of the beta-binomial law (see `calibration.conformal`).

        Returns
        -------
        (int, int) or None
            None where the level is no order statistic, or nothing was measured.
        """
        if self.order_statistic is None or not self.report:
            return None
        from asced_analysis.thresholds.conformal import expected_band

        return expected_band(self.calibrate, self.order_statistic, self.report, coverage=coverage)


@dataclass(frozen=True)
class Transfer:
    """The level for another sampler, from runs of that sampler.

    Attributes
    ----------
    scheduler_class : str
    steps : int
    runs : int
    realised : float
        False-alarm rate there under the original level.
    factor : float
        `realised` over the promise.
    level : float
        The level that keeps the promise there.
    """

    scheduler_class: Name
    steps: Annotated[int, Meta(ge=1, le=100_000)]
    runs: Count
    realised: Share
    factor: Annotated[float, Meta(ge=0)]
    level: float


class Fingerprint(TypedDict):
    """What the thresholds were calibrated on; None where it was not known."""

    model_fingerprint: Name | None
    prediction_type: Name | None
    sample_shape: Annotated[
        list[Annotated[int, Meta(ge=1, le=10**6)]], Meta(min_length=3, max_length=4)
    ]
    scheduler_class: Name | None
    steps: Annotated[int, Meta(ge=1, le=100_000)] | None
    pipeline: Name | None
    dtype: NotRequired[Literal["float16", "float32"]]
    compute: NotRequired[Annotated[dict[Key, Long], Meta(max_length=40)]]


class SparseCounts(TypedDict):
    """A histogram without its empty bins."""

    bins: Annotated[list[Bin], Meta(max_length=100_000)]
    counts: Annotated[list[Count], Meta(max_length=100_000)]


class DriftCounts(TypedDict, total=False):
    """Histograms of run summaries for the drift check, by grid cell, level and of the score.

    `energies` are those of the log root mean square of eps and x0 at each level of the grid.
    """

    bin_width: Annotated[float, Meta(gt=0)]
    runs: Count
    cells: Annotated[list[SparseCounts], Meta(max_length=4096)]
    score: SparseCounts
    energies: dict[Literal["eps", "x0"], Annotated[list[SparseCounts], Meta(max_length=4096)]]


class ConformanceVector(TypedDict):
    """A small input and what a correct port makes of it.

    `values` are all steps of `signal`; learnt detectors also have the window's last `eps`, and what
    the model said of a lookahead (`lookahead_x0`) or what its modules gave (`activations`).
    """

    alpha: Row
    sigma: Row
    log_snr: Row
    signal: Literal["eps", "x0"]
    values: Annotated[list[Picture], Meta(max_length=4096)]
    mask: Annotated[
        list[Annotated[str, Meta(pattern="^[01]*$", max_length=1024)]], Meta(max_length=1024)
    ]
    score: float
    flagged: bool
    eps: NotRequired[Picture]
    lookahead_x0: NotRequired[Picture]
    activations: NotRequired[Row]


class WeightsFile(TypedDict):
    """The safetensors file beside the thresholds of a learnt variant."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$")]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class TeacherReference(TypedDict):
    """What a teacher compares ends with."""

    kind: Literal["real", "population", "model", "given", "masks"]
    source: Long
    images: Count


class ContentFigures(TypedDict):
    """How outcomes follow content: share explained, and rank correlations by kind of content."""

    explained: Share
    taken_off: bool
    outcome: dict[Name, Correlation]
    learnt_from: dict[Name, Correlation]


class HeldOutFigures(TypedDict):
    """What the learnt score knows of runs that it was not taught by."""

    runs: Count
    auroc: Share | None
    auroc_matched: Share | None
    content: dict[Name, Correlation]


class Teaching(TypedDict):
    """Who labelled the outcomes that were learnt from, and how these follow content."""

    name: Long
    reference: TeacherReference
    runs: Count
    content: ContentFigures
    measured: HeldOutFigures | None
