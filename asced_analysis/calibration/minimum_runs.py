"""Whether there are runs enough for a level, before anything is read.

People choose how many runs they record, not how many of them calibrate: that number is said.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from asced_analysis.calibration.labels import FOLDS
from asced_analysis.calibration.robust import FEWEST
from asced_analysis.calibration.splits import Split, total_runs
from asced_analysis.compute.source import Source
from asced_analysis.thresholds.conformal import TooFewRunsError, check_rate, runs_needed


def check_minimum_runs(
    source: Source,
    split: Split,
    method: str,
    rate: float,
    *,
    confidence: float | None = None,
    labels: Mapping[int, bool] | None = None,
) -> None:
    """Refuse to look for a level with too few runs to calibrate on.

    Parameters
    ----------
    source, split
        The runs, and which of them calibrate.
    method : str
        ``conformal``, ``outcome``, ``robust``, ``risk`` or ``labels``.
    rate : float
        Promised.
    confidence, labels
        As `calibrate` takes them.

    Raises
    ------
    TooFewRunsError
        With the number of runs, different prompts or seeds that there must be in all.
    """
    check_rate(rate)
    count, what = int(split.calibrate.sum()), f"{split.unit}s"
    if method == "labels":
        numbers = source.dataset["run"].values[split.calibrate].tolist()
        broken = np.array([(labels or {})[int(run)] for run in numbers], bool)
        count, needed = min(int(broken.sum()), int((~broken).sum())), FOLDS
        what = f"{'broken' if broken.mean() < 0.5 else 'whole'} {what}"
    elif method == "robust":
        needed = FEWEST
    else:
        needed = runs_needed(rate, confidence=confidence)
    if count >= needed:
        return
    promise = "" if method in ("labels", "robust") else f" to promise {rate:g}"
    if confidence is not None:
        promise += f" with confidence {confidence:g}"
    units, whose, repeated, do = f"{split.unit}s", "", "", "record"
    in_all = total_runs(source.runs, count, needed)
    runs = source.dataset["run"].values.tolist()
    if method == "labels" and (labelled := len(set(runs) & set(labels or ()))) < len(runs):
        in_all, whose = total_runs(labelled, count, needed), f", of which {labelled} have a label,"
        do = "label" if in_all <= source.runs else "record and label"
    if split.unit != "run":
        in_all = total_runs(split.units, count, needed)
        whose = f" of {split.units} {units}"
        repeated = (
            f". {units.capitalize()} repeat, so whole {units} are split and each counts once: more "
            "runs of the same ones do not help"
        )
        units = f"different {units}"
    raise TooFewRunsError(
        f"the method {method} needs {needed} {what} to calibrate on{promise}; of these "
        f"{source.runs} runs{whose} it has {count}: {do} some {in_all} {units} "
        f"in all{', or promise a larger rate' if promise else ''}{repeated}"
    )
