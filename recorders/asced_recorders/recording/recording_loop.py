"""Record many runs of a pipeline, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.data_range import DIFFUSERS, DataRange
from asced_recorders.pipelines.loading import load_pipeline, pipeline_name, with_scheduler
from asced_recorders.pipelines.options import LoadOptions, RecordOptions
from asced_recorders.pipelines.prompts import Prompt, read_prompts
from asced_recorders.pipelines.pruned import check_pruning, pruning_facts, sample_pruned
from asced_recorders.pipelines.run_source import RunSource
from asced_recorders.pipelines.sampling import is_unconditional
from asced_recorders.pipelines.sources import PipelineSource, UnconditionalSource
from asced_recorders.recording.cost import check_disk, recording_cost
from asced_recorders.recording.interruption import FinishBatch
from asced_recorders.recording.progress import ProgressReport
from asced_recorders.tap.schedulers import StepTable
from asced_recorders.writing.capture import Capture
from asced_recorders.writing.flight import GROUP_RUNS, OBSERVED, FlightRecorder, KeepRule
from asced_recorders.writing.resuming import check_facts, check_resumable
from asced_recorders.writing.session import Session
from asced_stores.backends.opening import url_of
from asced_stores.errors import InputError
from asced_stores.options import takes

if TYPE_CHECKING:
    from asced_stores import TrajectorySpec, TrajectoryStore


@takes(RecordOptions)
def record(
    pipeline: Any,
    out: str | Path,
    options: RecordOptions,
) -> TrajectoryStore:
    """Draw runs from a pipeline and record their trajectories.

    Run ``i`` draws from a generator of its own, seeded ``seed + i``, whatever the batch, the
    process or a resume. Of several processes, one that gets no batch waits until the first has made
    the store, and returns it.

    Parameters
    ----------
    pipeline : DiffusionPipeline, str or Path
        A pipeline, or what `load_pipeline` takes; how it is loaded is for the latter.
    out : str or Path
        Path or URL of the store.
    options : RecordOptions
        Each by keyword.

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
    prompts = read_prompts(options.prompts) if options.prompts is not None else ()
    pruning, finished = options.pruning, len(prompts)
    if pruning is not None:
        finished *= pruning.finish
    options = replace(options, prompts=prompts, runs=options.runs or finished)
    rule = KeepRule.parse(options.keep)
    flight = None if rule is None else FlightRecorder(rule, options.observers)
    session = Session(url_of(out), options, flight=flight)
    failed = True
    try:
        name, pipe = _pipeline(pipeline, options)
        source = _source(pipe, name, options, prompts)
        kept = OBSERVED if flight is None and options.observers else options.keep
        source.facts = {"keep": kept}
        if pruning is not None:
            if options.activations:
                raise InputError(
                    "activations of pruned runs are not kept, since steps before the look are not "
                    "computed again: record them without pruning"
                )
            check_pruning(pruning, options.runs or 0, options.batch_size)
            source.facts["pruning"] = pruning_facts(source, pruning, options.batch_size)
        sample = source.sample if pruning is None else partial(sample_pruned, source, pruning)
        _RecordingLoop(session, source, options).record_batches(sample)
        store = session.joined()
        failed = False
    finally:
        session.close(quietly=failed)
    session.warn()
    return store


def _source(pipe: Any, name: str, options: RecordOptions, prompts: Sequence[Prompt]) -> RunSource:
    """Our own loop where it fits, else the pipeline itself."""
    if is_unconditional(pipe):
        if prompts or any((options.guidance_scale, options.negative_prompt, options.call_options)):
            raise InputError(
                f"{type(pipe).__name__} takes no prompts, guidance or other options of a call"
            )
        return UnconditionalSource(pipe, name, options)
    if options.labels:
        if prompts:
            raise InputError("labels stand in the prompts' column `label`: give one of the two")
        prompts = tuple(Prompt(label=int(label)) for label in options.labels)
    pipe.set_progress_bar_config(disable=True)
    return PipelineSource(pipe, name, options, prompts)


class _RecordingLoop:
    """Samples and hands over batch after batch, until done, interrupted or failed."""

    def __init__(self, session: Session, source: RunSource, options: RecordOptions) -> None:
        assert options.runs is not None
        self.session, self.source, self.range = session, source, DataRange(options.value_range)
        self.runs, self.batch_size = runs, batch_size = options.runs, options.batch_size
        self.ignore_disk = options.ignore_disk
        self.report = ProgressReport(options.progress, runs, session.out)
        session.yielded = []  # runs are the same whoever samples them
        session.background.on_commit = lambda batch, count: self.report.committed(
            batch, count, session.written, session.kept, session.failed
        )
        self.batches: list[int] = []
        self.rule = None if session.flight is None else session.flight.rule
        groups = 1 if self.rule is None else max(1, GROUP_RUNS // batch_size)
        self.store_batch = min(batch_size * groups, max(runs, batch_size))

    def record_batches(
        self, sample: Callable[[range, Capture], tuple[dict[str, Any], Any]]
    ) -> None:
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
                seen = capture.by_step(buffer)
                session.submit(batch, buffer, numbers, scalars, images, seen)
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
        """Each batch of the store with the runs to sample at once; with `keep` these are more."""
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


def _pipeline(pipeline: Any, options: RecordOptions) -> tuple[str, Any]:
    """The pipeline and what it is called in the store."""
    loading = {one.name: getattr(options, one.name) for one in fields(LoadOptions)}
    if isinstance(pipeline, (str, Path)):
        name = pipeline_name(pipeline)
        pipe = load_pipeline(pipeline, dtype=options.precision, **loading)
    else:
        name, pipe = type(pipeline).__name__, pipeline
        given = [one for one in (*loading, "precision") if getattr(options, one)]
        if given:
            raise InputError(f"{given} are for loading, but a pipeline was given")
    return name, with_scheduler(pipe, options)
