"""What a corrector is told and what it reports: settings of thresholds, given masks, reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from asced_analysis.correction.registry import STRATEGIES, known, make_strategy
from asced_analysis.correction.strategy import Strategy
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.thresholds.document import Thresholds
    from asced_recorders.tap.schedulers import StepTable


@dataclass(frozen=True)
class ImageReport:
    """What was found in one image, and what was done to it.

    Attributes
    ----------
    run : int
        Its number, counted from 0 over the calls, or the one given to `Corrector.assign`.
    flagged : bool
    score : float
        NaN where the mask came from outside.
    mask : bool array, shape (y, x)
        What was edited; empty where not flagged.
    changed : float
        Share of pixels edited.

    Examples
    --------
    >>> import numpy as np
    >>> from asced_analysis.correction import ImageReport
    >>> ImageReport(0, flagged=True, score=2.1, mask=np.ones((4, 4), bool), changed=0.3).flagged
    True
    """

    run: int
    flagged: bool
    score: float
    mask: NDArray[np.bool_]
    changed: float

    def __repr__(self) -> str:
        """Short: the mask by its size."""
        pixels = f"{int(self.mask.sum())} of {self.mask.size} pixels"
        return (
            f"ImageReport(run={self.run}, flagged={self.flagged}, score={self.score:.4g}, "
            f"mask={pixels}, changed={self.changed:.3g})"
        )


@dataclass(frozen=True)
class GivenMasks:
    """Masks from outside for the next call: another detector's, hindsight, a control."""

    masks: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    scores: NDArray[np.float64]
    first_flagged: NDArray[np.int64] | None = None
    window: tuple[int, int] | None = None


def correction_settings(thresholds: Thresholds | None) -> dict[str, Any]:
    """Return what thresholds say about the correction; empty where they say nothing."""
    return {} if thresholds is None else dict(vars(thresholds.correction))


def recorded_precision(thresholds: Thresholds | None, dtype: str | None) -> torch.dtype:
    """Precision in which runs are recorded, and what a loop looks at is rounded to."""
    name = dtype or (None if thresholds is None else thresholds.fingerprint.get("dtype"))
    if name not in (None, "float16", "float32"):
        raise InputError(f"runs are recorded in float16 or float32, not in {name}")
    return torch.float32 if name == "float32" else torch.float16


def growth_of(thresholds: Thresholds | None, grow: int | None, shape: tuple[int, ...]) -> int:
    """Pixels by which a mask of this shape is grown: as asked for, else the thresholds' share."""
    if grow is not None:
        return grow
    share = float(correction_settings(thresholds).get("grow", 0.0))
    return math.ceil(share * min(shape))


def strategy_of(
    thresholds: Thresholds | None, strategy: str | Strategy | None, parameters: dict[str, Any]
) -> Strategy:
    """Build the strategy that is asked for; of the thresholds' own, with their parameters.

    Parameters
    ----------
    thresholds : Thresholds or None
    strategy : str or Strategy or None
        None: the thresholds' own; ``ttc`` where there are none.
    parameters : dict
        Go before the thresholds'.
    """
    if isinstance(strategy, Strategy):
        return known(strategy)
    settings = correction_settings(thresholds)
    if strategy is None:
        strategy = str(settings.get("strategy", "ttc"))
    if strategy == settings.get("strategy"):
        own = dict(settings["parameters"])
        strength = STRATEGIES.get(str(strategy)).strength
        if strength is not None:
            own[strength] = float(settings["strength"])
        parameters = own | parameters
    return make_strategy(strategy, **parameters)


def correction_step(thresholds: Thresholds | None, table: StepTable) -> int:
    """``T_c`` on a sampler's own steps: the step of nearest log-SNR that may be edited.

    Falls back to 0.48 of the steps, the paper's choice, where the thresholds name none.
    """
    settings = correction_settings(thresholds)
    target = settings.get("log_snr")
    levels = np.asarray(table.log_snr, np.float64)
    allowed = np.array([k for k in range(1, table.steps) if table.editable[k]], int)
    if not len(allowed):
        raise InputError(
            f"{table.scheduler_class} with {table.steps} steps has no step whose entering sample "
            "may be edited, so that the noise keeps the level that the schedule names; choose "
            "another scheduler or more steps"
        )
    if target is None:
        distance = np.abs(allowed - round(0.48 * table.steps)).astype(float)
    else:
        distance = np.abs(levels[allowed] - float(target))
    return int(allowed[np.argmin(distance)])
