"""Record many runs of a pipeline, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.data_range import DIFFUSERS, DataRange
from asced_recorders.pipelines.loading import load_pipeline, pipeline_name
from asced_recorders.pipelines.prompts import Prompt, read_prompts
from asced_recorders.pipelines.pruned import Pruning, check_pruning, pruning_facts, sample_pruned
from asced_recorders.pipelines.run_source import RunSource
from asced_recorders.pipelines.sampling import is_unconditional
from asced_recorders.pipelines.scheduler_names import make_scheduler
from asced_recorders.pipelines.sources import PipelineSource, UnconditionalSource
from asced_recorders.recording.cost import check_disk, recording_cost
from asced_recorders.recording.interruption import FinishBatch
from asced_recorders.recording.progress import Event, ProgressReport
from asced_recorders.tap.schedulers import StepTable
from asced_recorders.writing.capture import Capture
from asced_recorders.writing.flight import GROUP_RUNS, OBSERVED, FlightRecorder, KeepRule
from asced_recorders.writing.observers import RunObserver
from asced_recorders.writing.resuming import check_facts, check_resumable
from asced_recorders.writing.session import Session
from asced_recorders.writing.settings import FIELDS, Settings
from asced_stores.backends.opening import url_of
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_stores import TrajectorySpec, TrajectoryStore

MAX_BATCHES = 10_000_000


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
    every: int = 1,
    window: tuple[int, int] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    labels: Sequence[int] | None = None,
    prompts: str | Path | Iterable[Any] | None = None,
    negative_prompt: str | None = None,
    guidance_scale: float | None = None,
    keep_prompts: bool = True,
    call_options: Mapping[str, Any] | None = None,
    value_range: Sequence[float] | None = None,
    keep: str = "all",
    observers: Sequence[RunObserver] = (),
    pruning: Pruning | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    ignore_disk: bool = False,
    fsync: bool = True,
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
    runs : int, optional
        Number of runs; by default one a prompt.
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
        Some of ``eps, x0, x_init, checkpoint_sample, sample, image``.
    dtype : str
        Of eps and x0: ``float16`` or ``float32``.
    every, window : int, pair of int, optional
        Keep eps and x0 of each K-th step, from the first step to the last: enough to analyse.
    resume : bool
        Go on with a store that was begun with the same settings.
    overwrite : bool
        Replace a store that exists.
    labels : sequence of int, optional
        Class of each run, for a class-conditional model; repeated to the number of runs.
    prompts : str, Path or iterable, optional
        A file or a sequence of prompts (`asced_recorders.pipelines.prompts.read_prompts`);
        repeated to the number of runs.
    negative_prompt : str, optional
        Where a prompt has none of its own.
    guidance_scale : float, optional
        Where a prompt has none of its own; the pipeline's default otherwise.
    keep_prompts : bool
        Write the prompts to the store.
    call_options : mapping, optional
        Further arguments of the pipeline's call, for example ``height`` and ``width``; a function
        is asked for each batch (``lambda batch: [images[run] for run in batch.runs]``).
    value_range : pair of float, optional
        Between which pixels lie, for models of pixels; by default -1..1, or what the first batch
        shows where it ends outside. Images are scaled to it, and the store says it.
    keep : str
        ``all``; or ``flagged`` (by an observer) or ``sample:P`` (a random share): then only those
        runs are kept in full, and of all runs what the observers saw.
    observers : sequence of RunObserver
        Who is shown each batch, for example those of `asced_analysis.statistics.observing`.
    pruning : Pruning, optional
        Several runs are drawn for each that is recorded, and the most promising finished
        (`asced_analysis.correction.Pruner`): the store holds those alone, from their first step.
        Batches and numbers of runs count what is finished.
    rank, world_size : int, optional
        Which process this is, of how many; by default as torchrun or SLURM say.
    ignore_disk : bool
        Begin even if the disk looks too small.
    fsync : bool
        Wait for the disk before a batch counts as committed. Without it a killed process still
        loses nothing, but a loss of power may tear the batches of the last half minute.
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

    Examples
    --------
    >>> from asced_recorders import record
    >>> store = record("fashion", "two.zarr", runs=2, steps=3, batch_size=2)
    >>> store.spec.steps, store.committed_batches()
    (3, [0])
    """
    settings = Settings(tuple(fields), tuple(checkpoints), dtype, every, window)
    chosen = read_prompts(prompts) if prompts is not None else ()
    if runs is None and chosen:
        runs = len(chosen) * (1 if pruning is None else pruning.finish)
    total = _check_counts(runs, steps, batch_size, settings)
    rule = KeepRule.parse(keep)
    data_range = DataRange(value_range)
    flight = None if rule is None else FlightRecorder(rule, observers)
    session = Session(
        url_of(out),
        runs=total,
        flight=flight,
        observers=observers if flight is None else (),
        resume=resume,
        overwrite=overwrite,
        rank=rank,
        world_size=world_size,
        storage_options=storage_options,
        fsync=fsync,
    )
    failed = True
    try:
        name, pipe = _pipeline(pipeline, scheduler, scheduler_options, loading)
        options = {
            "guidance_scale": guidance_scale,
            "negative_prompt": negative_prompt,
            "keep_prompts": keep_prompts,
            "options": call_options,
        }
        source = _source(pipe, name, settings, steps, seed, labels, chosen, options)
        source.facts = {"keep": OBSERVED if flight is None and observers else keep}
        if pruning is not None:
            check_pruning(pruning, total, batch_size)
            source.facts["pruning"] = pruning_facts(source, pruning, batch_size)
        loop = _RecordingLoop(session, source, total, batch_size, ignore_disk, progress, data_range)
        loop.walk(source.sample if pruning is None else partial(sample_pruned, source, pruning))
        failed = False
    finally:
        session.close(quietly=failed)
    session.warn()
    assert session.store is not None
    return session.store


