"""Corrections steered by different maps of one area, against controls and hindsight."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.evaluation.effects import Effect, damaged_locations, effect_of, worth
from asced_analysis.evaluation.judges import pictures
from asced_analysis.realism import RealismModel, local_realism, upsample
from asced_analysis.replay import Branch, branch
from asced_stores import open_runs

SHARE = 0.12  # of the image


def top_share(maps: NDArray[Any], share: float = SHARE, seed: int = 0) -> NDArray[np.bool_]:
    """The highest pixels of each map, exactly `share` of the image; ties fall by chance."""
    rng = np.random.default_rng(seed)
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    jittered = np.lexsort((rng.random(flat.shape), -flat), axis=-1)
    out = np.zeros(flat.shape, np.bool_)
    np.put_along_axis(out, jittered[:, : round(share * flat.shape[1])], True, axis=1)
    return out.reshape(maps.shape)


def compare_corrections(
    store: Path,
    maps: Mapping[str, NDArray[Any]],
    judge: RealismModel,
    *,
    step: int,
    chosen: NDArray[np.bool_],
    pipeline: Any = None,
) -> dict[str, Any]:
    """Effect of targeted correction at `step` for each map, and of its controls.

    Parameters
    ----------
    store : Path
        Recorded runs, all of them corrected.
    maps : dict of str to array (n, y, x)
        One a detector; ``hindsight`` is added.
    judge : RealismModel
    step : int
        ``T_c``.
    chosen : bool array, shape (n,)
        Runs foretold to end badly: figures are also given for these alone.
    """
    ds = open_runs(store).isel(run=slice(0, len(chosen)))
    runs = np.asarray(ds["run"].values)
    samples = pictures(ds["sample"].values)
    before = local_realism(samples, judge)
    damaged = damaged_locations(before)
    hindsight = upsample(before, (samples.shape[-2], samples.shape[-1]))
    result: dict[str, Any] = {}
    for name, ranked in {**maps, "hindsight": hindsight}.items():
        masks = {int(r): m for r, m in zip(runs, top_share(ranked), strict=True)}
        controls = ("shuffled", "foreground", "everywhere") if name in maps else ("shuffled",)
        branches = [Branch(step=step), *(Branch(step=step, control=one) for one in controls)]
        with tempfile.TemporaryDirectory() as folder:
            twin = branch(store, Path(folder) / "b.zarr", branches, masks=masks, pipeline=pipeline)
            after = pictures_of(twin.path, len(branches))
        effects = [
            effect_of(before, local_realism(one, judge), samples, one, damaged) for one in after
        ]
        named = dict(zip(controls, effects[1:], strict=True))
        result[name] = {
            "effect": effects[0].to_dict(),
            "effect_on_chosen": _only(effects[0], chosen).to_dict(),
            "controls": {control: effect.to_dict() for control, effect in named.items()},
            "worth": worth(effects[0], named),
        }
    return result


def pictures_of(path: str, count: int) -> list[NDArray[np.float32]]:
    """Samples of each branch."""
    ds = open_runs(path)
    return [pictures(ds["branch_sample"].isel(branch=i).values) for i in range(count)]


def _only(effect: Effect, chosen: NDArray[np.bool_]) -> Effect:
    """Effect on some of the runs."""
    return Effect(
        {where: values[chosen] for where, values in effect.sums.items()},
        {where: values[chosen] for where, values in effect.counts.items()},
    )
