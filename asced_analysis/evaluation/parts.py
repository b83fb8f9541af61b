"""The parts of an evaluation as they stand in the file: names and types, said once.

``evaluation.json`` is written from these classes and read into them; its JSON Schema follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from asced_analysis.evaluation.intervals import NOTHING, Estimate
from asced_analysis.realism.claims import Reference

T = TypeVar("T")


@dataclass(frozen=True)
class ByLocation(Generic[T]):
    """A figure over the locations of the flagged runs.

    Attributes
    ----------
    all : T
    damaged, undamaged : T
        The tenth of all locations that is least realistic before, and the others.
    per_changed_pixel : T
        Sum over all locations, over the number of pixels that changed visibly.
    """

    all: T
    damaged: T
    undamaged: T
    per_changed_pixel: T

    def items(self) -> Iterator[tuple[str, T]]:
        """Name and figure of each group of locations."""
        return ((one.name, getattr(self, one.name)) for one in fields(ByLocation))


@dataclass(frozen=True)
class EffectFigures(ByLocation[Estimate]):
    """Change of local distance: lower is better, so a negative change is a repair.

    Attributes
    ----------
    improved : Estimate
        Share of runs whose mean distance fell.
    """

    improved: Estimate


@dataclass(frozen=True)
class AgainstControls(Estimate):
    """Effect minus that of the best control, paired by run; negative: the mask repairs more.

    The best control is chosen on the same runs, which makes the difference look smaller, never
    larger.

    Attributes
    ----------
    best_control : str or None
        The best one of equal area.
    against : mapping of str to Estimate
        The difference to every control, ``everywhere`` among them, which is not of equal area.
    """

    best_control: str | None
    against: Mapping[str, Estimate]


@dataclass(frozen=True)
class Change:
    """A figure of all runs before and after, and how it changed."""

    before: Estimate
    after: Estimate
    change: Estimate


@dataclass(frozen=True)
class OutcomeRates:
    """Shares of runs that a correction repairs and harms, with exact (Blaker's) 95 % intervals.

    Attributes
    ----------
    bar : float
        Mean local distance above which a run counts as broken.
    broken, good : int
        Numbers of flagged runs before.
    repaired : Estimate
        Of the flagged broken runs the share that is not broken any more.
    good_after : Estimate
        Of all flagged runs.
    harmed_of_flagged_good, harmed_of_all_good : Estimate
        The runs that break, as shares of those that were good.
    worst_quarter : Change
        Shares of broken ones among the flagged runs, of different runs among all; the change holds
        0 where as many break as are repaired.
    chance : float
        What chance alone would break: the share of the recorded runs in the worst quarter, which
        fresh draws would have too.
    """

    bar: float
    broken: int
    good: int
    repaired: Estimate
    good_after: Estimate
    harmed_of_flagged_good: Estimate
    harmed_of_all_good: Estimate
    worst_quarter: Change
    chance: float


@dataclass(frozen=True)
class FlaggedRuns:
    """What the correction did to the flagged runs; of different runs, how the two stores differ.

    Attributes
    ----------
    effect : EffectFigures
    endings : OutcomeRates
    inside_mask, outside_mask : Estimate
        Mean absolute change of pixels, in -1..1.
    mask_area : float or None
        Share of the image.
    evaluations : float or None
        Of the denoiser, mean of a flagged run.
    chance : ByLocation of float, or None
        Change of local distance that runs drawn anew would show: the damaged tenth, which was
        chosen by that distance, looks better in any other draw. None of different runs.
    """

    effect: EffectFigures
    endings: OutcomeRates
    inside_mask: Estimate = NOTHING
    outside_mask: Estimate = NOTHING
    mask_area: float | None = None
    evaluations: float | None = None
    chance: ByLocation[float | None] | None = None


@dataclass(frozen=True)
class OtherRuns:
    """Harm to runs that were not flagged."""

    runs: int = 0
    changed: int = 0
    worse: int = 0
    largest_difference: float | None = None


@dataclass(frozen=True)
class ControlFigures:
    """The same correction at wrong places, or of other runs."""

    effect: EffectFigures
    runs: int
    mask_area: float
    repaired: Estimate
    harmed_of_flagged_good: Estimate


@dataclass(frozen=True)
class RunChange:
    """What happened to one flagged run; None where there is no finite number."""

    run: int
    score: float | None
    mask_area: float
    inside_mask: float | None
    outside_mask: float | None
    local_realism_before: float
    local_realism_after: float


@dataclass(frozen=True)
class JudgeFacts:
    """Who judged.

    Attributes
    ----------
    name : str
    reference : Reference
        What it compares with.
    distance : str
        What it measures, in words.
    neighbours : int
        Of precision and recall.
    card : mapping
        What its maker says of it.
    chose : bool
        Whether it also chose among draws.
    """

    name: str
    reference: Reference
    distance: str
    neighbours: int
    card: Mapping[str, Any]
    chose: bool
