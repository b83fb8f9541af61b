"""Runs to learn from: what was known by the window's end, how they ended, and what they show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.outcome_training import Examples
from asced_analysis.calibration.teachers import RealismTeacher, Teacher
from asced_analysis.compute.source import Source
from asced_analysis.detection import change_maps, outcome
from asced_analysis.detection.feeding import feed_stream
from asced_analysis.realism.content import content_of, neighbour_means, varying
from asced_analysis.realism.local import RealismModel, features
from asced_analysis.realism.pictures import read_pictures
from asced_stores.errors import InputError

Floats = npt.NDArray[np.float32]

MOST_RUNS = 4096


def gather(
    source: Source,
    stream: outcome.Stream,
    only: npt.NDArray[np.bool_],
    teacher: Teacher | RealismModel,
    *,
    most_runs: int = MOST_RUNS,
    like: RealismModel | None = None,
) -> Examples:
    """Inputs, outcomes and content of some runs, read shard by shard.

    With `like`, features whose nearest runs are of like content, the mean outcome of these is
    content too.
    """
    if len(source.sample_shape) != 3:
        raise InputError("learning from outcomes works on images and latents, not on video yet")
    labeller = RealismTeacher(teacher) if isinstance(teacher, RealismModel) else teacher
    chosen = np.zeros_like(only)
    chosen[np.flatnonzero(only & labeller.knows(source))[:most_runs]] = True
    parts: list[tuple[Any, ...]] = []
    contents: list[dict[str, Any]] = []
    vectors: list[Floats] = []
    for rows, (channels, statistics) in _inputs(source, stream, chosen):
        final = source.dataset["sample"].isel(run=rows).values.astype(np.float32)
        small = change_maps.pool(final, stream.parameters.resolution)
        start = None
        if "x_init" in source.dataset:
            start = source.dataset["x_init"].isel(run=rows).values
        pictures = read_pictures(source.dataset, rows)
        contents.append(content_of(pictures, start))
        if like is not None:
            vectors.append(features(pictures, like))
        parts.append((rows, channels, statistics, small))
    if not parts:
        raise InputError("no run is left to learn from")
    rows, channels, statistics, final = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    if len(unknown := np.flatnonzero(~np.isfinite(statistics).all(axis=1))):
        run = int(source.dataset["run"].values[rows[unknown[0]]])
        raise InputError(
            f"what is learnt from is not finite in {len(unknown)} runs, run {run} for example: at "
            f"step {stream.last_step} a module did not run (a cache answered) or overflowed. "
            "Choose another window or other inputs, or record without the cache"
        )
    target, goal = labeller.outcomes(source, rows, channels.shape[-2:])
    bad = np.flatnonzero(~np.isfinite(goal))
    if len(bad):
        run = int(source.dataset["run"].values[rows[bad[0]]])
        raise InputError(f"{labeller.name} gives run {run} an outcome that is not finite")
    content = {
        name: np.concatenate([one[name] for one in contents])
        for name in contents[0]
        if all(name in one for one in contents)
    }
    if like is not None:
        content[f"nearest in {like.name}"] = neighbour_means(goal, np.concatenate(vectors))
    return Examples(
        rows, channels, statistics, target, final, goal.astype(np.float32), varying(content)
    )


def _inputs(
    source: Source, stream: outcome.Stream, only: npt.NDArray[np.bool_]
) -> Iterator[tuple[npt.NDArray[np.intp], tuple[Floats, Floats]]]:
    """Network inputs and run statistics, batch by batch."""
    batches = source.batches(stream.needs(), steps=(stream.first_step, stream.last_step), only=only)
    for batch in batches:
        whole = stream.lookahead is not None
        fed = feed_stream(stream, batch.arrays, batch.first_step, whole=whole)
        parts = [stream.inputs(state) for _, state in fed]
        channels, statistics = (np.concatenate(column) for column in zip(*parts, strict=True))
        yield batch.rows, (channels, statistics)
