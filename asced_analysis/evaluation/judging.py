"""Judge a replay: what changed, for better or worse, and what the mask was worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.controls import Control
from asced_analysis.evaluation.control_runs import (
    ControlSampler,
    Twins,
    control_figures,
    controls_of,
    recorded_strategy,
)
from asced_analysis.evaluation.effects import (
    Effect,
    damaged_locations,
    effect_of,
    pixel_change,
    worth,
    worth_of_flag,
)
from asced_analysis.evaluation.intervals import mean_estimate
from asced_analysis.evaluation.matching import replayed_runs
from asced_analysis.evaluation.outcome_rates import endings, worst_bar
from asced_analysis.evaluation.populations import compare, estimates, quality_of
from asced_analysis.evaluation.result import FORMAT, FORMAT_VERSION, Evaluation
from asced_analysis.realism.distances import neighbour_radii
from asced_analysis.realism.judges import choose_judge, pictures
from asced_analysis.realism.local import RealismModel, features, local_realism
from asced_analysis.replay.recording import Recording
from asced_stores import TrajectoryStore
from asced_stores.errors import InputError

NEIGHBOURS = 3
AT_ONCE = 64


def evaluate(
    runs: TrajectoryStore | str | Path,
    corrected: TrajectoryStore | str | Path,
    *,
    controls: bool | Sequence[Control] = True,
    judge: str | RealismModel | None = None,
    pipeline: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Compare corrected runs with their recorded twins, as a judge sees both.

    Parameters
    ----------
    runs : TrajectoryStore or path
        The recording.
    corrected : TrajectoryStore or path
        What `replay` made of it.
    controls : bool or sequence of str
        Repeat the correction of the flagged runs at wrong places: ``shuffled``, ``foreground``,
        ``everywhere``. True: all three, where the strategy has a mask; the flagged runs are sampled
        again for each. Of a strategy that takes whole runs, ``shuffled`` alone: as many other runs.
    judge : {"judge", "teacher", "patches"} or RealismModel, optional
        By default the embedded judge for the embedded `fashion`, patches for any other model.
    pipeline : DiffusionPipeline or str, optional
        For the controls; by default the one the recording names.
    progress : callable, optional
        Called with parts done and parts in all.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        When the second store is no whole replay of the first.

    Examples
    --------
    >>> from asced_analysis import evaluate
    >>> evaluation = evaluate("runs.zarr", "corrected.zarr", controls=False)
    >>> evaluation.data["judge"]["name"], evaluation.data["runs"]
    ('fashion-judge', 48)
    """
    recording = Recording(runs)
    store = corrected if isinstance(corrected, TrajectoryStore) else TrajectoryStore.open(corrected)
    ds = _checked(recording, store)
    model = choose_judge(judge, recording)
    names = controls_of(controls, store, everybody=bool(ds["flagged"].all()))
    parts = len(names) + 2
    tell = progress or (lambda done, total: None)
    twins = _flagged(recording, ds)
    quality, others, ends = _population(recording, ds, twins, model)
    tell(1, parts)
    before = local_realism(twins.before, model)
    after = local_realism(twins.after, model)
    damaged = damaged_locations(before)
    effect = effect_of(before, after, twins.before, twins.after, damaged)
    tell(2, parts)
    of_controls: dict[str, Effect] = {}
    more: dict[str, dict[str, Any]] = {}
    of_others = False
    if names and len(twins.runs):
        sampler = ControlSampler(recording, store, pipeline)
        of_others = sampler.of_others
        for done, name in enumerate(names):
            wrong = sampler.sample(name, twins)
            was = local_realism(wrong.before, model) if of_others else before
            now = local_realism(wrong.after, model)
            of_controls[name] = effect_of(
                was, now, wrong.before, wrong.after, damaged_locations(was, before)
            )
            more[name] = control_figures(wrong, was, now, ends["bar"])
            tell(3 + done, parts)
    inside, outside = pixel_change(twins.before, twins.after, twins.masks)
    attributes = store.attributes
    return Evaluation(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "judge": {
                "name": model.name,
                "neighbours": NEIGHBOURS,
                "card": model.card,
                "chose": attributes.get("teacher") == model.name,
            },
            "replay_of": attributes["replay_of"],
            "pipeline": recording.attributes.get("pipeline"),
            "strategy": attributes["strategy"],
            "correction": recorded_strategy(attributes).title,
            "teacher": attributes.get("teacher"),
            "correction_step": attributes["correction_step"],
            "steps": recording.steps,
            "control": attributes.get("control"),
            "runs": int(ds.sizes["run"]),
            "flagged": len(twins.runs),
            "quality": quality,
            "flagged_runs": {
                "effect": effect.to_dict(),
                "inside_mask": mean_estimate(inside[np.isfinite(inside)]).to_dict(),
                "outside_mask": mean_estimate(outside[np.isfinite(outside)]).to_dict(),
                "mask_area": float(twins.masks.mean()) if len(twins.runs) else None,
                "endings": ends,
                "evaluations": mean_estimate(
                    np.asarray(ds["evaluations"].values)[np.asarray(ds["flagged"].values, np.bool_)]
                ).value,
            },
            "other_runs": others,
            "controls": {
                name: {"effect": control.to_dict(), **more[name]}
                for name, control in of_controls.items()
            },
            "worth_of_mask": worth(effect, of_controls) if of_controls and not of_others else None,
            "worth_of_flag": (
                worth_of_flag(effect, of_controls["shuffled"])
                if of_controls and of_others
                else None
            ),
            "by_run": _by_run(twins, before, after, inside, outside),
        }
    )


