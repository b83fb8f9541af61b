"""A recorder for a sampling loop of one's own: hand it each step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from asced_recorders.custom.activations import GivenActivations
from asced_recorders.custom.levels import GivenLevels, one_number
from asced_recorders.custom.model import check_model, facts_of
from asced_recorders.custom.options import CustomOptions
from asced_recorders.custom.samples import as_rows, check_facts, form_of
from asced_recorders.pipelines.data_range import DataRange
from asced_recorders.pipelines.decoding import pixels_to_image
from asced_recorders.pipelines.provenance import device_facts, versions
from asced_recorders.writing.capture import RunBuffer, take_buffer
from asced_recorders.writing.corrections import (
    check_correction,
    correction_facts,
    correction_values,
    correction_variables,
)
from asced_recorders.writing.flight import OBSERVED
from asced_recorders.writing.session import Session
from asced_recorders.writing.settings import make_spec
from asced_stores.backends.opening import url_of
from asced_stores.errors import InputError
from asced_stores.format.noise_levels import canonical_prediction_type, eps_and_x0
from asced_stores.options import documents, takes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from asced_stores import TrajectoryStore


@documents(CustomOptions)
class CustomRecorder:
    """Records batches whose steps are handed to it, from torch or NumPy.

    After `steps` calls of `step` a batch is complete. `end` gives the sample that came out; without
    it, the end of a run is taken to be the predicted x0 of its last step, which is what
    deterministic samplers step to.

    Parameters
    ----------
    store : str or Path
        Path or URL of the store.
    shape : sequence of int
        Of one sample: (channel, y, x) or (frame, channel, y, x); (y, x) and (channel,) are
        completed with ones. A leading number of runs is understood too.
    steps : int
        Noise levels of a run.
    options : CustomOptions
        Each by keyword.

    Raises
    ------
    InputError
        If shape, steps or options are none that can be recorded; if `model` has no weights.

    Examples
    --------
    >>> import numpy as np
    >>> from asced_recorders import Recorder
    >>> x = np.random.default_rng(0).standard_normal((2, 1, 8, 8), np.float32)
    >>> with Recorder.custom("mine.zarr", shape=(1, 8, 8), steps=2) as recorder:
    ...     for alpha, sigma in ((0.1, 0.99), (0.9, 0.44)):
    ...         output = 0.9 * x  # the model
    ...         recorder.step(
    ...             sample=x,
    ...             model_output=output,
    ...             alpha=alpha,
    ...             sigma=sigma,
    ...             prediction_type="epsilon",
    ...         )
    ...         x = (x - sigma * output) / alpha  # the sampler
    ...     recorder.end(x)
    >>> recorder.store.committed_batches()
    [0]
    """

    @takes(CustomOptions)
    def __init__(
        self, store: str | Path, shape: Sequence[int], steps: int, options: CustomOptions
    ) -> None:
        self.settings = options
        if isinstance(steps, bool) or int(steps) < 1:
            raise InputError(f"steps is {steps}: give a number of at least 1")
        self.shape = tuple(int(n) for n in shape)
        if not 1 <= len(self.shape) <= 5 or min(self.shape) < 1:
            raise InputError(f"shape is {self.shape}: give (channel, y, x)")
        self.steps = int(steps)
        options.check_steps(self.steps)
        self.batch_size = options.batch_size
        observed = {"keep": OBSERVED} if options.observers else {}
        self.attributes = {**observed, **(options.attributes or {})}
        self.model = check_model(options.model)
        self.range = DataRange(options.value_range)
        self.corrector = options.corrector
        self.session = Session(url_of(store), options)
        if self.store is not None:
            check_correction(self.store.spec.attributes, self.corrector)
        self._buffer: RunBuffer | None = None
        self.levels = GivenLevels()
        self.activations = GivenActivations()
        self._end: Tensor | None = None
        self._facts: dict[str, Any] = {}
        self._left_over = False  # facts of a batch that was refused
        self._provenance: dict[str, Any] = {}
        self._closed = False

    @property
    def store(self) -> TrajectoryStore | None:
        """The store, once the first batch is complete."""
        return self.session.store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close(quietly=error is not None)

    def describe(self, **facts: Any) -> None:
        """Say what the runs of the present batch are, before its steps or after them.

        After them, a fact that was given already is one of the next batch.

        Parameters
        ----------
        **facts
            ``seed``, ``prompt``, ``label``, ``guidance_scale``: one value a run, or one for all.
        """
        check_facts(facts)
        if self._left_over:
            self._facts, self._left_over = {}, False
        if self._done == self.steps and set(facts) & set(self._facts):
            with self._abandoned_on_error():
                self._commit()
        self._facts |= facts

    def step(
        self,
        *,
        sample: Any,
        model_output: Any,
        alpha: Any,
        sigma: Any,
        prediction_type: str = "epsilon",
        timestep: Any = None,
        sigma_data: float = 0.5,
        next_sample: Any = None,
        next_alpha: Any = None,
        next_sigma: Any = None,
        activations: Any = None,
    ) -> Any:
        """Hand over one step, noisy end first.

        Parameters
        ----------
        sample : torch.Tensor or ndarray, shape (run, ...)
            The sample that the network saw, ``alpha * x0 + sigma * eps``.
        model_output : torch.Tensor or ndarray, of the shape of `sample`
            After guidance.
        alpha, sigma : float
            Noise level of `sample`.
        prediction_type : str
            One of `asced_stores.format.noise_levels.PREDICTION_TYPES`.
        timestep : float, optional
            What the network was told; the number of the step by default.
        sigma_data : float
            For EDM's parametrisation.
        next_sample : torch.Tensor or ndarray, optional
            What the sampler makes of it, and the last step's is the end of the run. It comes back,
            as it is or corrected: the same call records, and corrects as `Corrector.step`.
        next_alpha, next_sigma : float, optional
            Its noise level, for a corrector.
        activations : torch.Tensor or ndarray, shape (run, value), optional
            Numbers from inside the network, at every step as many.

        Returns
        -------
        torch.Tensor or ndarray or None
            `next_sample`.

        Raises
        ------
        InputError
            If shapes, levels or the order of steps do not fit; and whatever went wrong while the
            batches before were written.
        """
        self.session.background.check()
        if self._closed:
            raise InputError("this recorder is closed: make another with resume=True")
        with self._abandoned_on_error():
            alpha, sigma = one_number(alpha, "alpha"), one_number(sigma, "sigma")
            if self._done == self.steps:
                if self.levels.goes_on(alpha, sigma):
                    self._refuse_longer()
                self._commit()
            kind = canonical_prediction_type(prediction_type)
            x = as_rows(self.shape, sample, "sample")
            output = as_rows(self.shape, model_output, "model_output")
            self._check_rows(x, output)
            self.activations.check(self._done, activations, len(x))
            told = float(self._done) if timestep is None else one_number(timestep, "timestep")
            self.levels.add(told, alpha, sigma, kind, sigma_data, of=self.steps)
            self.activations.add(activations)
            if self._buffer is None:
                take = self.session.background.take
                self._buffer = take_buffer(take, self.steps, x, self.settings)
                self._provenance = self._provenance or device_facts(x.device)
                self._provenance |= form_of(sample, len(x))
                self._buffer.put("x_init", x)
            level = {"alpha": alpha, "sigma": sigma, "sigma_data": sigma_data}
            x0 = self._keep(self._buffer, x, output, prediction_type=kind, **level)
            if self.corrector is not None:
                said = {"sample": sample, "model_output": model_output, "prediction_type": kind}
                said |= {"next_sample": next_sample, "next_alpha": next_alpha}
                next_sample = self.corrector.step(**said, **level, next_sigma=next_sigma)
            if self._done == self.steps:
                self._end = (
                    x0 if next_sample is None else as_rows(self.shape, next_sample, "next_sample")
                )
        return next_sample

    def _check_rows(self, x: Tensor, output: Tensor) -> None:
        """Refuse a step whose numbers of runs do not fit, before anything is kept."""
        if x.shape != output.shape:
            shapes = f"{tuple(x.shape)} and model_output {tuple(output.shape)}"
            raise InputError(f"sample has shape {shapes}: they must be the same")
        if self._buffer is not None and len(x) != self._buffer.count:
            raise InputError(
                f"step {self._done} has {len(x)} runs, the steps before {self._buffer.count}"
            )
        if self.batch_size is not None and len(x) > self.batch_size:
            raise InputError(
                f"this batch has {len(x)} runs, and a batch of the store holds {self.batch_size}: "
                "record the largest batch first, or give batch_size"
            )

    def _keep(self, buffer: RunBuffer, x: Tensor, output: Tensor, **level: Any) -> Tensor:
        """Keep what is recorded of the step whose level was added; predicted x0 comes back."""
        step = self._done - 1
        eps, x0 = eps_and_x0(x, output, **level)
        buffer.put("eps", eps, step)
        buffer.put("x0", x0, step)
        if step in self.settings.checkpoints:
            buffer.put("checkpoint_sample", x, self.settings.checkpoints.index(step))
        return cast("Tensor", x0)

    @contextmanager
    def _abandoned_on_error(self) -> Iterator[None]:
        """Leave out a batch of which something is refused, so that the next one works.

        What was said of it holds for the next one, until something else is said: it may be the
        same batch again. One that is whole stays, where the next one was refused.
        """
        try:
            yield
        except BaseException:
            if self._end is None:
                facts = self._facts
                self.discard()
                self._facts, self._left_over = facts, True
            raise

    @property
    def _done(self) -> int:
        """Steps of the batch that was begun."""
        return len(self.levels.present)

    def _refuse_longer(self) -> None:
        """Refuse a loop that goes on where its batch should be over."""
        self.discard()
        raise InputError(
            f"the loop goes on after the {self.steps} steps that this recorder was made for (one "
            "store holds one schedule): nothing of this batch is recorded; give steps= the "
            "loop's own number"
        )

    def discard(self) -> None:
        """Abandon the batch that was begun; the next `step` begins anew.

        Batches that are complete stay.
        """
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self.session.background.give_back(buffer)
        self._end, self._facts, self._left_over = None, {}, False
        self.levels.discard()
        self.activations.discard()

    def end(self, sample: Any) -> None:
        """Give the sample that came out of the last step, and commit the batch."""
        with self._abandoned_on_error():
            self._check_whole()
            self._end = None  # not the predicted x0, whatever comes
            self._end = as_rows(self.shape, sample, "sample")
            self._commit()

    def commit(self) -> None:
        """Commit a batch that is complete: its end is the predicted x0 of its last step."""
        with self._abandoned_on_error():
            self._check_whole()
            self._commit()

    def _check_whole(self) -> None:
        if self._done != self.steps:
            raise InputError(f"the run ended after {self._done} of {self.steps} steps")

    def close(self, *, quietly: bool = False) -> None:
        """Commit what is complete and wait for the disk.

        Raises
        ------
        InputError
            If a batch is not complete; the ones before it are safe.
        """
        closed, self._closed = self._closed, True
        try:
            if closed or quietly:
                return
            if self._done == self.steps:
                self._commit()
            elif self._done:
                raise InputError(
                    f"the last batch ended after {self._done} of {self.steps} steps: it is not "
                    "recorded"
                )
            self.session.background.drain()
        finally:
            self.session.close(quietly=True)  # again, where that was interrupted
        self.session.warn()

    def _commit(self) -> None:
        buffer, end = self._buffer, self._end
        self._end = None
        assert buffer is not None
        assert end is not None
        buffer.put("sample", end)
        batch_size = self.batch_size or buffer.count
        if self.store is not None:
            self.range.adopt(self.store.spec.attributes)
        image = self._image(end)
        store = self._ensure_store(end, image, batch_size)
        self.batch_size = batch_size
        if self.range.adopt(store.spec.attributes):
            image = self._image(end)
        found, masks = correction_values(self.corrector, buffer.count, tuple(end.shape[1:]))
        more = masks | self.activations.arrays(list(buffer.kept))
        self.activations.finish()
        self.levels.finish()
        self.session.append(buffer, batch_size, self._facts | found, image, more)
        self._buffer, self._facts, self._left_over = None, {}, False

    def _image(self, end: Tensor) -> NDArray[np.uint8] | None:
        """The ends of the runs as images, where they are grey or RGB."""
        if end.ndim != 4 or end.shape[1] not in (1, 3):
            return None
        value_range = self.range.settle(end)
        return pixels_to_image(end, value_range) if "image" in self.settings.fields else None

    def _ensure_store(
        self, end: Tensor, image: NDArray[np.uint8] | None, batch_size: int
    ) -> TrajectoryStore:
        table = self.levels.table()
        facts = {
            "pipeline": "custom",
            "scheduler_class": "custom",
            "prediction_type": table.prediction_type,
            "sigma_data": table.sigma_data,
            "steps": self.steps,
            "versions": versions(),
            **self._provenance,
            **self.range.facts(),
            **facts_of(self.model),
            **correction_facts(self.corrector),
            **self.activations.facts(),
            **self.attributes,
        }
        image_shape = None if image is None else image.shape[1:]
        shape = tuple(end.shape[1:])
        extra = correction_variables(self.corrector, shape)
        values = self.activations.values
        spec = make_spec(self.settings, table, shape, image_shape, facts, extra, activations=values)
        return self.session.ensure(spec, batch_size)
