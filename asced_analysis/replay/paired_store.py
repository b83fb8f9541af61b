"""The store of a replay, run by run beside the recording: its layout and how it is filled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.registry import parameters_of
from asced_analysis.replay.agreement import visible_difference
from asced_analysis.replay.jobs import Facts, Job
from asced_analysis.replay.options import ReplayOptions
from asced_analysis.replay.recording import Batch
from asced_analysis.replay.resuming import plan_fingerprint
from asced_stores import TrajectorySpec, TrajectoryStore, VariableSpec


def replay_spec(job: Job, options: ReplayOptions, conditions: list[str]) -> TrajectorySpec:
    """Layout of the replayed store."""
    recording = job.recording
    spec = recording.spec
    attributes = {
        name: value
        for name, value in spec.attributes.items()
        if name not in ("format", "format_version")
    }
    thresholds = job.thresholds
    attributes |= {
        "replay_of": recording.store.fingerprint,
        "thresholds": None if thresholds is None else thresholds.to_dict(),
        "strategy": job.strategy.name,
        "strategy_parameters": parameters_of(job.strategy),
        "teacher": None if job.teacher is None else job.teacher.name,
        "correction_step": job.target,
        "correction_seed": job.seed,
        "control": options.control,
        "start": options.start,
        "grow": job.grow,
        "soft": job.soft,
        "only_flagged": options.only_flagged,
        "plan": plan_fingerprint(job.plan),
        "replay_conditions": conditions,
    }
    return TrajectorySpec(
        sample_shape=spec.sample_shape,
        timestep=spec.timestep,
        alpha=spec.alpha,
        sigma=spec.sigma,
        image_shape=spec.image_shape,
        fields=("sample",) if spec.image_shape is None else ("sample", "image"),
        extra=(
            VariableSpec("mask", ("y", "x"), job.shape, "uint8"),
            VariableSpec("flagged", (), (), "bool"),
            VariableSpec("score", (), (), "float64"),
            VariableSpec("changed", (), (), "float64"),
            VariableSpec("difference", (), (), "float64"),
            VariableSpec("evaluations", (), (), "float64"),
        ),
        attributes=attributes,
    )


def write_runs(
    replayed: TrajectoryStore,
    job: Job,
    *,
    copy_rest: bool,
    together: Regrouped | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Sample batch by batch, and write each beside its recorded run."""
    recording = job.recording
    batches = {batch.number: batch for batch in recording.batches()}
    with replayed.writer(rank=0, world_size=1) as writer:
        pending = list(writer.pending_batches(batches))
        for done, number in enumerate(pending, start=len(batches) - len(pending)):
            batch = batches[number]
            recorded = recording.read(batch, "sample")
            untouched = job.plan is not None and not any(
                int(run) in job.plan.masks for run in batch.runs
            )
            if together is not None or (untouched and copy_rest):
                samples, facts = _copied(job, batch, recorded, together)
            else:
                samples, facts = job.sample(batch)
            _commit(writer, number, job, batch, recorded, samples, facts)
            if progress is not None:
                progress(done + 1, len(batches))


def _copied(
    job: Job, batch: Batch, recorded: NDArray[np.float32], together: Regrouped | None
) -> tuple[NDArray[np.float32], Facts]:
    """Runs from the recording, except those that are sampled with others."""
    count = len(batch.runs)
    facts: Facts = {
        "mask": np.zeros((count, *job.shape), np.uint8),
        "flagged": np.zeros(count, np.bool_),
        "score": np.full(count, np.nan) if job.plan is None else job.plan.of(batch, job.shape)[2],
        "evaluations": np.full(count, float(job.extra_evaluations)),
    }
    samples = recorded.copy()
    for index, run in enumerate(batch.runs):
        if together is not None and int(run) in together.index:
            samples[index], own = together.of(int(run))
            for name, value in own.items():
                facts[name][index] = value
    return samples, facts


class Regrouped:
    """Chosen runs, sampled in groups of their own when the first of each is asked for.

    Who is sampled with whom does not depend on what is asked for: a resumed replay gives the same
    bits.
    """

    def __init__(self, job: Job, runs: Sequence[int], size: int) -> None:
        self.job = job
        self.runs = np.asarray(runs, np.int64)
        self.size = size
        self.index = {int(run): i for i, run in enumerate(runs)}
        self.group = -1
        self.ready: dict[int, tuple[NDArray[np.float32], dict[str, Any]]] = {}

    def of(self, run: int) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Sample and facts of a run."""
        group = self.index[run] // self.size
        if group != self.group:
            part = self.runs[group * self.size : (group + 1) * self.size]
            batch = self.job.recording.select(part)
            samples, facts = self.job.sample(batch)
            self.group = group
            self.ready = {
                int(one): (samples[i], {name: values[i] for name, values in facts.items()})
                for i, one in enumerate(batch.runs)
            }
        return self.ready[run]


def _commit(
    writer: Any,
    number: int,
    job: Job,
    batch: Batch,
    recorded: NDArray[np.float32],
    samples: NDArray[np.float32],
    facts: Facts,
) -> None:
    """Write one batch with its comparison to the recording."""
    away = np.abs(samples - recorded)
    pixels = away.max(axis=tuple(range(1, away.ndim - 2)))
    arrays: Facts = {"sample": samples, "mask": facts["mask"]}
    if job.recording.spec.image_shape is not None:
        arrays["image"] = job.decoder.images(samples, batch.runs)
    with np.errstate(invalid="ignore"):
        visible = visible_difference(job.recording.attributes)  # an 8-bit value would change
        changed = (pixels > visible).mean((1, 2), dtype=np.float64)
        largest = np.nan_to_num(away.reshape(len(away), -1).max(1).astype(np.float64), nan=np.inf)
    same = (samples == recorded) | (np.isnan(samples) & np.isnan(recorded))
    largest = np.where(same.reshape(len(same), -1).all(1), 0.0, largest)
    scalars = {
        **batch.scalars,
        "flagged": facts["flagged"],
        "score": facts["score"],
        "changed": changed,
        "difference": largest,
        "evaluations": facts["evaluations"],
    }
    writer.write_batch(number, arrays, runs=batch.runs, scalars=scalars)