def quality(
    runs: TrajectoryStore | str | Path, *, judge: str | RealismModel | None = None
) -> dict[str, Any]:
    """Quality of recorded runs alone: Frechet distance, precision, recall and local realism.

    Parameters
    ----------
    runs : TrajectoryStore or path
        The recording.
    judge : {"judge", "teacher", "patches"} or RealismModel, optional
        As for `evaluate`.

    Returns
    -------
    dict
        ``judge``, ``runs``, and estimates with 95 % intervals over runs. Compare populations of one
        size only.

    Examples
    --------
    >>> from asced_analysis.evaluation import quality
    >>> result = quality("runs.zarr")
    >>> result["judge"], result["runs"]
    ('fashion-judge', 48)
    """
    recording = Recording(runs)
    model = choose_judge(judge, recording)
    numbers = np.asarray(recording.dataset["run"].values, np.int64)
    numbers = numbers[recording.dataset["status"].values == 1]
    if len(numbers) <= NEIGHBOURS:
        raise InputError(
            f"{recording.store.path} holds {len(numbers)} complete runs; their quality needs more "
            f"than {NEIGHBOURS}"
        )
    vectors, realism = _encoded(recording, numbers, model)
    radii = neighbour_radii(model.vectors, NEIGHBOURS)
    measured = quality_of(vectors, realism, model, radii, NEIGHBOURS)
    return {"judge": model.name, "runs": len(numbers), **estimates(measured, model)}


def _checked(recording: Recording, store: TrajectoryStore) -> Any:
    """Dataset of the replay, if it is one of this recording and there are enough runs."""
    ds = replayed_runs(recording, store)
    if ds.sizes["run"] <= NEIGHBOURS:
        raise InputError(
            f"{store.path} holds {ds.sizes['run']} complete runs; an evaluation needs more than "
            f"{NEIGHBOURS}"
        )
    return ds


def _flagged(recording: Recording, ds: Any) -> Twins:
    """Flagged runs and their twins; memory grows with these alone."""
    index = np.flatnonzero(ds["flagged"].values)
    part = ds.isel(run=index)
    runs = np.asarray(part["run"].values, np.int64)
    return Twins(
        runs=runs,
        masks=np.asarray(part["mask"].values, np.bool_),
        scores=np.asarray(part["score"].values, np.float64),
        before=pictures(recording.read(recording.select(runs), "sample")),
        after=pictures(part["sample"].values),
    )


def _population(
    recording: Recording, ds: Any, twins: Twins, model: RealismModel
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Quality before and after, batch by batch; how many unflagged runs changed; how runs end."""
    runs = np.asarray(ds["run"].values, np.int64)
    place = {int(run): i for i, run in enumerate(runs)}
    first, first_realism = _encoded(recording, runs, model)
    second, second_realism = first.copy(), first_realism.copy()
    flagged = np.asarray(ds["flagged"].values, np.bool_)
    changed = np.flatnonzero(~flagged & (np.asarray(ds["difference"].values) > 0))
    for index in np.array_split(changed, max(1, -(-len(changed) // AT_ONCE))):
        if len(index):
            samples = pictures(ds["sample"].isel(run=index).values)
            second[index] = features(samples, model)
            second_realism[index] = local_realism(samples, model).mean((1, 2), dtype=np.float64)
    if len(twins.runs):
        index = np.array([place[int(run)] for run in twins.runs])
        second[index] = features(twins.after, model)
        second_realism[index] = local_realism(twins.after, model).mean((1, 2), dtype=np.float64)
    radii = neighbour_radii(model.vectors, NEIGHBOURS)
    quality = compare(
        quality_of(first, first_realism, model, radii, NEIGHBOURS),
        quality_of(second, second_realism, model, radii, NEIGHBOURS),
        model,
    )
    worse = second_realism[changed] > first_realism[changed] if len(changed) else np.zeros(0)
    largest = np.asarray(ds["difference"].values)[~flagged].max(initial=0.0)
    others = {
        "runs": int((~flagged).sum()),
        "changed": len(changed),
        "worse": int(worse.sum()),
        "largest_difference": float(largest) if np.isfinite(largest) else None,
    }
    ends = endings(first_realism, second_realism, flagged, worst_bar(first_realism))
    return quality, others, ends


def _encoded(
    recording: Recording, runs: NDArray[np.int64], model: RealismModel
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Vectors and mean local distances of recorded runs, read a few at a time."""
    vectors, realism = [], []
    for begin in range(0, len(runs), AT_ONCE):
        batch = recording.select(runs[begin : begin + AT_ONCE])
        samples = pictures(recording.read(batch, "sample"))
        vectors.append(features(samples, model))
        realism.append(local_realism(samples, model).mean((1, 2), dtype=np.float64))
    return np.concatenate(vectors), np.concatenate(realism)


def _by_run(
    twins: Twins,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    inside: NDArray[np.float64],
    outside: NDArray[np.float64],
) -> list[dict[str, Any]]:
    """What happened to each flagged run."""
    return [
        {
            "run": int(twins.runs[i]),
            "score": _finite(twins.scores[i]),
            "mask_area": float(twins.masks[i].mean()),
            "inside_mask": _finite(inside[i]),
            "outside_mask": _finite(outside[i]),
            "local_realism_before": float(before[i].mean()),
            "local_realism_after": float(after[i].mean()),
        }
        for i in range(len(twins.runs))
    ]


def _finite(value: float) -> float | None:
    """Return the number, or None where there is none: JSON knows no NaN."""
    return float(value) if np.isfinite(value) else None
