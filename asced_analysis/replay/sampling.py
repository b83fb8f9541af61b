"""Sampling of one batch from its recorded start, or from a checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.corrector import Corrector
from asced_analysis.correction.loops import LoopSampler
from asced_analysis.correction.strategy import Strategy
from asced_analysis.replay.calls import call_again
from asced_analysis.replay.from_checkpoint import FromCheckpoint
from asced_analysis.replay.recording import Batch, Recording
from asced_recorders.pipelines.provenance import execution_device
from asced_recorders.pipelines.sampling import (
    run_generators,
    sample_shape,
    sample_unconditional,
)
from asced_recorders.tap.schedulers import StepTable, is_resumable, step_table
from asced_recorders.tap.tap import StepEvent, TapListener
from asced_stores.errors import InputError
from asced_stores.format.recorded_loops import is_loop_recording


def table_of(pipe: Any, steps: int) -> StepTable:
    """Schedule of the pipeline's scheduler with so many steps."""
    pipe.scheduler.set_timesteps(steps)
    return step_table(pipe.scheduler)


def schedule_of(pipe: Any, recording: Recording) -> StepTable:
    """Schedule of a recording: set anew for our own loop, as recorded for a pipeline's.

    A pipeline sets its schedule when it is called, with options that are its own affair; whether an
    edit is allowed is then checked in the loop.
    """
    if recording.is_ours(pipe):
        return table_of(pipe, recording.steps)
    spec = recording.spec
    return StepTable(
        timestep=np.asarray(spec.timestep),
        alpha=np.asarray(spec.alpha),
        sigma=np.asarray(spec.sigma),
        log_snr=spec.log_snr,
        prediction_type=str(recording.attributes.get("prediction_type")),
        sigma_data=float(recording.attributes.get("sigma_data") or 0.5),
        calls=np.arange(recording.steps),
        editable=np.ones(recording.steps, np.bool_),
        resumable=not isinstance(pipe, LoopSampler) and is_resumable(pipe.scheduler),
        scheduler_class=str(recording.attributes.get("scheduler_class")),
    )


def check_start(
    recording: Recording,
    table: StepTable,
    start: int | str,
    target: int,
    strategy: Strategy,
) -> int:
    """Turn `start` into a step, and refuse what cannot be right.

    Raises
    ------
    InputError
        When nothing was recorded there, when the edit lies before it, or when the scheduler keeps
        history or draws noise that a checkpoint does not hold.
    """
    if start == "init":
        return 0
    if not isinstance(start, int):
        raise InputError(f"start is 'init' or a step, not {start!r}")
    if is_loop_recording(recording.attributes):
        raise InputError("a loop of one's own begins at its start: give start='init'")
    if start not in recording.spec.checkpoints:
        known = ", ".join(map(str, recording.spec.checkpoints)) or "none"
        raise InputError(
            f"step {start} is no checkpoint of {recording.store.path} (recorded: {known}); start "
            "at one of these or at init, or record with --checkpoints"
        )
    if not table.resumable:
        raise InputError(
            f"{table.scheduler_class} keeps solver history or draws noise, which a checkpoint does "
            "not hold: start at init"
        )
    if start and not strategy.from_checkpoint:
        raise InputError(
            f"{strategy.name} acts on steps before T_c, which a start at step {start} does not "
            "take again: start at init"
        )
    if start > target:
        raise InputError(
            f"the correction edits the sample entering step {target}, before the start at {start}; "
            "start at an earlier checkpoint or at init"
        )
    return start


def random_states(recording: Recording, batch: Batch, pipe: Any) -> list[torch.Generator]:
    """Generators of the runs, moved on past the initial noise, as the recording left them."""
    generators = run_generators([int(seed) for seed in batch.seeds])
    shape = sample_shape(pipe)
    for generator in generators:
        torch.randn(shape, generator=generator, dtype=torch.float32)
    return generators


