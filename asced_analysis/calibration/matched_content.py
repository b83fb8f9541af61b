"""Learning within like content, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.examples import gather
from asced_analysis.calibration.outcome_training import Examples
from asced_analysis.realism.content import (
    EXPLAINED,
    auroc,
    explained_by,
    matched_auroc,
    rank_correlations,
    shown,
    worst_level,
)
from asced_analysis.thresholds.parts import HeldOutFigures, Teaching

if TYPE_CHECKING:
    from asced_analysis.calibration.teachers import Teacher
    from asced_analysis.compute.source import Source
    from asced_analysis.detection.outcome import Stream
    from asced_analysis.realism.local import RealismModel

WORST = 0.25
FEWEST = 12


def within_matched_content(
    examples: Examples, teacher: Teacher, wanted: bool | None
) -> tuple[Examples, Teaching]:
    """Take what content explains off the outcomes, where it explains enough.

    Parameters
    ----------
    examples : Examples
    teacher : Teacher
    wanted : bool or None
        Whether to; None: where content explains more than `EXPLAINED` of the variance.

    Returns
    -------
    (Examples, dict)
        What to learn from, and the entry ``teacher`` of thresholds, not measured yet.
    """
    share, predicted = explained_by(examples.goal, shown(examples.content))
    taken = share > EXPLAINED if wanted is None else wanted
    learnable = examples
    if taken:
        off = (predicted - predicted.mean()).astype(np.float32)
        learnable = replace(
            examples, goal=examples.goal - off, target=examples.target - off[:, None, None]
        )
    return learnable, {
        "name": teacher.name,
        "reference": {
            "kind": teacher.reference.kind,
            "source": teacher.reference.source,
            "images": teacher.reference.images,
        },
        "runs": len(examples.rows),
        "content": {
            "explained": share,
            "taken_off": bool(taken),
            "outcome": rank_correlations(examples.goal, examples.content),
            "learnt_from": rank_correlations(learnable.goal, examples.content),
        },
        "measured": None,
    }


def measured_on(
    source: Source,
    stream: Stream,
    rows: npt.NDArray[np.bool_],
    teacher: Teacher,
    like: RealismModel | None = None,
) -> HeldOutFigures | None:
    """What the learnt score knows of runs that it was not taught by.

    Returns
    -------
    dict or None
        ``runs``, ``auroc`` and ``auroc_matched`` (of the teacher's worst quarter, over all runs and
        within like content) and ``content``, the score's rank correlations; None of fewer than
        `FEWEST` runs.
    """
    if int((rows & teacher.knows(source)).sum()) < FEWEST:
        return None
    test = gather(source, stream, rows, teacher, like=like)
    score = np.asarray(stream.predict_from(test.channels, test.statistics)[1], np.float64)
    broken = test.goal > worst_level(test.goal, WORST)
    return {
        "runs": len(test.rows),
        "auroc": auroc(score, broken),
        "auroc_matched": matched_auroc(score, broken, shown(test.content)),
        "content": rank_correlations(score, test.content),
    }


def learning_warnings(measured: HeldOutFigures | None) -> tuple[str, ...]:
    """What to say where the learnt score tells broken runs from like ones no better than chance."""
    if measured is None:
        return ()
    matched = measured["auroc_matched"]
    found, others = (measured["auroc"], "") if matched is None else (matched, " of like content")
    if found is None or found > 0.5:
        return ()
    return (
        f"what was learnt does not tell runs that end badly from others{others}: AUROC {found:.2f} "
        f"on {measured['runs']} runs that it did not learn from; record more runs, or try another "
        "teacher, before you correct by it",
    )
