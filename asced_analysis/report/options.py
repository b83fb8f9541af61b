"""What a report shows beside the runs, and who judges a replay."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from asced_analysis.evaluation.options import JudgeOptions
from asced_stores.options import option, options

if TYPE_CHECKING:
    import xarray as xr

    from asced_analysis.evaluation import Evaluation, Remedies
    from asced_analysis.phases.segmentation import Phases
    from asced_analysis.thresholds.document import Thresholds

GALLERY = 24


@options
class ReportOptions(JudgeOptions):
    """What stands in a report; judge and real images are for an evaluation that is made here."""

    thresholds: Thresholds | str | PathLike[str] | None = option(
        None,
        "File of `asced calibrate`. Shown with their guarantee; without a replay, they also "
        "choose the gallery.",
    )
    replay: str | PathLike[str] | None = option(None, "Store of `asced replay`.")
    evaluation: Evaluation | str | PathLike[str] | None = option(
        None, "File of `asced evaluate`; computed when left out and there is a replay."
    )
    compare: Sequence[Evaluation | str | PathLike[str]] = option(
        (), "Evaluations of other corrections of the same runs, set beside this one."
    )
    remedies: Remedies | str | PathLike[str] | None = option(
        None,
        "File of `asced tune --remedies`. What was tried on the pipeline "
        "(`asced_analysis.evaluation.try_remedies`).",
    )
    phases: Phases | None = option(None, "Phases already at hand; by default computed.")
    statistics: xr.Dataset | None = option(
        None, "Statistics by step already at hand; by default computed."
    )
    pipeline: Any = option(
        None,
        "Name or folder for the evaluation, if not as the store names it. Also a pipeline, for its "
        "controls.",
    )
    gallery: int = option(GALLERY, "Largest number of flagged runs shown.")
    overwrite: bool = option(False, "Replace an existing file.")
