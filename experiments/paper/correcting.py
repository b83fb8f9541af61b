"""Table 1 and figure 8: quality by method, and by the step at which the correction edits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.evaluation.intervals import mean_estimate
from asced_analysis.evaluation.populations import Quality, compare, quality_of
from asced_analysis.realism.distances import neighbour_radii
from asced_analysis.replay import replay
from asced_analysis.replay.sampling import schedule_of
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError
from experiments.paper.setting import T_C, Setting

NEIGHBOURS = 3
METHODS = ("state_replacement", "score_clipping", "ttc")
CONTROLS = ("shuffled", "foreground", "everywhere")
SWEEP = (0.16, 0.24, 0.32, 0.40, 0.48, 0.56, 0.64, 0.72, 0.80)
Tell = Callable[[str], None]


def table_one(
    setting: Setting,
    variant: str,
    rows: dict[str, Any],
    tell: Tell,
    *,
    controls: bool = True,
) -> Iterator[None]:
    """Frechet distance, precision, recall and local realism by method, as changes too.

    With `controls`, the targeted correction at wrong places stands beside them. Rows that are there
    already are kept; each new one is told by a yield.
    """
    wanted: list[tuple[str, str | None]] = [(method, None) for method in METHODS]
    if controls:
        wanted += [("ttc", control) for control in CONTROLS]
    for method, control in wanted:
        name = method if control is None else f"{method}, {control}"
        if name in rows:
            continue
        tell(f"table 1, {variant}: {name}")
        rows[name] = compared(setting, corrected(setting, variant, method, control=control))
        yield


def figure_eight(
    setting: Setting,
    variant: str,
    rows: dict[str, Any],
    tell: Tell,
    shares: Sequence[float] = SWEEP,
) -> Iterator[None]:
    """The same for the targeted correction at several steps; the window ends before each."""
    for share in shares:
        if f"{share:g}" in rows:
            continue
        tell(f"figure 8, {variant}: T_c = {round(share * setting.steps)} of {setting.steps}")
        store = corrected(setting, variant, "ttc", at=None if share == T_C else share)
        rows[f"{share:g}"] = compared(setting, store)
        yield


def corrected(
    setting: Setting,
    variant: str,
    method: str,
    *,
    control: Any = None,
    at: float | None = None,
) -> Path:
    """Store of corrected versions, from the cache or made now; interrupted ones go on."""
    name = "-".join(
        [variant, method, *([control] if control else []), *([f"{at:g}"] if at else [])]
    )
    out = setting.cache / f"{name}.zarr"
    if out.exists():
        return out
    part = out.with_suffix(".part.zarr")
    thresholds = setting.thresholds(variant) if at is None else setting.thresholds(variant, at)
    options: dict[str, Any] = {"start": "init"}
    if method != "score_clipping":
        options = {"start": latest_start(setting, thresholds.correction.log_snr)}
        options["only_flagged"] = True
    replay(
        setting.store,
        part,
        thresholds=thresholds,
        strategy=method,
        control=control,
        pipeline=setting.pipeline,
        resume=part.exists(),
        **options,
    )
    part.rename(out)
    return out


def latest_start(setting: Setting, log_snr: float) -> Any:
    """The last recorded checkpoint up to the edit, where the sampler can begin at one."""
    recording = setting.recording
    pipe = recording.pipeline(setting.pipeline)
    table = schedule_of(pipe, recording)
    step = int(np.argmin(np.abs(np.asarray(table.log_snr) - log_snr)))
    before = [one for one in recording.spec.checkpoints if 0 < one <= step]
    return max(before) if before and table.resumable else "init"


def compared(setting: Setting, store: Path) -> dict[str, Any]:
    """Figures of a corrected population beside those of the original."""
    made = open_runs(store)
    if made.sizes["run"] != len(setting.distance):
        raise InputError(f"{store} lacks runs: remove it, and run this again")
    before = _quality(setting, *setting.original)
    after = _quality(setting, *setting.seen(store))
    flagged = np.asarray(made["flagged"].values, np.bool_)
    mask = np.asarray(made["mask"].values, np.bool_)
    return {
        "quality": {k: asdict(v) for k, v in compare(before, after, setting.model).items()},
        "flagged": int(flagged.sum()),
        "runs": len(flagged),
        "mask_area": float(mask[flagged].mean()) if flagged.any() else None,
        "improved": mean_estimate((after.realism < before.realism)[flagged]).to_dict(),
        "correction_step": TrajectoryStore.open(store).attributes["correction_step"],
    }


def _quality(setting: Setting, vectors: Any, maps: Any) -> Quality:
    """Place pictures against the judge's real images."""
    radii = neighbour_radii(setting.model.vectors, NEIGHBOURS)
    realism = maps.mean((1, 2), dtype=np.float64)
    return quality_of(vectors, realism, setting.model, radii, NEIGHBOURS)
