"""A few short runs, recorded in memory: from them, what many whole runs take here."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.data_range import DIFFUSERS
from asced_recorders.recording.cost import SPARE

if TYPE_CHECKING:
    from asced_recorders.pipelines.kinds import Kind
    from asced_stores import TrajectoryStore

SHORT, LONG = 4, 8
"""Steps of the runs that are tried: their times differ by the steps alone."""
PATIENCE = 60.0
"""Seconds that trying batches may take; runs that need more are tried one by one."""


@dataclass(frozen=True)
class TrialRuns:
    """What recording takes, as measured.

    Attributes
    ----------
    batch_size : int
        Runs that were sampled at once.
    steps : int
        Of the longer runs, as the sampler took them.
    step_seconds : float
        Of one step of a batch.
    batch_seconds : float
        Of a batch of the longer runs, with what comes before and after its steps.
    step_bytes, other_bytes : float
        Of a run: of each step, and of all else.
    variables : tuple of str
        What is recorded.
    cores : float
        Processor time of this process for each second of the trial.
    refused : str
        How a batch of several runs failed, where one run did not.
    """

    batch_size: int
    steps: int
    step_seconds: float
    batch_seconds: float
    step_bytes: float
    other_bytes: float
    variables: tuple[str, ...]
    cores: float
    refused: str = ""

    def seconds(self, runs: int, steps: int) -> float:
        """Time of so many runs of so many steps."""
        batch = self.batch_seconds + (steps - self.steps) * self.step_seconds
        return math.ceil(runs / self.batch_size) * batch

    def bytes(self, steps: int) -> float:
        """Disk space of a run of so many steps."""
        return (self.step_bytes * steps + self.other_bytes) * SPARE


def try_runs(
    pipe: Any, kind: Kind, arguments: dict[str, Any], clock: Callable[[], float] = time.perf_counter
) -> TrialRuns:
    """Record short runs in memory, in the batches that fit this kind of pipeline.

    The first run warms up, the second says how long batches will take; where that is longer than
    `PATIENCE`, or a batch fails, runs are measured one by one.

    Parameters
    ----------
    pipe : DiffusionPipeline or ModularPipeline
    kind : Kind
        Of this pipeline.
    arguments : dict
        What its calls need: prompts or labels.
    clock : callable
        Seconds.

    Returns
    -------
    TrialRuns

    Raises
    ------
    Exception
        What the pipeline raises where not even one run can be recorded.
    """
    begun, worked = clock(), time.process_time()
    _record(pipe, arguments, clock, steps=SHORT)
    short, first = _record(pipe, arguments, clock, steps=SHORT)
    batch, refused = kind.batch_size, ""
    evaluations = (SHORT + 3 * LONG) / SHORT  # in units of what was timed just now
    if short * batch * evaluations > PATIENCE:
        batch = 1
    if batch > 1:
        try:
            short, first = _record(pipe, arguments, clock, steps=SHORT, batch_size=batch)
        except Exception as error:  # whatever a pipeline of somebody else's raises
            batch, refused = 1, f"{type(error).__name__}: {error}"
    long, store = _record(pipe, arguments, clock, steps=LONG, batch_size=batch)
    twice, _ = _record(pipe, arguments, clock, steps=LONG, batch_size=batch, batches=2)
    cores = (time.process_time() - worked) / (clock() - begun)
    steps, more = store.spec.steps, store.spec.steps - first.spec.steps
    longer = long - short
    a_step = longer / more if more > 0 and longer > 0 else long / steps
    sizes = {"step": 0.0, "": 0.0}
    for variable in store.spec.variables:
        sizes["step" if "step" in variable.dims else ""] += variable.nbytes
    return TrialRuns(
        batch_size=batch,
        steps=steps,
        step_seconds=a_step,
        batch_seconds=max(twice - long, a_step * steps),
        step_bytes=sizes["step"] / steps,
        other_bytes=sizes[""],
        variables=tuple(variable.name for variable in store.spec.variables),
        cores=cores,
        refused=refused,
    )


def _record(
    pipe: Any,
    arguments: dict[str, Any],
    clock: Callable[[], float],
    *,
    steps: int,
    batch_size: int = 1,
    batches: int = 1,
) -> tuple[float, TrajectoryStore]:
    """Seconds that it took, and the store in memory."""
    from asced_recorders.recording.recording_loop import record

    place = f"memory://asced-trial-{uuid.uuid4().hex}"
    begun = clock()
    store = record(
        pipe,
        place,
        runs=batch_size * batches,
        steps=steps,
        batch_size=batch_size,
        value_range=DIFFUSERS,  # the ends of so few steps say nothing of the model's
        **arguments,
    )
    return clock() - begun, store
