"""Options of evaluating and of tuning a correction, and of trying remedies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asced_analysis.replay.options import SamplerOptions
from asced_stores.errors import InputError
from asced_stores.options import option, options

if TYPE_CHECKING:
    from asced_analysis.correction.controls import Control
    from asced_analysis.realism.local import RealismModel
    from asced_analysis.realism.real_images import Real, RealImages
    from asced_analysis.thresholds.document import Thresholds


@options
class JudgeOptions:
    """Who judges, and what is real."""

    judge: str | RealismModel | None = option(
        None, "A kind of features by name (`asced_analysis.realism.judges.choose_judge`)."
    )
    real: Real | RealImages | None = option(
        None,
        "Real images to compare with: a folder, ``.npz`` or Zarr. Without them runs are compared "
        "with the recorded population, and the result says what is typical there, not what is "
        "real.",
    )


@options
class EvaluateOptions(SamplerOptions, JudgeOptions):
    """Who judges, and which controls are sampled; by what sampler, the replay was told as well."""

    outcomes: Any = option(
        None,
        "A pair of scores by run from elsewhere, or masks of broken places, of the recorded and of "
        "the corrected runs (`asced_analysis.detection.given_outcomes`): they judge instead.",
    )
    better: str = option("lower", "Which of these scores are good: lower or higher.")
    controls: bool | Sequence[Control] = option(
        True,
        "Of a replay: repeat the correction of the flagged runs at wrong places: ``shuffled``, "
        "``foreground``, ``everywhere``. True: all three, where the strategy has a mask and the "
        "pipeline can be had; the flagged runs are sampled again for each. Of a strategy that "
        "takes whole runs, ``shuffled`` alone: as many other runs.",
    )
    progress: Callable[[int, int], None] | None = option(
        None, "Called with parts done and parts in all."
    )

    def __post_init__(self) -> None:
        if self.better != "lower" and self.outcomes is None:
            raise InputError(
                f"better={self.better!r} says which outcomes are good: give outcomes as well"
            )
        if self.outcomes is not None and (self.judge is not None or self.real is not None):
            raise InputError("outcomes judge by themselves: give no judge and no real images")


@options
class TuneOptions(SamplerOptions):
    """Which corrections are tried, on which runs, and who chooses."""

    steps: Sequence[int] | None = option(
        None,
        "Correction steps (``T_c``) to try; by default six from the thresholds' own to four fifths "
        "of the way.",
    )
    strengths: Sequence[float] = option(
        (0.0,), "Strengths of the perturbation (``noise_scale``) to try."
    )
    strategies: Sequence[str] = option(
        ("ttc", "renoise"),
        "``ttc`` and ``renoise``, or others that act from ``T_c`` on, in one pass.",
    )
    regions: Sequence[str] = option(
        ("everywhere", "foreground"), "Regions that ``renoise`` is tried in."
    )
    share: float = option(
        0.25, "Share of the runs, by score, to try them on: flagged runs alone may be too few."
    )
    judge: str | RealismModel | None = option(
        None,
        "A teacher, since the judge is for reporting: by default the embedded one for the embedded "
        "`fashion`, else ``patches``.",
    )
    real: Real | RealImages | None = option(
        None, "Real images, of which the teacher's half is taken; see `evaluate`."
    )
    progress: Callable[[int, int], None] | None = option(
        None, "Called with parts done and parts in all."
    )

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"share is {self.share}; expected a share of the runs in 0..1")


@options
class RemedyOptions(SamplerOptions, JudgeOptions):
    """What may be tried, at what cost, and who chooses."""

    thresholds: Thresholds | str | Path | None = option(
        None, "For corrections and pruning, which are left out without them."
    )
    budget: int | None = option(
        None,
        "Evaluations of the network a delivered image; by default twice the recorded steps.",
    )
    runs: int = option(64, "Runs to draw with each remedy, and for the confirmation.")
    chooser: str | RealismModel | None = option(
        None,
        "A kind of features that chooses; the judge confirms. They never share reference images: "
        "of real ones each takes a half of its own.",
    )
    progress: Callable[[int, int], None] | None = option(
        None, "Called with remedies done and remedies in all."
    )

    def __post_init__(self) -> None:
        if self.loop is not None or self.call is not None:
            raise InputError(
                "remedies need a pipeline: a loop or call of your own is given no other sampler; "
                "use tune(loop=...)"
            )
