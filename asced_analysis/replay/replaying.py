"""Re-run recorded runs with a correction and write a store beside the recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.controls import Control
from asced_analysis.correction.corrector import (
    correction_settings,
    correction_step,
    strategy_of,
)
from asced_analysis.correction.strategy import Strategy
from asced_analysis.replay.calls import Call
from asced_analysis.replay.environment import differences, matching_pipeline, recorded_threads
from asced_analysis.replay.jobs import Facts, Job
from asced_analysis.replay.planning import Plan, control_plan, detect_recorded, given_plan
from asced_analysis.replay.recording import Batch, Recording
from asced_analysis.replay.resuming import plan_fingerprint, twin_store
from asced_analysis.replay.sampling import check_start, schedule_of
from asced_analysis.thresholds import Thresholds, fingerprint_of
from asced_stores import TrajectorySpec, TrajectoryStore, VariableSpec
from asced_stores.errors import InputError
from asced_stores.places import check_apart

TOGETHER = 64  # runs
CHANGED = 2 / 255  # a pixel counts as changed when its 8-bit value would


def replay(
    store: TrajectoryStore | str | Path,
    out: str | Path,
    *,
    thresholds: Thresholds | str | Path | None = None,
    strategy: str | Strategy = "ttc",
    start: Literal["init"] | int = "init",
    control: Control | None = None,
    pipeline: Any = None,
    call: Call | None = None,
    masks: Any = None,
    step: int | None = None,
    seed: int | None = None,
    grow: int | None = None,
    soft: int = 0,
    only_flagged: bool = False,
    batch_size: int | None = None,
    threads: int | None = None,
    override: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **parameters: Any,
) -> TrajectoryStore:
    """Sample recorded runs again from the same noise, with a correction in the loop.

    Parameters
    ----------
    store : TrajectoryStore or path
        The recording; it must hold x_init and sample.
    out : path
        Of the new store, with the same batches and slots, run by run beside its twin.
    thresholds : Thresholds or path, optional
        Whom, where and when to correct. Not needed with `masks` or with strategy ``none``.
    strategy : str or Strategy
        One of `asced_analysis.correction.STRATEGIES`; ``none`` brings the recording back.
    start : "init" or int
        A recorded checkpoint, from which only the remaining steps are paid for.
    control : {"shuffled", "foreground", "everywhere"}, optional
        Correct the same runs at the wrong place.
    pipeline : DiffusionPipeline or str, optional
        By default the one that the store names.
    call : callable, optional
        ``call(pipe, batch)`` repeats the recorded call of a pipeline that takes prompts or other
        options, where the store does not hold them all: ``batch.seeds``, ``batch.runs`` and
        ``batch.scalars`` say what was sampled together.
    masks : mapping of run to bool array (y, x), or bool array (run, y, x), optional
        Masks from outside; runs with an empty mask are left alone.
    step : int, optional
        ``T_c``, instead of that of the thresholds.
    seed : int, optional
        Of the correction's noise; a run's noise depends on this and its number alone.
    grow : int, optional
        Pixels by which masks are grown, in place of the thresholds' fraction.
    soft : int
        Pixels over which the masks' edges fade.
    only_flagged : bool
        Sample flagged runs alone, together: much less work, and last bits may differ from a replay
        in the recorded batches. All others are copied from the recording.
    batch_size : int, optional
        Sample so many runs together instead of the recorded batches; what that changes in the last
        bits is measured (`exactness`).
    threads : int, optional
        Use so many threads of torch instead of the recorded number; the same holds.
    override : bool
        Use thresholds of another model all the same.
    overwrite : bool
        Replace `out` if it exists.
    resume : bool
        Go on with an `out` that was interrupted; its whole batches stay as they are, and the rest
        comes out as if nothing had happened.
    progress : callable, optional
        Called with batches done and batches in all.
    **parameters
        Of the strategy.

    Returns
    -------
    TrajectoryStore
        With `sample` and `image`, and by run `mask`, `flagged`, `score`, `changed` (share of
        pixels that differ visibly from the twin's), `difference` (largest difference from it) and
        `evaluations` (of the denoiser, paid for by this run). Attributes: `replay_of`,
        `thresholds`, `strategy`, `control`, `start`, `replay_conditions`.

    Raises
    ------
    InputError
        For another model, a step that is no checkpoint, a sampler that cannot start there, a
        control without a correction; for an `out` that is the recording, or lies in it.

    Examples
    --------
    >>> from asced_analysis.replay import exactness, replay
    >>> twin = replay("runs.zarr", "again.zarr", thresholds="thresholds.json", start=5)
    >>> exactness(twin).bit_exact
    True
    """
    recording = Recording(store)
    check_apart(out, [recording.store.place])
    thresholds = _load(thresholds)
    if thresholds is not None and not override:
        thresholds.check_fingerprint(
            fingerprint_of(recording.attributes, recording.spec.sample_shape)
        )
    chosen = strategy_of(thresholds, strategy, parameters)
    if chosen.name == "none" and control is not None:
        raise InputError("a control needs a correction: choose a strategy other than none")
    if chosen.name != "none" and thresholds is None and masks is None:
        raise InputError(
            f"strategy {chosen.name} needs thresholds (`asced calibrate` makes them) or masks; "
            "strategy none needs neither"
        )
    pipe = matching_pipeline(recording.attributes, pipeline)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size is {batch_size}: expected at least 1")
    with recorded_threads(recording.attributes, threads):
        table = schedule_of(pipe, recording)
        target = correction_step(thresholds, table) if step is None else step
        if chosen.name == "none" and isinstance(start, int):
            target = max(target, start)
        begin = check_start(recording, table, start, target, chosen)
        plan = _plan(
            recording, thresholds, masks, control, target, chosen, seed, bool(begin or only_flagged)
        )
        job = Job(
            recording=recording,
            pipe=pipe,
            strategy=chosen,
            thresholds=thresholds,
            plan=plan,
            target=target,
            begin=begin,
            seed=_seed(thresholds, seed),
            grow=grow,
            soft=soft,
            call=call,
        )
        conditions = differences(recording.attributes, pipe, batch_size=batch_size)
        twin = twin_store(
            out,
            _spec(recording, job, control, start, conditions, only_flagged),
            recording,
            runs=recording.store.planned_runs,
            batch_size=recording.store.batch_size,
            overwrite=overwrite,
            resume=resume,
        )
        together = None
        if only_flagged:
            if plan is None and chosen.name != "none":
                raise InputError("only_flagged needs masks known beforehand: record eps and x0")
            flagged = [] if plan is None else sorted(plan.masks)
            together = _Together(job, flagged, batch_size or TOGETHER)
        elif batch_size is not None:
            together = _Together(job, recording.dataset["run"].values.tolist(), batch_size)
        _write(twin, job, copy_rest=not conditions, together=together, progress=progress)
    return twin


def _plan(
    recording: Recording,
    thresholds: Thresholds | None,
    masks: Any,
    control: Control | None,
    target: int,
    strategy: Strategy,
    seed: int | None,
    beforehand: bool,
) -> Plan | None:
    """Find out whom to edit where; None means: in the loop."""
    if strategy.name == "none":
        return None
    if masks is not None:
        plan = given_plan(masks, recording)
    elif recording.has_trajectory:
        assert thresholds is not None
        if strategy.streams_masks and control is None and not beforehand:
            return None
        plan = detect_recorded(
            recording, thresholds, last_step=target - 1, streamed=strategy.streams_masks
        )
    elif control is not None or not strategy.in_loop:
        raise InputError(
            f"{control or strategy.name} needs to know every run's mask beforehand, and "
            f"{recording.store.path} holds neither eps nor x0; record them, or give masks"
        )
    else:
        return None
    if control is not None:
        plan = control_plan(plan, control, recording, seed=_seed(thresholds, seed))
    return plan


def _write(
    twin: TrajectoryStore,
    job: Job,
    *,
    copy_rest: bool,
    together: _Together | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Sample batch by batch, and write each beside its twin."""
    recording = job.recording
    batches = {batch.number: batch for batch in recording.batches()}
    with twin.writer(rank=0, world_size=1) as writer:
        pending = [number for number in writer.pending_batches() if number in batches]
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
    job: Job, batch: Batch, recorded: NDArray[np.float32], together: _Together | None
) -> tuple[NDArray[np.float32], Facts]:
    """Runs from the recording, except those that are sampled with others."""
    count = len(batch.runs)
    facts: Facts = {
        "mask": np.zeros((count, *job.shape), np.uint8),
        "flagged": np.zeros(count, np.bool_),
        "score": np.full(count, np.nan) if job.plan is None else job.plan.of(batch, job.shape)[2],
        "evaluations": np.zeros(count),
    }
    samples = recorded.copy()
    for index, run in enumerate(batch.runs):
        if together is not None and int(run) in together.place:
            samples[index], own = together.of(int(run))
            for name, value in own.items():
                facts[name][index] = value
    return samples, facts


