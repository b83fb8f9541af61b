"""``Recorder``: watch any diffusers pipeline, or a loop of one's own, and keep what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from asced_recorders.pipelines.activations import ActivationWatch
from asced_recorders.pipelines.call_facts import CallFacts, check_call, own_arguments, read_call
from asced_recorders.pipelines.calls import (
    CallWatch,
    default_arguments,
    expected_runs,
    fresh_seeds,
    run_facts,
    with_guidance,
)
from asced_recorders.pipelines.data_range import DIFFUSERS, DataRange
from asced_recorders.pipelines.decoding import is_pixels, latents_of_output, shown_images
from asced_recorders.pipelines.ends import end_of_call, loops_shown
from asced_recorders.pipelines.evaluations import EvaluationWatch
from asced_recorders.pipelines.fingerprint import ModelWatch
from asced_recorders.pipelines.prompts import prompt_key
from asced_recorders.pipelines.provenance import check_sampler, pipeline_facts
from asced_recorders.pipelines.unseeded import NoiseWatch
from asced_recorders.tap.layout_choice import layout_of
from asced_recorders.tap.layouts import Layout
from asced_recorders.tap.tap import Tap
from asced_recorders.writing.capture import Capture
from asced_recorders.writing.corrections import (
    Correcting,
    check_correction,
    correction_facts,
    correction_values,
    correction_variables,
    corrector_among,
)
from asced_recorders.writing.flight import OBSERVED
from asced_recorders.writing.options import ModuleOptions
from asced_recorders.writing.session import Session
from asced_recorders.writing.settings import make_spec
from asced_stores.backends.opening import url_of
from asced_stores.errors import InputError
from asced_stores.options import documents, option, options, takes

if TYPE_CHECKING:
    from asced_recorders.custom.loop import CustomRecorder
    from asced_recorders.custom.watching import NetworkRecorder
    from asced_stores import TrajectoryStore


@options
class RecorderOptions(ModuleOptions):
    """How a `Recorder` records."""

    prompts: bool = option(True, "Keep the prompts.")
    name: str | None = option(None, "What the pipeline is called in the store.")
    layout: Layout | None = option(
        None, "How its tensors are laid out, where that is not known by its class."
    )


@documents(RecorderOptions)
class Recorder:
    """Record what a pipeline does while it is used as always.

    Each call is one batch of the store: the first one fixes the number of noise levels, the shape
    and the size of a batch; later ones may be smaller. Outputs are bit-identical to those without
    a recorder.

    Parameters
    ----------
    pipe : DiffusionPipeline
        Its scheduler and class are swapped while the context lasts, and restored whatever happens.
    store : str or Path
        Path or URL of the store.
    options : RecorderOptions
        Each by keyword.

    Attributes
    ----------
    store : TrajectoryStore or None
        The store, once the first call has ended.

    Raises
    ------
    StoreExistsError
        If a store lies there and neither `resume` nor `overwrite` is given.
    InputError
        At once, if the pipeline's scheduler cannot be recorded; during a call, if its loop cannot.

    Examples
    --------
    >>> from asced_recorders import Recorder, load_pipeline
    >>> pipe = load_pipeline("fashion")
    >>> pipe.set_progress_bar_config(disable=True)
    >>> with Recorder(pipe, "watched.zarr"):
    ...     images = pipe(batch_size=2, num_inference_steps=3, output_type="np").images
    """

    @takes(RecorderOptions)
    def __init__(self, pipe: Any, store: str | Path, options: RecorderOptions) -> None:
        self.pipe = pipe
        self.settings, self.batch_size, self.prompts = options, options.batch_size, options.prompts
        self._prompt_key = None if options.prompts else prompt_key()
        self.name = options.name or type(pipe).__name__
        self.layout = options.layout
        self.range = DataRange(options.value_range)
        self.facts: dict[str, Any] = {"keep": OBSERVED} if options.observers else {}
        self.session = Session(url_of(store), options)
        self._stack: ExitStack | None = None
        self._during = ExitStack()
        self._tap: Tap | None = None
        self._call = CallFacts({})
        self._model = ModelWatch(pipe)
        self._evaluations = EvaluationWatch(pipe)
        self._activations = ActivationWatch(pipe, options.activations)
        self._noise = NoiseWatch(None)
        self._seeds: list[int] = []
        self._corrector: Correcting | None = None
        background = self.session.background
        self.capture = Capture(
            background.take,
            settings=self.settings,
            check=background.check,
        )

    @property
    def store(self) -> TrajectoryStore | None:
        """The store, once the first call has ended."""
        return self.session.store

    @classmethod
    def custom(
        cls, store: str | Path, shape: Sequence[int], steps: int, **options: Any
    ) -> CustomRecorder:
        """Make a recorder for a sampling loop of one's own; see `CustomRecorder`.

        Parameters
        ----------
        store : str or Path
            Path or URL of the store.
        shape : sequence of int
            Of one sample: (channel, y, x), or (frame, channel, y, x).
        steps : int
            Noise levels of a run.
        **options
            As `CustomRecorder` has them.
        """
        from asced_recorders.custom.loop import CustomRecorder

        return CustomRecorder(store, shape, steps, **options)

    @classmethod
    def watch(
        cls,
        network: Any,
        store: str | Path,
        *,
        levels: Any,
        prediction_type: str,
        **options: Any,
    ) -> NetworkRecorder:
        """Make a recorder for the loop of another library; see `NetworkRecorder`.

        Parameters
        ----------
        network : torch.nn.Module
            What the sampler calls.
        store : str or Path
            Path or URL of the store.
        levels : callable, or sequence of (alpha, sigma)
            ``levels(*args, **kwargs)`` of the network's arguments gives ``(alpha, sigma)``.
        prediction_type : str
            What the network returns.
        **options
            As `NetworkRecorder` has them.
        """
        from asced_recorders.custom.watching import NetworkRecorder

        return NetworkRecorder(
            network, store, levels=levels, prediction_type=prediction_type, **options
        )

    def __enter__(self) -> Self:
        if self._stack is not None:
            raise InputError("this recorder is in use already: leave it first")
        self.session.background.check()
        with ExitStack() as stack:
            stack.callback(self.session.close, quietly=True)
            watch = CallWatch(self.pipe, self._before, self._after, self._failed)
            tap = Tap(self.pipe, self.capture, within=lambda: watch.depth > 0)
            self._tap = stack.enter_context(tap)
            stack.enter_context(watch)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        stack, self._stack = self._stack, None
        assert stack is not None
        with stack:
            if error is None:
                self.session.background.drain()
                self._check_done()
        if error is None:
            self.session.warn()

    def _check_done(self) -> None:
        """Refuse to end in silence where something was sampled and not recorded."""
        assert self._tap is not None
        if self._tap.outside:
            raise InputError(
                f"{self._tap.outside} steps of the scheduler were taken outside a call of "
                f"{type(self.pipe).__name__}: they are not recorded. Record a loop of your own "
                "with Recorder.custom, or with Recorder.watch"
            )
        if not self.session.kept and not self.settings.resume:
            raise InputError(
                "nothing was recorded: no call of this very pipeline ended well inside the `with` "
                "(copies of it are pipelines of their own)"
            )

    def _before(self, arguments: dict[str, Any]) -> dict[str, Any] | None:
        assert self._tap is not None
        self._tap.follow()
        self._corrector = corrector_among(self._tap.beside())
        self._lay_out(arguments)
        self.capture.expected_runs = expected_runs(arguments)
        self.capture.most_runs = self.batch_size
        self._model.check()
        self._during.close()
        self._during.enter_context(self._evaluations)
        self._during.enter_context(self._activations)
        self._during.enter_context(
            loops_shown(self.pipe, self.capture.show, lambda more: self._lay_out(arguments | more))
        )
        self.capture.watched_by(self._evaluations, self._activations)
        self._seeds = fresh_seeds(arguments.get("generator"))
        self._noise = NoiseWatch(arguments.get("generator"))
        defaults = default_arguments(self.pipe)
        self._call = read_call(arguments, prompts=self.prompts, defaults=defaults)
        if self.store is not None:
            self._check_call(self.store, arguments)
        return end_of_call(self.pipe, arguments, self.capture.show)

    def _lay_out(self, arguments: Mapping[str, Any]) -> None:
        self.capture.layout = self.layout or layout_of(self.pipe, arguments)

    def _check_call(self, store: TrajectoryStore, arguments: Mapping[str, Any]) -> None:
        """Refuse a call that does not fit the store before anything is sampled."""
        first = store.spec.attributes
        self.range.adopt(first)
        check_call(first.get("call") or {}, self._call.call)
        check_correction(first, self._corrector)
        check_sampler(first, self.pipe)
        if store.spec.image_shape is not None and arguments.get("output_type") == "latent":
            raise InputError(
                "this call gives latents, and the store keeps the image of each run: give the "
                "output_type of the calls before, or record without the field image"
            )

    def _after(self, arguments: dict[str, Any], output: Any) -> None:
        capture = self.capture
        self._model.check()  # a callback may have changed it on the way
        self._take_latents(arguments, output)
        buffer = capture.release()
        try:
            told = with_guidance(self.pipe, arguments)
            facts = run_facts(told, buffer.count, self._seeds, hidden=self._prompt_key)
            images = self._images(output)
            batch_size = self.batch_size or buffer.count
            store = self._ensure_store(images, batch_size)
            self.batch_size = batch_size
            if self.range.adopt(store.spec.attributes):
                images = self._images(output)
            if images is None and store.spec.image_shape is not None:
                raise InputError(
                    "this call gave no image, and the store keeps one of each run: call as before, "
                    "or record without the field image"
                )
            facts["arguments"] = own_arguments(self._call, buffer.count, store.spec.attributes)
            found, masks = correction_values(self._corrector, buffer.count, store.spec.sample_shape)
            seen = capture.by_step(buffer) | masks
            self.session.append(buffer, batch_size, facts | found, images, seen)
        except BaseException:
            self.session.background.give_back(buffer)
            raise
        finally:
            self._during.close()

    def _take_latents(self, arguments: Mapping[str, Any], output: Any) -> None:
        """Where the caller is handed the latents themselves: these are the end of the runs."""
        if arguments.get("output_type") != "latent" or self.capture.buffer is None:
            return
        latents = latents_of_output(output)
        if latents is not None:
            self.capture.show(latents)

    def _failed(self) -> None:
        self._during.close()
        if not self.session.ensured:  # nothing is recorded yet that another model would not fit
            self._model = ModelWatch(self.pipe)
        buffer = self.capture.drop()
        if buffer is not None:
            self.session.background.give_back(buffer)

    def _images(self, output: Any) -> Any:
        """Images of a call, and the range of its data where they are pixels."""
        ends = self.capture.end
        assert ends is not None
        value_range = self.range.settle(ends) if is_pixels(self.pipe, ends) else DIFFUSERS
        if "image" not in self.settings.fields:
            return None
        images = shown_images(self.pipe, output, ends, value_range)
        if images is not None:
            self.capture.layout.check_image(*images.shape[1:3])
        return images

    def _ensure_store(self, images: Any, batch_size: int) -> TrajectoryStore:
        capture = self.capture
        if self.store is not None and self.session.ensured:
            return self.store  # `check_call` and the watch over the model found that it still fits
        assert capture.expected is not None
        assert capture.end is not None
        # Of a store that is there, the first call's: `check_call` has found that this one fits.
        first = {} if self.store is None else self.store.spec.attributes
        facts = {
            "pipeline": self.name,
            "steps": capture.expected.steps,
            **self._call.attributes(),
            **{name: first[name] for name in ("call", "call_missing") if name in first},
            **pipeline_facts(self.pipe, capture.scheduler, capture.expected),
            **self.range.facts(),
            **self._evaluations.facts(),
            **self._activations.facts(),
            **self._noise.facts(),
            **correction_facts(self._corrector),
            **self.facts,
        }
        shape = tuple(capture.end.shape[1:])
        spec = make_spec(
            self.settings,
            capture.expected,
            shape,
            None if images is None else images.shape[1:],
            facts,
            correction_variables(self._corrector, shape),
            evaluated=self._evaluations.watching,
            activations=self._activations.values,
        )
        return self.session.ensure(spec, batch_size)
