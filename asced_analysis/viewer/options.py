"""What is shown beside runs, and who measures them."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from asced_analysis.evaluation.options import JudgeOptions
from asced_stores.options import option, options

if TYPE_CHECKING:
    import xarray as xr

    from asced_analysis.thresholds.document import Thresholds


@options
class ViewOptions(JudgeOptions):
    """What is shown beside runs; without judge and real images no local distance is measured."""

    thresholds: Thresholds | str | PathLike[str] | None = option(
        None,
        "Thresholds or their file (asced calibrate): scores, masks and levels under a slider.",
    )
    replay: str | PathLike[str] | xr.Dataset | None = option(
        None, "What a replay made of these runs (asced replay): corrected versions beside them."
    )
    override: bool = option(False, "Use thresholds of another model anyway.")
    pipeline: Any = option(
        None,
        "For thresholds with a lookahead: a pipeline, its name or folder, instead of the one that "
        "the store names.",
    )
    keep_scores: bool = option(True, "Keep scores beside the store for the next time.")
