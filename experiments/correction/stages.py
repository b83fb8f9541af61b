"""Flagged runs of a split, ready to be corrected, and what a correction did to them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.controls import foreground
from asced_analysis.correction.strategy import Strategy
from asced_analysis.evaluation.intervals import mean_estimate
from asced_analysis.realism import local_realism
from asced_analysis.replay.recording import Recording
from experiments.correction.continuing import continued
from experiments.datasets.sets import STEPS, Split, judge_of, limit_of, mean_distance
from experiments.detection.detectors import MAIN

WINDOW = (0.08, 12 / STEPS)
FLAGGED = 0.25


@dataclass
class Stage:
    """Flagged runs of one split, ready to be corrected."""

    split: Split
    recording: Recording
    chosen: NDArray[np.intp]
    maps: NDArray[np.float32]
    before: NDArray[np.float32]
    limit: float
    bench: Any

    @property
    def runs(self) -> NDArray[np.int64]:
        """Numbers of the flagged runs."""
        return self.split.runs[self.chosen]

    @property
    def images(self) -> NDArray[np.float32]:
        """Their ends, uncorrected."""
        return self.split.samples[self.chosen]

    def foreground(self, step: int) -> NDArray[np.bool_]:
        """Foreground of what was predicted right before a step."""
        x0 = self.recording.read(self.recording.select(self.runs), "x0", step=step - 1)
        return np.stack([foreground(one.astype(np.float32)) for one in x0])

    def sample(
        self,
        name: str,
        strategy: Strategy,
        step: int,
        masks: NDArray[np.bool_] | None = None,
        *,
        seed: int = 0,
        watch: Sequence[int] = (),
    ) -> Any:
        """Ends of the flagged runs, corrected; kept in the cache by name and content.

        Parameters are those of `continuing.continued`.
        """
        folder = self.split.store.parent / f"corrected-{self.split.name}"
        folder.mkdir(exist_ok=True)
        digest = hashlib.sha256(self.runs.tobytes())
        digest.update(f"{strategy!r} {step} {tuple(watch)}".encode())
        digest.update(b"" if masks is None else np.packbits(masks).tobytes())
        path = folder / f"{name}-{seed}-{digest.hexdigest()[:10]}.npz"
        if not path.exists():
            ends, seen = continued(
                self.recording,
                self.bench.pipe,
                self.runs,
                strategy,
                step,
                masks,
                seed=seed,
                watch=watch,
            )
            np.savez(path, ends=ends, **{f"x0_{step}": v for step, v in seen.items()})
        with np.load(path) as kept:
            return kept["ends"], {step: kept[f"x0_{step}"] for step in watch}


def stage_of(bench: Any, name: str, *, share: float = FLAGGED) -> Stage:
    """The runs of a split predicted to end worst; the level is set on the other split."""
    split, other = bench.sets[name], bench.sets["tune" if name == "report" else "report"]
    detectors = bench.detectors()
    ranked, _ = detectors.ranked(MAIN, WINDOW, split.dataset, name)
    reference, _ = detectors.ranked(MAIN, WINDOW, other.dataset, other.name)
    level = np.quantile(reference.scores, 1 - share)
    chosen = np.flatnonzero(ranked.scores > level)
    return Stage(
        split,
        Recording(split.store),
        chosen,
        ranked.maps[chosen],
        split.distance("judge")[chosen],
        limit_of(other),
        bench,
    )


def figures(stage: Stage, ends: NDArray[np.float32], evaluations: float) -> dict[str, Any]:
    """What an idea did to the flagged runs, as the judge sees it.

    `repaired`: of the flagged runs in the worst quarter, the share that leaves it. `good`: the
    share of all flagged runs that end outside the worst quarter. `harmed`: of the flagged runs that
    were not in the worst quarter, the share that falls into it, and as a share of all runs.
    """
    before = mean_distance(stage.before)
    after = mean_distance(local_realism(ends, judge_of()))
    was, now = before > stage.limit, after > stage.limit
    return {
        "flagged": len(before),
        "changes": [round(float(one), 5) for one in after - before],
        "change": mean_estimate(after - before).to_dict(),
        "improved": mean_estimate(after < before).to_dict(),
        "repaired": mean_estimate(~now[was]).to_dict(),
        "good_before": float((~was).mean()),
        "good": mean_estimate(~now).to_dict(),
        "harmed_of_flagged_good": mean_estimate(now[~was]).to_dict(),
        "harmed_of_all_good": float(
            (now & ~was).sum() / (mean_distance(stage.split.distance("judge")) <= stage.limit).sum()
        ),
        "evaluations_per_flagged_run": float(evaluations),
    }