def resample(
    recording: Recording,
    batch: Batch,
    pipe: Any,
    *,
    start: int = 0,
    corrector: Corrector | None = None,
    listener: TapListener | None = None,
) -> NDArray[np.float32]:
    """Sample a batch again; the corrector, if any, has been told its runs.

    Parameters
    ----------
    recording : Recording
    batch : Batch
        A recorded batch, or chosen runs.
    pipe : DiffusionPipeline
        Of the recorded model and scheduler.
    start : int
        0, or a recorded checkpoint.
    corrector : Corrector, optional
        Edits; also what must be edited right at the start.
    listener : TapListener, optional
        What is told of the steps, by default the corrector; where both are given, it must pass on
        to the corrector what it is told.

    Returns
    -------
    float32 array, shape (n, channel, y, x)
    """
    steps = recording.steps
    watch: TapListener | None = corrector if listener is None else listener
    if isinstance(pipe, LoopSampler):
        return pipe.sample(
            recording.read(batch, "x_init"),
            schedule_of(pipe, recording),
            recording.attributes,
            watch,
            scalars=batch.scalars,
            runs=batch.runs,
        )
    if start == 0 and not recording.is_ours(pipe):
        return call_again(recording, batch, pipe, watch)
    if start == 0:
        x_init = torch.from_numpy(recording.read(batch, "x_init"))
        generators = random_states(recording, batch, pipe)
        out = sample_unconditional(
            pipe,
            x_init=x_init,
            steps=steps,
            generators=generators,
            listener=watch,
            labels=class_labels(batch),
        )
        return out.cpu().numpy()
    x_start = torch.from_numpy(recording.checkpoint(batch, start)).to(execution_device(pipe))
    return resample_from(
        recording, batch, pipe, x_start, start, corrector=corrector, listener=watch
    )


def resample_from(
    recording: Recording,
    batch: Batch,
    pipe: Any,
    x_start: Tensor,
    start: int,
    *,
    corrector: Corrector | None = None,
    listener: TapListener | None = None,
) -> NDArray[np.float32]:
    """Sample on from a sample that enters step `start`."""
    steps = recording.steps
    if not recording.is_ours(pipe):

        def edit(table: StepTable, sample: Tensor) -> Tensor:
            if corrector is None or corrector.target(table) != start:
                return sample
            event = recorded_event(recording, batch, table, start - 1, sample)
            return corrector.edit_start(event, sample)

        begin = FromCheckpoint(listener, start, x_start, edit)
        return call_again(recording, batch, pipe, listener, begin=begin)
    if corrector is not None:
        table = table_of(pipe, steps)
        if corrector.target(table) == start:
            event = recorded_event(recording, batch, table, start - 1, x_start)
            x_start = corrector.edit_start(event, x_start)
    out = sample_unconditional(
        pipe,
        x_init=None,
        steps=steps,
        generators=None,
        listener=listener,
        start=start,
        x_start=x_start,
        labels=class_labels(batch),
    )
    return out.cpu().numpy()


def class_labels(batch: Batch) -> Tensor | None:
    """Classes the runs were conditioned on; None where they had none."""
    labels = batch.scalars.get("label")
    if labels is None or (np.asarray(labels) < 0).any():
        return None
    return torch.from_numpy(np.asarray(labels, np.int64))


def recorded_event(
    recording: Recording, batch: Batch, table: StepTable, step: int, like: Tensor
) -> StepEvent:
    """Make the event of a step from what was recorded of it: predicted noise and x0."""
    if not recording.has_trajectory:
        raise InputError(
            f"an edit at the very step that the replay starts from needs eps and x0, which "
            f"{recording.store.path} does not hold; start at an earlier checkpoint or at init"
        )
    eps = torch.from_numpy(recording.read(batch, "eps", step=step).astype(np.float32)).to(like)
    x0 = torch.from_numpy(recording.read(batch, "x0", step=step).astype(np.float32)).to(like)
    sample = float(table.alpha[step]) * x0 + float(table.sigma[step]) * eps
    event = StepEvent(table, step, sample, eps, None)
    event._prediction = (eps, x0)
    return event


def earlier_x0(recording: Recording, batch: Batch, start: int, device: Any) -> dict[int, Tensor]:
    """Recorded predicted x0 of the steps before `start`, for strategies that go back to it."""
    if start == 0 or not recording.has_trajectory:
        return {}
    x0 = recording.read(batch, "x0", step=slice(0, start)).astype(recording.spec.dtype)
    return {step: torch.from_numpy(x0[:, step]).to(device) for step in range(start)}