def _source(
    pipe: Any,
    name: str,
    settings: Settings,
    steps: int,
    seed: int,
    labels: Sequence[int] | None,
    prompts: Sequence[Prompt],
    options: dict[str, Any],
) -> RunSource:
    """Our own loop where it fits, else the pipeline itself."""
    if is_unconditional(pipe):
        if prompts or any(value for key, value in options.items() if key != "keep_prompts"):
            raise InputError(
                f"{type(pipe).__name__} takes no prompts, guidance or other options of a call"
            )
        return UnconditionalSource(pipe, name, settings, steps, seed, labels)
    if labels:
        if prompts:
            raise InputError("labels stand in the prompts' column `label`: give one of the two")
        prompts = tuple(Prompt(label=int(label)) for label in labels)
    pipe.set_progress_bar_config(disable=True)
    return PipelineSource(pipe, name, settings, steps, seed, prompts=prompts, **options)


class _RecordingLoop:
    """Samples and hands over batch after batch, until done, interrupted or failed."""

    def __init__(
        self,
        session: Session,
        source: RunSource,
        runs: int,
        batch_size: int,
        ignore_disk: bool,
        tell: Callable[[Event], None] | None,
        data_range: DataRange,
    ) -> None:
        self.session, self.source, self.range = session, source, data_range
        self.runs, self.batch_size, self.ignore_disk = runs, batch_size, ignore_disk
        self.report = ProgressReport(tell, runs, session.out)
        session.yielded = []  # runs are the same whoever samples them
        session.background.on_commit = lambda batch, count: self.report.committed(
            batch, count, session.written, session.kept
        )
        self.batches: list[int] = []
        self.rule = None if session.flight is None else session.flight.rule
        groups = 1 if self.rule is None else max(1, GROUP_RUNS // batch_size)
        self.store_batch = min(batch_size * groups, max(runs, batch_size))

    def walk(self, sample: Callable[[range, Capture], tuple[dict[str, Any], Any]]) -> None:
        """Record what falls to this process, as `sample` draws it."""
        session, source, report = self.session, self.source, self.report
        spec = source.known_spec()
        if session.store is not None:
            self.range.adopt(session.store.spec.attributes)
        if spec is not None:
            self._preview(spec)
        else:
            if session.store is not None:
                check_facts(session.store, source.asked())
            self.batches = list(session.pending(self.store_batch))
        capture = Capture(
            session.background.take,
            settings=source.settings,
            check=session.background.check,
            on_first=None if spec is not None else self._first_step,
        )
        began = time.monotonic()
        with FinishBatch(lambda: report.say("interrupting")) as interrupt:
            for batch, numbers in self._sampled_batches():
                if interrupt.requested:
                    break
                if session.is_committed(batch):
                    continue
                scalars, output = sample(numbers, capture)
                images = self._images(output, capture)
                if not session.ensured:
                    if spec is None:
                        assert capture.table is not None
                        assert capture.end is not None
                        image_shape = None if images is None else images.shape[1:]
                        spec = source.spec(capture.table, capture.end.shape[1:], image_shape)
                    spec = replace(spec, attributes={**spec.attributes, **self.range.facts()})
                    store = session.ensure(spec, self.store_batch)
                    if self.range.adopt(store.spec.attributes):
                        images = self._images(output, capture)
                buffer = capture.release()
                session.submit(batch, buffer, numbers, scalars, images, evaluated=capture.evaluated)
            session.background.drain()
        if interrupt.requested and report.done < report.runs:
            report.say("interrupted")
            raise KeyboardInterrupt
        session.check_yielded()
        report.say("done", seconds=round(time.monotonic() - began, 3))

    def _images(self, output: Any, capture: Capture) -> Any:
        """Images of a batch that was sampled just now; of pixels, in the range of the data."""
        ends, source = capture.end, self.source
        assert ends is not None
        value_range = self.range.settle(ends) if source.is_pixels(ends) else DIFFUSERS
        wanted = "image" in source.settings.fields
        return source.images(output, ends, value_range) if wanted else None

    def _sampled_batches(self) -> Iterator[tuple[int, range]]:
        """Each batch of the store with the runs to sample at once; a flight recorder has more."""
        for batch in self.batches:
            whole = _runs_of(batch, self.store_batch, self.runs)
            for first in range(whole.start, whole.stop, self.batch_size):
                yield batch, range(first, min(first + self.batch_size, whole.stop))

    def _first_step(self, table: StepTable, shape: tuple[int, ...]) -> None:
        """The schedule and the shape of a pipeline's runs are known: say what they will cost."""
        known = self.session.store
        image = self.source.expected_image(shape) if known is None else known.spec.image_shape
        self._preview(self.source.spec(table, shape, image))

    def _kept(self, runs: int) -> int:
        """How many of these runs are likely to be kept in full."""
        return runs if self.rule is None else max(1, round(runs * self.rule.share))

    def _preview(self, spec: TrajectorySpec) -> None:
        """Say what is about to be written, and refuse it where the disk is too small."""
        store = self.session.store
        if store is not None:
            check_resumable(store, spec, self.store_batch, self.runs)
        elif not self.ignore_disk:  # before the batches are counted: there may be very many
            check_disk(
                recording_cost(spec, self._kept(self.runs), self.session.out), self.session.out
            )
        if not self.batches:
            self.batches = list(self.session.pending(self.store_batch))
        mine = sum(len(_runs_of(batch, self.store_batch, self.runs)) for batch in self.batches)
        self.report.runs = mine
        cost = recording_cost(spec, self._kept(mine), self.session.out)
        if not self.ignore_disk:
            check_disk(cost, self.session.out)
        self.report.start(cost, batches=len(self.batches), store=self.session.out)


def _runs_of(batch: int, batch_size: int, runs: int) -> range:
    """Numbers of the runs of a batch; the last one may be short."""
    return range(batch * batch_size, min((batch + 1) * batch_size, runs))


def _check_counts(runs: int | None, steps: int, batch_size: int, settings: Settings) -> int:
    for name, value in (("runs", runs), ("steps", steps), ("batch_size", batch_size)):
        if value is None or isinstance(value, bool) or int(value) < 1:
            raise InputError(f"{name} is {value}: give a number of at least 1")
    settings.check_steps(steps)
    assert runs is not None
    if runs > MAX_BATCHES * batch_size:
        raise InputError(
            f"{runs} runs are more than {MAX_BATCHES} batches of {batch_size}: raise the batch size"
        )
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
