"""Corrections in the loop among the remedies: what is learnt on one half corrects the other.

python -m experiments.remedies.correcting emoji
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.calibration import calibrate
from asced_analysis.replay import replay
from asced_analysis.thresholds.document import Thresholds
from asced_stores import TrajectoryStore, open_runs
from experiments.remedies.pool import STEPS
from experiments.remedies.subjects import SUBJECTS, Images, Subject, seen_by_eye

CORRECTIONS = {
    "ttc": "TTC of a quarter",
    "renoise": "a quarter re-noised",
    "restart": "a quarter drawn anew",
}
WINDOW = (0.24, 0.48)
RATE = 0.25  # of the runs are corrected
LOOKED_AT = 0.5  # of the flagged runs, at least


@dataclass(frozen=True)
class Corrected:
    """The plain runs of the second half, the flagged ones corrected.

    Attributes
    ----------
    runs : int array, shape (n,)
        Positions in the store of plain runs.
    ends : float32 array, shape (n, channel, y, x)
    flagged : bool array, shape (n,)
    evaluations : float
        A run, on average.
    """

    runs: NDArray[np.intp]
    ends: Images
    flagged: NDArray[np.bool_]
    evaluations: float


def corrected(subject: Subject, strategy: str) -> Corrected | None:
    """What was corrected so far; None where it was not yet."""
    out = _place(subject, strategy)
    if not out.exists():
        return None
    ds = open_runs(out)
    half = np.arange(ds.sizes["run"] // 2, ds.sizes["run"])
    ds = ds.isel(run=half)
    flagged = ds["flagged"].values
    paid = np.where(flagged, np.maximum(ds["evaluations"].values, STEPS), STEPS)
    return Corrected(half, ds["sample"].values.astype(np.float32), flagged, float(paid.mean()))


def broken_after(subject: Subject, strategy: str, one: Corrected, before: Any) -> Any:
    """Which of the corrected runs are known to be broken or whole, and which broken, by eye.

    Runs that were not flagged are what they were; the flagged ones were looked at again. None where
    they were not.

    Parameters
    ----------
    subject : Subject
        With labels by eye.
    strategy : str
    one : Corrected
    before : (bool array, bool array)
        Known, and broken, of all plain runs.
    """
    assert subject.eyes is not None
    again = seen_by_eye(subject.eyes, f"corrected-{strategy}", len(before[0]))
    if again[0][one.runs][one.flagged].mean() < LOOKED_AT:
        return None
    return tuple(
        np.where(one.flagged, now[one.runs], was[one.runs])
        for now, was in zip(again, before, strict=True)
    )


def correct(subject: Subject, strategy: str) -> None:
    """Learn from how the first half ended, by self-consistency, and correct all runs."""
    out = _place(subject, strategy)
    if out.exists():
        return
    store = subject.cache / "pool.zarr"
    path = subject.cache / "thresholds.json"
    if not path.exists():
        runs = open_runs(store)
        thresholds = calibrate(
            runs.isel(run=slice(runs.sizes["run"] // 2)),
            method="outcome",
            window=WINDOW,
            false_alarm_rate=RATE,
            pipeline=subject.pipe,
        )
        thresholds.save(path)
    part = out.with_suffix(".part.zarr")
    checkpoints = TrajectoryStore.open(store).spec.checkpoints
    replay(
        store,
        part,
        thresholds=Thresholds.load(path),
        strategy=strategy,
        pipeline=subject.pipe,
        only_flagged=True,
        start=max(checkpoints) if checkpoints and strategy != "restart" else "init",
        resume=part.exists(),
    )
    part.rename(out)


def _place(subject: Subject, strategy: str) -> Path:
    return subject.cache / f"corrected-{strategy}.zarr"


def main() -> None:
    """Correct with every strategy."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", choices=tuple(SUBJECTS))
    parser.add_argument("--strategy", choices=tuple(CORRECTIONS), action="append")
    arguments = parser.parse_args()
    subject = SUBJECTS[arguments.subject]()
    for strategy in arguments.strategy or CORRECTIONS:
        correct(subject, strategy)
        one = corrected(subject, strategy)
        assert one is not None
        print(f"{strategy}: {one.flagged.mean():.2f} flagged, {one.evaluations:.1f} evaluations")


if __name__ == "__main__":
    main()
