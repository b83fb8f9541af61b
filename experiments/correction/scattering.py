"""Where fresh noise goes: in one piece, scattered over single pixels, or a little everywhere.

The map of the detector `paper` scatters over the image, and TTC in it repairs far more than in any
other mask of the same area. So places are compared in the same form, and forms at the same area.
What is behind it: that map picks the pixels whose noise is largest; fresh noise there is smaller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.controls import control_masks
from asced_analysis.correction.strategy import Strategy
from asced_analysis.correction.ttc import TargetedCorrection
from asced_analysis.realism import upsample
from experiments.correction.continuing import PartlyFresh
from experiments.correction.masks import SHARE, top_share
from experiments.correction.stages import Stage, figures, stage_of
from experiments.datasets.sets import STEPS
from experiments.tables.comparisons import note_changes

STEP = 12
AMOUNTS = (0.2, SHARE**0.5, 0.5, 0.7)


def scattered(
    among: NDArray[np.bool_], runs: NDArray[np.int64], share: float = SHARE
) -> NDArray[np.bool_]:
    """Single pixels at random among those given, `share` of the image, fewer where there are fewer.

    Parameters
    ----------
    among : bool array, shape (n, y, x)
    runs : int array, shape (n,)
        Numbers of the runs: the choice does not depend on the batch.
    share : float
    """
    flat = among.reshape(len(among), -1)
    chance = np.stack([np.random.default_rng([int(r), 9]).random(flat.shape[1]) for r in runs])
    order = np.argsort(np.where(flat, chance, 2.0), axis=1)[:, : round(share * flat.shape[1])]
    out = np.zeros(flat.shape, np.bool_)
    np.put_along_axis(out, order, True, axis=1)
    return (out & flat).reshape(among.shape)


def detail(images: NDArray[np.float32]) -> float:
    """Mean absolute difference of neighbouring pixels, in units of -1..1."""
    return float(np.mean([np.abs(np.diff(images, axis=axis)).mean() for axis in (-1, -2)]))


def own_noise(stage: Stage) -> NDArray[np.float32]:
    """Size of the noise that the model saw right before the step, (n, y, x)."""
    eps = stage.recording.read(stage.recording.select(stage.runs), "eps", step=STEP - 1)
    return np.abs(eps.astype(np.float32)).mean(1)


def forms(stage: Stage) -> dict[str, tuple[Strategy, int, NDArray[np.bool_]]]:
    """What fresh noise goes where, and when, by idea."""
    runs, maps = stage.runs, stage.maps
    every = np.ones(maps.shape, np.bool_)
    all_runs = np.ones(len(runs), np.bool_)
    learnt, wide = top_share(maps), top_share(maps, 2 * SHARE)
    hindsight = upsample(stage.before, every.shape[1:])
    blobs = control_masks("foreground", wide, all_runs, stage.images, runs=runs)
    inside = stage.foreground(STEP)
    at_12 = {
        "in one piece: the learnt map's highest": learnt,
        "in one piece: random foreground": control_masks(
            "foreground", learnt, all_runs, stage.images, runs=runs
        ),
        "in one piece: hindsight": top_share(hindsight),
        "scattered over the learnt map's highest quarter": scattered(wide, runs),
        "scattered over blobs of random foreground": scattered(blobs, runs),
        "scattered over the hindsight's quarter": scattered(top_share(hindsight, 2 * SHARE), runs),
        "scattered over the foreground": scattered(inside, runs),
        "scattered over the background": scattered(~inside, runs),
        "scattered over the image": scattered(every, runs),
        "where the run's own noise is largest": top_share(own_noise(stage)),
        "where the run's own noise is smallest": top_share(-own_noise(stage)),
    }
    for share in (0.03, 0.06, 0.25, 0.5):
        at_12[f"scattered over the image, {share:.0%}"] = scattered(every, runs, share)
    fresh = TargetedCorrection()
    found: dict[str, tuple[Strategy, int, NDArray[np.bool_]]] = {
        f"{name}, step {STEP}": (fresh, STEP, mask) for name, mask in at_12.items()
    }
    for amount in AMOUNTS:
        part = f"{amount**2:.0%} of the variance, step {STEP}"
        found[f"a little everywhere, {part}"] = PartlyFresh(amount), STEP, every
        found[f"a little in the foreground, {part}"] = PartlyFresh(amount), STEP, inside
    found[f"the whole foreground, step {STEP}"] = fresh, STEP, inside
    found[f"everywhere, step {STEP}"] = fresh, STEP, every
    for step in (8, 16):
        found[f"scattered over the image, step {step}"] = fresh, step, scattered(every, runs)
    return found


def measure(bench: Any) -> dict[str, Any]:
    """What each form does to the flagged runs of `tune`, and what it leaves of their detail."""
    stage = stage_of(bench, "tune")
    rows: dict[str, Any] = {}
    for name, (strategy, step, mask) in forms(stage).items():
        ends, _ = stage.sample(name.split(", step")[0], strategy, step, mask)
        row = figures(stage, ends, STEPS - step)
        rows[name] = row | {"detail": detail(ends)}
        bench.say(f"{name}: {row['change']['value']:+.3f}, repaired {row['repaired']['value']:.3f}")
    note_changes(rows)
    kept = np.setdiff1d(np.arange(len(stage.split.runs)), stage.chosen)
    return {
        "set": "tune",
        "rows": rows,
        "detail_before": detail(stage.images),
        "detail_of_the_others": detail(stage.split.samples[kept]),
    }
