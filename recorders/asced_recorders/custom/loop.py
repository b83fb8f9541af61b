"""A recorder for a sampling loop of one's own: hand it each step."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from asced_recorders.pipelines.decoding import check_range, measured_range, pixels_to_image
from asced_recorders.pipelines.fingerprint import model_fingerprint
from asced_recorders.pipelines.provenance import device_facts, versions
from asced_recorders.tap.schedulers import StepTable
from asced_recorders.writing.capture import FIELDS, RunBuffer
from asced_recorders.writing.flight import OBSERVED
from asced_recorders.writing.session import Session
from asced_recorders.writing.settings import Settings, make_spec
from asced_stores.backends.opening import url_of
from asced_stores.errors import InputError
from asced_stores.format.noise_levels import canonical_prediction_type, eps_and_x0, log_snr

if TYPE_CHECKING:
    from torch import Tensor

    from asced_recorders.writing.observers import RunObserver
    from asced_stores import TrajectoryStore


logger = logging.getLogger("asced_recorders")


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
    fields, checkpoints, dtype, runs, batch_size, resume, overwrite, storage_options, observers
        As in `Recorder`.
    rank, world_size : int, optional
        Which process this is, of how many.
    attributes : mapping, optional
        Further facts for the store; they stand in for those that are found, where both are given.
    model : torch.nn.Module or DiffusionPipeline, optional
        What the steps come from. A hash of its weights, taken when the first batch is complete, is
        the store's ``model_fingerprint``: thresholds then know this model from others. Give a
        pipeline where other stores of it are recorded with `Recorder`.

    value_range : pair of float, optional
        Between which the data lie; by default -1..1, or what the first batch shows where it ends
        outside. Images are scaled to it, and the store says it.

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

    def __init__(
        self,
        store: str | Path,
        shape: Sequence[int],
        steps: int,
        *,
        fields: Sequence[str] = FIELDS,
        checkpoints: Sequence[int] = (),
        dtype: str = "float16",
        runs: int | None = None,
        batch_size: int | None = None,
        resume: bool = False,
        overwrite: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        model: Any = None,
        value_range: Sequence[float] | None = None,
        observers: Sequence[RunObserver] = (),
    ) -> None:
        from torch import nn

        self.settings = Settings(tuple(fields), tuple(checkpoints), dtype)
        if isinstance(steps, bool) or int(steps) < 1:
            raise InputError(f"steps is {steps}: give a number of at least 1")
        self.shape = tuple(int(n) for n in shape)
        if not 1 <= len(self.shape) <= 5 or min(self.shape) < 1:
            raise InputError(f"shape is {self.shape}: give (channel, y, x)")
        self.steps = int(steps)
        self.settings.check_steps(self.steps)
        self.batch_size = batch_size
        self.attributes = ({"keep": OBSERVED} if observers else {}) | dict(attributes or {})
        if not (model is None or isinstance(model, nn.Module) or hasattr(model, "components")):
            raise InputError(
                f"model is a {type(model).__name__}: give the torch module or pipeline whose "
                "weights are to be known again"
            )
        self.model = model
        self.value_range = None if value_range is None else check_range(value_range)
        self.session = Session(
            url_of(store),
            runs=runs,
            resume=resume,
            overwrite=overwrite,
            rank=rank,
            world_size=world_size,
            storage_options=storage_options,
            observers=observers,
        )
        self._buffer: RunBuffer | None = None
        self._levels: list[tuple[float, float, float]] = []
        self._fixed: list[tuple[float, float, float]] | None = None
        self._kind = ""
        self._done = 0
        self.churned = False  # noise is added before some steps: a level may rise a little
        self._end: Tensor | None = None
        self._facts: dict[str, Any] = {}
        self._provenance: dict[str, Any] = {}
        self._closed = False

    @property
    def store(self) -> TrajectoryStore | None:
        """The store, once the first batch is complete."""
        return self.session.store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(quietly=error is not None)

    def describe(self, **facts: Any) -> None:
        """Say what the runs of the present batch are.

        Parameters
        ----------
        **facts
            ``seed``, ``prompt``, ``label``, ``guidance_scale``: one value a run, or one for all.
        """
        known = ("seed", "prompt", "label", "guidance_scale")
        unknown = sorted(set(facts) - set(known))
        if unknown:
            raise InputError(f"{unknown} are no facts of a run: give some of {', '.join(known)}")
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
            What the sampler makes of it. It comes back as it is, and the last step's is the end of
            the run: so the same call records, and corrects as `Corrector.step`.
        next_alpha, next_sigma : float, optional
            Its noise level; not looked at.

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
        if self._done == self.steps:
            self._refuse_longer(_number(alpha, "alpha"), _number(sigma, "sigma"))
            self._commit()
        kind = canonical_prediction_type(prediction_type)
        alpha, sigma = _number(alpha, "alpha"), _number(sigma, "sigma")
        x, output = self._rows(sample, "sample"), self._rows(model_output, "model_output")
        if x.shape != output.shape:
            raise InputError(
                f"sample has shape {tuple(x.shape)} and model_output {tuple(output.shape)}: "
                "they must be the same"
            )
        told = float(self._done) if timestep is None else _number(timestep, "timestep")
        if self._buffer is not None and x.shape[0] != self._buffer.count:
            raise InputError(
                f"step {self._done} has {x.shape[0]} runs, the steps before {self._buffer.count}"
            )
        self._check_level(told, alpha, sigma, kind)
        if self._buffer is None:
            self._buffer = self._new_buffer(x)
            self._provenance = self._provenance or device_facts(x.device)
            self._provenance |= {
                "loop_shape": [int(n) for n in sample.shape[int(len(sample) == len(x)) :]],
                "loop_array": "torch" if hasattr(sample, "detach") else "numpy",
            }
            self._buffer.put("x_init", x)
        buffer = self._buffer
        eps, x0 = eps_and_x0(
            x, output, alpha=alpha, sigma=sigma, prediction_type=kind, sigma_data=sigma_data
        )
        buffer.put("eps", eps, self._done)
        buffer.put("x0", x0, self._done)
        if self._done in self.settings.checkpoints:
            at = self.settings.checkpoints.index(self._done)
            buffer.put("checkpoint_sample", x, at)
        self._done += 1
        if self._done == self.steps:
            self._end = x0 if next_sample is None else self._rows(next_sample, "next_sample")
        return next_sample

    def _refuse_longer(self, alpha: float, sigma: float) -> None:
        """Refuse a loop that goes on where its batch should be over."""
        if self._levels and alpha * self._levels[-1][2] > self._levels[-1][1] * sigma:
            steps = self.steps
            self.discard()
            raise InputError(
                f"the loop goes on after the {steps} steps that this recorder was made for (one "
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
        self._end, self._facts = None, {}
        self._done, self._levels = 0, []

    def end(self, sample: Any) -> None:
        """Give the sample that came out of the last step, and commit the batch."""
        if self._done != self.steps:
            raise InputError(f"the run ended after {self._done} of {self.steps} steps")
        self._end = self._rows(sample, "sample")
        self._commit()

    def commit(self) -> None:
        """Commit a batch that is complete: its end is the predicted x0 of its last step."""
        if self._done != self.steps:
            raise InputError(f"the run ended after {self._done} of {self.steps} steps")
        self._commit()

    def close(self, *, quietly: bool = False) -> None:
        """Commit what is complete and wait for the disk.

        Raises
        ------
        InputError
            If a batch is not complete; the ones before it are safe.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if quietly:
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
            self.session.close(quietly=True)
        self.session.warn()

    def _commit(self) -> None:
        buffer, end = self._buffer, self._end
        assert buffer is not None
        assert end is not None
        buffer.put("sample", end)
        image = None
        if "image" in self.settings.fields and end.ndim == 4 and end.shape[1] in (1, 3):
            image = pixels_to_image(end, self._range(end))
        batch_size = self.batch_size or buffer.count
        if buffer.count > batch_size:
            raise InputError(
                f"this batch has {buffer.count} runs, and a batch of the store holds {batch_size}: "
                "record the largest batch first, or give batch_size"
            )
        self.batch_size = batch_size
        self._ensure_store(tuple(end.shape[1:]), None if image is None else image.shape[1:])
        batch = self.session.next_batch(batch_size)
        runs = range(batch * batch_size, batch * batch_size + buffer.count)
        self.session.submit(batch, buffer, runs, self._facts, image)
        self._fixed = self._levels
        self._buffer, self._end, self._facts = None, None, {}
        self._done, self._levels = 0, []

    def _range(self, end: Tensor) -> tuple[float, float]:
        """Between which the data lie: as given, as the store says, or as the first batch shows."""
        if self.value_range is None:
            known = None if self.store is None else self.store.spec.attributes.get("value_range")
            self.value_range = check_range(known or measured_range(end))
            if known is None and self.value_range != (-1.0, 1.0):
                low, high = self.value_range
                logger.warning(
                    "the first batch ends between %.3g and %.3g, not in -1..1: images are scaled "
                    "to that range; give value_range=(low, high) where you know it",
                    low,
                    high,
                )
        return self.value_range

    def _ensure_store(self, shape: tuple[int, ...], image_shape: Any) -> None:
        levels = np.array(self._levels)
        alpha, sigma = levels[:, 1], levels[:, 2]
        table = StepTable(
            timestep=levels[:, 0],
            alpha=alpha,
            sigma=sigma,
            log_snr=np.asarray(log_snr(alpha, sigma)),
            prediction_type=self._kind,
            sigma_data=0.5,
            calls=np.arange(self.steps),
            editable=np.ones(self.steps, dtype=bool),
            resumable=False,
            scheduler_class="custom",
        )
        facts = {
            "pipeline": "custom",
            "scheduler_class": "custom",
            "prediction_type": self._kind,
            "steps": self.steps,
            "versions": versions(),
            **self._provenance,
        }
        if self.model is not None:
            facts["model_fingerprint"] = model_fingerprint(self.model)
        if self.value_range not in (None, (-1.0, 1.0)):
            facts["value_range"] = list(self.value_range or ())
        facts |= self.attributes
        assert self.batch_size is not None
        spec = make_spec(self.settings, table, shape, image_shape, facts)
        self.session.ensure(spec, self.batch_size)

    def _check_level(self, timestep: float, alpha: float, sigma: float, kind: str) -> None:
        if not (np.isfinite([timestep, alpha, sigma]).all() and alpha >= 0 and sigma > 0):
            raise InputError(
                f"step {self._done} has alpha {alpha} and sigma {sigma}: expected numbers, alpha "
                "at least 0 and sigma above 0"
            )
        if self._kind not in ("", kind):
            raise InputError(f"prediction type {kind} in a store of {self._kind}")
        self._kind = kind
        level = (timestep, alpha, sigma)
        if self._fixed is not None and not np.allclose(level, self._fixed[self._done], rtol=1e-6):
            raise InputError(
                f"step {self._done} has timestep, alpha and sigma {level}, in the batches before "
                f"{self._fixed[self._done]}: one store holds one schedule"
            )
        before = self._levels[0 if self.churned else -1] if self._levels else None
        if before is not None and alpha * before[2] < before[1] * sigma:
            raise InputError(
                f"step {self._done} is noisier than the one before: hand the steps over from the "
                "noisy end to the clean one, each once"
            )
        self._levels.append(level)

    def _rows(self, value: Any, name: str) -> Tensor:
        """Samples as (run, [frame,] channel, y, x), float32."""
        import torch

        tensor = torch.as_tensor(value).detach()
        shape = self.shape
        if tensor.ndim == len(shape) and len(shape) >= 4 and tuple(tensor.shape) == shape:
            shape = shape[1:]  # the shape was given with the number of runs
        elif tensor.ndim == len(shape) and tuple(tensor.shape) == shape:
            tensor = tensor[None]  # one run, without its dimension
        elif len(shape) >= 4 and tensor.ndim == len(shape) and tensor.shape[1:] == shape[1:]:
            shape = shape[1:]
        if tensor.ndim != len(shape) + 1 or tuple(tensor.shape[1:]) != shape:
            raise InputError(
                f"{name} has shape {tuple(tensor.shape)}: expected (runs, "
                f"{', '.join(map(str, shape))})"
            )
        if len(shape) == 1:
            tensor = tensor[:, :, None, None]
        elif len(shape) == 2:
            tensor = tensor[:, None]
        return tensor.float()

    def _new_buffer(self, x: Tensor) -> RunBuffer:
        settings = self.settings
        key = (
            self.steps,
            len(settings.checkpoints),
            x.shape[0],
            tuple(x.shape[1:]),
            settings.dtype,
            settings.fields,
            x.device.type,
        )
        return self.session.background.take(lambda: RunBuffer(key), key)


def _number(value: Any, name: str) -> float:
    """A noise level as a float: numbers, scalar tensors, or arrays of one and the same number."""
    import torch

    if isinstance(value, (int, float)):
        return float(value)
    flat = torch.as_tensor(value).detach().reshape(-1).double().cpu()
    if not len(flat) or bool((flat != flat[0]).any()):
        raise InputError(f"{name} differs from run to run: all runs of a step share one level")
    return float(flat[0])