class _Together:
    """Chosen runs, sampled in groups of their own when the first of each is asked for.

    Who is sampled with whom does not depend on what is asked for: a resumed replay gives the same
    bits.
    """

    def __init__(self, job: Job, runs: Sequence[int], size: int) -> None:
        self.job = job
        self.runs = np.asarray(runs, np.int64)
        self.size = size
        self.place = {int(run): i for i, run in enumerate(runs)}
        self.group = -1
        self.ready: dict[int, tuple[NDArray[np.float32], dict[str, Any]]] = {}

    def of(self, run: int) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Sample and facts of a run."""
        group = self.place[run] // self.size
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
    """Write one batch with its comparison to the twin."""
    away = np.abs(samples - recorded)
    pixels = away.max(axis=tuple(range(1, away.ndim - 2)))
    arrays: Facts = {"sample": samples, "mask": facts["mask"]}
    if job.recording.spec.image_shape is not None:
        import torch

        from asced_recorders.decoding import to_image

        arrays["image"] = to_image(job.pipe, torch.from_numpy(samples))
    with np.errstate(invalid="ignore"):
        changed = (pixels > CHANGED).mean((1, 2), dtype=np.float64)
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


def _spec(
    recording: Recording,
    job: Job,
    control: str | None,
    start: int | str,
    conditions: list[str],
    only_flagged: bool,
) -> TrajectorySpec:
    """Layout of the twin store."""
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
        "strategy_parameters": asdict(job.strategy),
        "correction_step": job.target,
        "correction_seed": job.seed,
        "control": control,
        "start": start,
        "grow": job.grow,
        "soft": job.soft,
        "only_flagged": only_flagged,
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


def _load(thresholds: Thresholds | str | Path | None) -> Thresholds | None:
    """Read thresholds from a file unless they are read already."""
    if thresholds is None or not isinstance(thresholds, (str, Path)):
        return thresholds
    return Thresholds.load(thresholds)


def _seed(thresholds: Thresholds | None, seed: int | None) -> int:
    """Seed of the correction's noise."""
    return int(correction_settings(thresholds).get("seed", 0)) if seed is None else seed
