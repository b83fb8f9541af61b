"""Record many runs of a pipeline, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asced_recorders.capture import FIELDS, Capture
from asced_recorders.cost import check_disk, recording_cost
from asced_recorders.decoding import has_image, to_image
from asced_recorders.interruption import FinishBatch
from asced_recorders.loading import load_pipeline, pipeline_name
from asced_recorders.progress import Event, ProgressReport
from asced_recorders.provenance import pipeline_facts
from asced_recorders.sampling import (
    initial_noise,
    is_unconditional,
    run_generators,
    sample_shape,
    sample_unconditional,
)
from asced_recorders.scheduler_names import make_scheduler
from asced_recorders.schedulers import StepTable, step_table
from asced_recorders.session import Session, Settings, make_spec
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_stores import TrajectorySpec, TrajectoryStore


def record(
    pipeline: Any,
    out: str | Path,
    *,
    runs: int | None = None,
    steps: int = 25,
    batch_size: int = 64,
    seed: int = 0,
    scheduler: str | None = None,
    scheduler_options: Mapping[str, Any] | None = None,
    checkpoints: Sequence[int] = (),
    fields: Sequence[str] = FIELDS,
    dtype: str = "float16",
    resume: bool = False,
    overwrite: bool = False,
    labels: Sequence[int] | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    ignore_disk: bool = False,
    progress: Callable[[Event], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **loading: Any,
) -> TrajectoryStore:
    """Draw runs from a pipeline and record their trajectories.

    Run ``i`` draws from a generator of its own, seeded ``seed + i``, whatever the batch, the
    process or a resume.

    Parameters
    ----------
    pipeline : DiffusionPipeline, str or Path
        A pipeline, or what `load_pipeline` takes.
    out : str or Path
        Path or URL of the store.
    runs : int
        Number of runs.
    steps : int
        Number of noise levels.
    batch_size : int
        Runs sampled and committed together.
    seed : int
        Seed of run 0.
    scheduler : str, optional
        Another scheduler, by short name or class.
    scheduler_options : mapping, optional
        Entries of its configuration.
    checkpoints : sequence of int
        Steps whose entering sample is recorded in float32, for replays that start there.
    fields : sequence of str
        Some of ``eps, x0, x_init, x, sample, image``.
    dtype : str
        Of eps and x0: ``float16`` or ``float32``.
    resume : bool
        Go on with a store that was begun with the same settings.
    overwrite : bool
        Replace a store that exists.
    labels : sequence of int, optional
        Class of each run, for a class-conditional model; repeated to the number of runs.
    rank, world_size : int, optional
        Which process this is, of how many; by default as torchrun or SLURM say.
    ignore_disk : bool
        Begin even if the disk looks too small.
    progress : callable, optional
        Told each event: a dict with ``event`` start, batch, interrupting, done.
    storage_options : mapping, optional
        For object storage.
    **loading
        For `load_pipeline`, where a name or path is given: ``device``, ``precision`` (its
        ``dtype``), ``variant``, ``revision`` and so on.

    Returns
    -------
    TrajectoryStore

    Raises
    ------
    InputError
        If something cannot be recorded as asked; nothing was sampled.
    KeyboardInterrupt
        After the batch during which Ctrl-C or SIGTERM came; the store can be resumed.
    """
    settings = Settings(tuple(fields), tuple(checkpoints), dtype)
    total = _check_counts(runs, steps, batch_size, settings)
    session = Session(
        str(out),
        runs=total,
        resume=resume,
        overwrite=overwrite,
        rank=rank,
        world_size=world_size,
        storage_options=storage_options,
    )
    failed = True
    try:
        name, pipe = _pipeline(pipeline, scheduler, scheduler_options, loading)
        campaign = _Unconditional(pipe, name, settings, steps, seed, labels)
        _walk(session, campaign, total, batch_size, ignore_disk, progress)
        failed = False
    finally:
        session.close(quietly=failed)
    assert session.store is not None
    return session.store


class _Unconditional:
    """Batches from our own loop."""

    def __init__(
        self,
        pipe: Any,
        name: str,
        settings: Settings,
        steps: int,
        seed: int,
        labels: Sequence[int] | None,
    ) -> None:
        if not is_unconditional(pipe):
            raise InputError(f"{type(pipe).__name__} needs prompts")
        self.pipe, self.name, self.settings = pipe, name, settings
        self.steps, self.seed = steps, seed
        classes = pipe.unet.config.get("num_class_embeds")
        if (labels is None) != (not classes):
            raise InputError(
                f"the model has {classes or 'no'} classes: give labels (--labels)"
                if classes
                else "the model has no classes: leave the labels out"
            )
        self.labels = labels
        pipe.unet.eval()
        pipe.scheduler.set_timesteps(steps)
        self.table: StepTable = step_table(pipe.scheduler)
        settings.check_steps(self.table.steps)

    def spec(self) -> TrajectorySpec:
        shape = sample_shape(self.pipe)
        image = (shape[1], shape[2], shape[0]) if has_image(self.pipe, shape) else None
        facts = {
            "pipeline": self.name,
            "loop": "asced_recorders.sampling",
            "steps": self.steps,
            "seed": self.seed,
            **pipeline_facts(self.pipe, self.pipe.scheduler, self.table),
        }
        return make_spec(self.settings, self.table, shape, image, facts)

    def sample(self, runs: Sequence[int], capture: Capture) -> tuple[dict[str, Any], Any]:
        import torch

        pipe = self.pipe
        seeds = [self.seed + run for run in runs]
        scalars: dict[str, Any] = {"seed": seeds}
        classes = None
        if self.labels is not None:
            chosen = [int(self.labels[run % len(self.labels)]) for run in runs]
            scalars["label"] = chosen
            classes = torch.tensor(chosen)
        generators = run_generators(seeds)
        pipe.scheduler.set_timesteps(self.steps)
        x_init = initial_noise(pipe, generators)
        end = sample_unconditional(
            pipe,
            x_init=x_init,
            steps=self.steps,
            generators=generators,
            listener=capture,
            labels=classes,
        )
        wanted = "image" in self.settings.fields and has_image(pipe, tuple(end.shape[1:]))
        return scalars, to_image(pipe, end) if wanted else None


def _walk(
    session: Session,
    campaign: _Unconditional,
    runs: int,
    batch_size: int,
    ignore_disk: bool,
    tell: Callable[[Event], None] | None,
) -> None:
    """Sample and hand over batch after batch, until done, interrupted or failed."""
    spec = campaign.spec()
    if not session.resume:  # before anything is made
        cost = recording_cost(spec, runs, session.out)
        if not ignore_disk:
            check_disk(cost, session.out)
    store = session.ensure(spec, batch_size)
    batches = list(session.pending(batch_size))
    mine = sum(len(_runs_of(batch, batch_size, runs)) for batch in batches)
    cost = recording_cost(spec, mine, session.out)
    if session.resume and not ignore_disk:
        check_disk(cost, session.out)
    report = ProgressReport(tell, mine, session.out)
    session.background.on_commit = report.committed
    report.start(cost, batches=len(batches), store=str(store.path))
    capture = Capture(
        session.background.take,
        fields=campaign.settings.fields,
        checkpoints=campaign.settings.checkpoints,
        dtype=campaign.settings.dtype,
        check=session.background.check,
    )
    began = time.monotonic()
    with FinishBatch(lambda: report.say("interrupting")) as interrupt:
        for batch in batches:
            if interrupt.requested:
                break
            numbers = _runs_of(batch, batch_size, runs)
            scalars, images = campaign.sample(numbers, capture)
            session.submit(batch, capture.release(), numbers, scalars, images)
        session.background.drain()
    if interrupt.requested and report.done < mine:
        report.say("interrupted")
        raise KeyboardInterrupt
    report.say("done", seconds=round(time.monotonic() - began, 3))


def _runs_of(batch: int, batch_size: int, runs: int) -> range:
    """Numbers of the runs of a batch; the last one may be short."""
    return range(batch * batch_size, min((batch + 1) * batch_size, runs))


def _check_counts(runs: int | None, steps: int, batch_size: int, settings: Settings) -> int:
    for name, value in (("runs", runs), ("steps", steps), ("batch_size", batch_size)):
        if value is None or isinstance(value, bool) or int(value) < 1:
            raise InputError(f"{name} is {value}: give a number of at least 1")
    settings.check_steps(steps)
    assert runs is not None
    return int(runs)


def _pipeline(
    pipeline: Any,
    scheduler: str | None,
    scheduler_options: Mapping[str, Any] | None,
    loading: Mapping[str, Any],
) -> tuple[str, Any]:
    """The pipeline and what it is called in the store."""
    if isinstance(pipeline, (str, Path)):
        name = pipeline_name(pipeline)
        options = {"dtype" if k == "precision" else k: value for k, value in loading.items()}
        pipe = load_pipeline(pipeline, **options)
    else:
        name, pipe = type(pipeline).__name__, pipeline
        if any(value for value in loading.values()):
            raise InputError(f"{sorted(loading)} are for loading, but a pipeline was given")
    if scheduler is not None or scheduler_options:
        from copy import copy

        pipe = copy(pipe)  # the caller's pipeline keeps its scheduler
        pipe.scheduler = make_scheduler(scheduler, pipe.scheduler, scheduler_options)
    return name, pipe
