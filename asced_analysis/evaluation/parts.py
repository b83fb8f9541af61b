"""The parts of an evaluation as they stand in the file: names and types, said once.

``evaluation.json`` is written from these classes and read into them; its JSON Schema follows. Those
of effects and of outcome rates stand beside what computes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from asced_analysis.evaluation.effects import AgainstControls, ByLocation, EffectFigures
from asced_analysis.evaluation.intervals import NOTHING, Change, Estimate
from asced_analysis.evaluation.outcome_rates import OutcomeRates
from asced_analysis.realism.claims import Claims, Reference, claims_of


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


@dataclass(frozen=True, repr=False, kw_only=True)
class EvaluationFields:
    """What `asced_analysis.evaluation.Evaluation` holds; it says what each field is."""

    format: Literal["asced-evaluation"] = "asced-evaluation"
    format_version: Literal["2.3"] = "2.3"
    judge: JudgeFacts
    paired: bool
    pairs: str
    notes: tuple[str, ...] = ()
    replay_of: str | None = None
    pipeline: str | None = None
    strategy: str | None = None
    correction: str | None = None
    teacher: str | None = None
    correction_step: int | None = None
    steps: int | None = None
    control: str | None = None
    runs: int
    flagged: int
    quality: Mapping[str, Change]
    flagged_runs: FlaggedRuns
    other_runs: OtherRuns = field(default_factory=OtherRuns)
    controls: Mapping[str, ControlFigures] = field(default_factory=dict)
    against_best_control: ByLocation[AgainstControls] | None = None
    against_other_runs: ByLocation[Estimate] | None = None
    by_run: tuple[RunChange, ...] = ()

    @property
    def claims(self) -> Claims:
        """What may be said of results by this judge."""
        return claims_of(self.judge.reference)
