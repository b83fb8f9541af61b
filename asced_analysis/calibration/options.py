"""Options of a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from asced_stores.options import option, options

if TYPE_CHECKING:
    from asced_analysis.calibration.teachers import Network, Teacher
    from asced_analysis.realism.local import RealismModel
    from asced_analysis.realism.real_images import Real, RealImages

FRACTIONS = (0.4, 0.4, 0.2)
"""Shares of the runs for fit, calibrate and report."""


@options
class LevelOptions:
    """What is promised, to whom, and what thresholds look at."""

    method: str = option(
        "conformal",
        "How the level is found; labels and outcome learn from labels, or from how runs end. "
        "`conformal`: split conformal at run level. `risk`: conformal risk control of the flagged "
        "share of the image (`false_alarm_rate` is that share; variant `calibrated`). `robust`: "
        "for calibration sets with up to a fifth of broken runs, without a finite-sample "
        "guarantee. `labels`: cheapest level for `labels` and `costs`. `outcome`: learn from how "
        "the recorded runs ended, then split conformal (variant `outcome`).",
    )
    false_alarm_rate: float = option(0.05, "At most this share of ordinary runs is flagged.")
    confidence: float | None = option(
        None,
        "Probability that this calibration keeps the rate; by default it holds on average.",
    )
    window: tuple[float, float] | Literal["phases"] | None = option(
        None,
        "First step to look at and step of the correction, as shares of sampling (0.2 and 0.48 by "
        "default). The window's last step is the one before the "
        'correction. "phases": from the beginning of the runs\' Mutation '
        "phase to its end, or to 0.48 where that is earlier and leaves a window.",
    )
    parameters: Mapping[str, Any] | None = option(None, "Overrides of the variant's parameters.")
    strategy: str | None = option(
        None,
        "Default correction: by default what was measured to repair (docs/truth.md), for `outcome` "
        "``renoise`` of the foreground, for variants that point at a place ``ttc``.",
    )
    fractions: tuple[float, float, float] = option(
        FRACTIONS, "Shares of the runs for fit, calibrate and report."
    )
    seed: int = option(0, "Seed of the split of runs.")
    groups: str | None = option(
        None,
        "Coordinate whose values get levels of their own (label, prompt). Groups with too few runs "
        "get the pooled one, with a warning.",
    )
    normal: Mapping[int, bool] | None = option(
        None, "Restricts the promise to runs that a label calls normal."
    )
    normal_name: str = option("the given label", "What the label is called in the guarantee.")
    labels: Mapping[int, bool] | None = option(
        None, "For `labels`: which runs are broken; runs without a label are left out."
    )
    costs: tuple[float, float] = option((1.0, 1.0), "For `labels`: of a false alarm and of a miss.")
    outcome: Mapping[str, Any] | None = option(
        None,
        "For `outcome`: options of `asced_analysis.calibration.outcome.fit_outcome`; `lookahead`, "
        "the share of sampling by which the model is evaluated once more beyond the window's end "
        "(0.24 is a good one); `draws` of noise, for self-consistency; `content`, features by name "
        "whose nearest runs count as like content.",
    )


@options
class TeacherOptions:
    """Who says how runs ended, for the method ``outcome``."""

    teacher: Teacher | RealismModel | str | None = option(
        None,
        "Who says how runs ended. By default ``self-consistency``, the model's own prediction from "
        "its re-noised ends; with real images, ``patches``. Also any other kind of features "
        "(`asced_analysis.realism.judges.choose_judge`).",
    )
    real: Real | RealImages | None = option(
        None, "Real images for the teacher, who takes one half of them."
    )
    network: Network | None = option(
        None,
        "``network(sample, alpha, sigma)`` to predicted x0, for self-consistency, teacher or "
        "variant: of loops that no pipeline describes.",
    )
    outcomes: Any = option(
        None,
        "Scores from elsewhere, by run or as a file (CSV or Parquet with columns run and score): "
        "they teach instead.",
    )
    masks: Any = option(
        None,
        "Broken places by run, from elsewhere (folder, ``.npz``, mapping); alone, or beside the "
        "scores of `outcomes`.",
    )
    better: Any = option("lower", "Which of these scores are good: lower or higher.")
    pipeline: Any = option(
        None, "What self-consistency asks: by default the pipeline that the store names."
    )
    call_options: Mapping[str, Any] | None = option(
        None,
        "Arguments of its calls that the store does not hold, as in "
        "`asced_analysis.replay.replay`.",
    )


@options
class CalibrateOptions(TeacherOptions, LevelOptions):
    """How thresholds are calibrated."""
