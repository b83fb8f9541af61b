"""What `outcome` learns, on the same input and from the same teacher as the forest."""

from __future__ import annotations

from typing import Any

import numpy as np

from asced_analysis.calibration.labelling import choose_teacher
from asced_analysis.calibration.outcome import fit_outcome
from asced_analysis.compute.source import open_source
from asced_analysis.detection.scoring import scores_of
from asced_analysis.thresholds.document import Correction
from experiments.remedies.pool import Floats, Pool, RecordedPool

EPOCHS = 20


def outcome_scores(pool: Pool, look: int, pipe: Any = None, *, told: bool = False) -> Floats | None:
    """Scores of all runs by predicted x0 and eps at a step; None where there are no pictures.

    Parameters
    ----------
    pool : Pool
    look : int
    pipe : DiffusionPipeline, optional
    told : bool, optional
        Whether the truth of the first half teaches, and not self-consistency.
    """
    if not isinstance(pool, RecordedPool):
        return None
    path = pool.store.parent / f"outcome-{'truth' if told else 'self'}-{look}.npy"
    if not path.exists():
        source = open_source(pool.dataset)
        runs = np.asarray(pool.dataset["run"].values).tolist()
        by = {"outcomes": dict(zip(runs, pool.severity.tolist(), strict=True))} if told else {}
        teacher = choose_teacher(source, pool.first, store=pool.store, pipeline=pipe, **by)
        thresholds = fit_outcome(
            source,
            pool.first,
            window=(look - 1, look),
            correction=Correction("none", 0.0, 0.5),
            parameters={"inputs": "snapshot"},
            teacher=teacher,
            within_content=False,
            epochs=EPOCHS,
        )
        rows, scores = scores_of(source, thresholds, np.ones(len(pool.ends), np.bool_))
        found = np.empty(len(pool.ends))
        found[rows] = scores
        np.save(path, found)
    return np.asarray(np.load(path), np.float64)
