"""Sampling loops of one's own: their steps told to a corrector, and whole loops to sample with.

The same call records, detects and corrects, ``x = step(..., next_sample=x)``: it is
`CustomRecorder.step` while recording, `Corrector.step` in deployment, and what `replay` hands to
the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.named_functions import named_function
from asced_analysis.detection.log_snr_grid import TOLERANCE
from asced_recorders.tap.events import StepEvent, TapListener
from asced_recorders.tap.schedulers import StepTable
from asced_stores.errors import InputError
from asced_stores.format.noise_levels import canonical_prediction_type, eps_and_x0, log_snr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asced_analysis.correction.corrector import Corrector

Loop = Callable[[Any, Any], Any]
"""``loop(x_init, step)`` samples from `x_init`, calls `step` at every step, and returns the end."""


@dataclass(frozen=True)
class SeenTable(StepTable):
    """The steps of a loop as far as they are known: those taken, and the next one."""


def loop_table(
    alpha: Sequence[float],
    sigma: Sequence[float],
    *,
    prediction_type: str = "epsilon",
    kind: type[StepTable] = StepTable,
    scheduler_class: str = "custom",
) -> StepTable:
    """The schedule of a loop, noisy end first.

    Parameters
    ----------
    alpha, sigma : sequence of float
        Noise levels of the samples that the network sees; a last level without noise is left out.
    prediction_type : str
    kind : type
        `SeenTable` for a schedule that goes on.
    scheduler_class : str
        What thresholds know the sampler as.
    """
    a, s = np.asarray(alpha, np.float64), np.asarray(sigma, np.float64)
    if a.ndim != 1 or a.shape != s.shape:
        raise InputError(
            f"a schedule is two rows of equal length, alpha and sigma, not {a.shape} and {s.shape}"
        )
    if len(s) and s[-1] == 0:
        a, s = a[:-1], s[:-1]
    levels = np.asarray(log_snr(a, s))
    if not len(a) or not (s > 0).all() or not (np.diff(levels) > 0).all():
        raise InputError(
            "a schedule runs from the noisy end to the clean one, with sigma above 0 at every step "
            "that the network is asked at"
        )
    return kind(
        timestep=np.arange(len(a), dtype=np.float64),
        alpha=a,
        sigma=s,
        log_snr=levels,
        prediction_type=prediction_type,
        sigma_data=0.5,
        calls=np.arange(len(a)),
        editable=np.ones(len(a), np.bool_),
        resumable=False,
        scheduler_class=scheduler_class,
    )


class LoopSteps:
    """Tells a listener the steps of a loop, as the tap tells those of a scheduler.

    Parameters
    ----------
    listener : TapListener or None
        None: nothing is looked at, and every sample comes back as it is.
    table : StepTable
        The loop's schedule.
    scalars : mapping, optional
        What the runs are: ``seed``, ``prompt``, ``label``; a replay's loop may read them.
    runs : int array, optional
        Their numbers.
    """

    def __init__(
        self,
        listener: TapListener | None,
        table: StepTable,
        *,
        scalars: Mapping[str, Any] | None = None,
        runs: NDArray[np.int64] | None = None,
    ) -> None:
        self.listener, self.table = listener, table
        self.scalars: Mapping[str, Any] = scalars or {}
        self.runs = runs
        self.done = 0
        self.last: Any = None

    @property
    def seeds(self) -> Any:
        """Seed of each run; -1 where it is not known."""
        return self.scalars.get("seed")

    def __call__(
        self,
        *,
        sample: Any,
        model_output: Any,
        alpha: Any,
        sigma: Any,
        prediction_type: str = "epsilon",
        next_sample: Any = None,
        next_alpha: Any = None,
        next_sigma: Any = None,
        timestep: Any = None,
        sigma_data: float = 0.5,
    ) -> Any:
        """Hand over a step; what comes back is to be sampled on. See `Corrector.step`."""
        here = level_of(alpha, sigma)
        if self.done == self.table.steps:
            self.done = 0
        expected = float(self.table.log_snr[self.done])
        if not same_level(float(log_snr(*here)), expected):
            raise InputError(
                f"step {self.done} has log-SNR {float(log_snr(*here)):.5g} where the schedule has "
                f"{expected:.5g}: hand every step over once, noisy end first, on the schedule that "
                "was given (or recorded)"
            )
        self.last = next_sample
        step, self.done = self.done, self.done + 1
        if self.listener is None:
            return next_sample
        if step == 0:
            self.listener.begin(self.table)
        event = event_of(self.table, step, sample, model_output, *here, prediction_type, sigma_data)
        if self.listener.before_step(event) is not None:
            raise InputError(
                "this correction changes what the network said, which a loop has used already when "
                "it hands over a step: choose a strategy that edits samples, such as ttc"
            )
        if next_sample is None:
            return None
        changed = self.listener.after_step(event, rows(next_sample))
        self.last = next_sample if changed is None else like(changed, next_sample)
        return self.last

    def finish(self, end: Any) -> Any:
        """The end of the runs, once the loop has returned."""
        if self.done != self.table.steps:
            raise InputError(
                f"the loop handed over {self.done} of {self.table.steps} recorded steps: call step "
                "at every step, and sample on with what it returns"
            )
        end = self.last if end is None else end
        if end is None:
            raise InputError("the loop returned nothing, and step was not given next_sample")
        return end


class OpenSteps:
    """Steps of a loop whose schedule is not known beforehand, for a corrector.

    What the detector looks at is kept until the next noise level is that of ``T_c``; then the
    sample that enters it is edited.
    """

    def __init__(self, corrector: Corrector) -> None:
        self.corrector = corrector
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.levels: list[tuple[float, float]] = []
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.over = False

    def __call__(
        self,
        *,
        sample: Any,
        model_output: Any,
        alpha: Any,
        sigma: Any,
        prediction_type: str = "epsilon",
        next_sample: Any = None,
        next_alpha: Any = None,
        next_sigma: Any = None,
        timestep: Any = None,
        sigma_data: float = 0.5,
    ) -> Any:
        """Hand over a step; see `Corrector.step`."""
        if next_alpha is None or next_sigma is None:
            raise InputError(
                "the noise level of the next step is not known: give next_alpha and next_sigma, or "
                "the whole schedule beforehand (Corrector(..., schedule=(alphas, sigmas)))"
            )
        here = level_of(alpha, sigma)
        if self.levels and log_snr(*here) <= log_snr(*self.levels[-1]):
            self.clear()
        if self.over:
            return next_sample
        following = level_of(next_alpha, next_sigma)
        x, output = rows(sample), rows(model_output)
        eps, x0 = eps_and_x0(
            x.float(),
            output.float(),
            alpha=here[0],
            sigma=here[1],
            prediction_type=canonical_prediction_type(prediction_type),
            sigma_data=sigma_data,
        )
        dtype = self.corrector.recorded
        self.levels.append(here)
        self.kept.append((eps.to(dtype), x0.to(dtype)))
        if not self.corrector.is_due(len(self.levels), float(log_snr(*following))):
            if following[1] == 0:
                self.corrector.refuse_late(len(self.levels), float(log_snr(*here)))
            return next_sample
        if next_sample is None:
            raise InputError("this step's next sample is to be edited: give next_sample")
        levels = [*self.levels, following]
        table = loop_table(
            [a for a, _ in levels],
            [s for _, s in levels],
            prediction_type=canonical_prediction_type(prediction_type),
            kind=SeenTable,
            scheduler_class=str(self.corrector.known_sampler),
        )
        self.corrector.begin(table)
        for step, (past_eps, past_x0) in enumerate(self.kept):
            event = StepEvent(table, step, x, past_eps, None)
            event._prediction = (past_eps.float(), past_x0.float())
            self.corrector.before_step(event)
        changed = self.corrector.after_step(event, rows(next_sample))
        self.kept, self.over = [], True
        return next_sample if changed is None else like(changed, next_sample)


@dataclass(frozen=True)
class LoopSampler:
    """A loop of one's own in the place of a pipeline.

    Attributes
    ----------
    loop : callable
        ``loop(x_init, step)``.
    device : torch.device
        Where `x_init` is put.
    """

    loop: Loop
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def components(self) -> dict[str, Any]:
        """None: what a loop is made of is its own affair."""
        return {}

    def sample(
        self,
        x_init: NDArray[np.float32],
        table: StepTable,
        attributes: Mapping[str, Any],
        listener: TapListener | None,
        *,
        scalars: Mapping[str, Any] | None = None,
        runs: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float32]:
        """Sample from recorded starts, and give the ends in the recorded shape.

        Parameters
        ----------
        x_init : float32 array, shape (run, channel, y, x)
        table : StepTable
            The recorded schedule.
        attributes : mapping
            Of the recorded store: what the loop's arrays looked like.
        listener : TapListener or None
        scalars, runs
            See `LoopSteps`.
        """
        shape = attributes.get("loop_shape") or x_init.shape[1:]
        start: Any = x_init.reshape(len(x_init), *shape)
        if attributes.get("loop_array") != "numpy":
            start = torch.from_numpy(start.copy()).to(self.device)
        step = LoopSteps(listener, table, scalars=scalars, runs=runs)
        with torch.no_grad():
            end = step.finish(self.loop(start, step))
        found = rows(end).detach().float().cpu().numpy()
        if found.size != x_init.size:
            raise InputError(
                f"the loop returned an end of shape {tuple(np.shape(end))} for starts of shape "
                f"{tuple(start.shape)}"
            )
        return np.asarray(found.reshape(x_init.shape), np.float32)


def in_place_of(pipeline: Any, loop: Loop | str | None) -> Any:
    """The pipeline, or a loop that is given in its place."""
    if loop is None:
        return pipeline
    if pipeline is not None:
        raise InputError("give a pipeline or a loop, not both: the loop samples")
    return LoopSampler(named_function(loop) if isinstance(loop, str) else loop)


def event_of(
    table: StepTable,
    step: int,
    sample: Any,
    model_output: Any,
    alpha: float,
    sigma: float,
    prediction_type: str,
    sigma_data: float,
) -> StepEvent:
    """The event of a step that a loop hands over."""
    x, output = rows(sample), rows(model_output)
    if x.shape != output.shape:
        raise InputError(
            f"sample has shape {tuple(x.shape)} and model_output {tuple(output.shape)}: they must "
            "be the same"
        )
    event = StepEvent(table, step, x, output, None)
    event._prediction = eps_and_x0(
        x.float(),
        output.float(),
        alpha=alpha,
        sigma=sigma,
        prediction_type=canonical_prediction_type(prediction_type),
        sigma_data=sigma_data,
    )
    return event


def level_of(alpha: Any, sigma: Any) -> tuple[float, float]:
    """A noise level as two floats: numbers, or arrays of one and the same number."""
    found = []
    for name, value in (("alpha", alpha), ("sigma", sigma)):
        flat = torch.as_tensor(value).detach().reshape(-1).double().cpu()
        if not len(flat) or bool((flat != flat[0]).any()):
            raise InputError(f"{name} differs from run to run: all runs of a step share one level")
        found.append(float(flat[0]))
    return found[0], found[1]


def same_level(one: float, other: float) -> bool:
    """Whether two log-SNR are the same within the tolerance; both infinite are."""
    return one == other or abs(one - other) <= TOLERANCE


def rows(value: Any) -> Tensor:
    """Samples of a loop as (run, [frame,] channel, y, x)."""
    tensor = torch.as_tensor(value)
    if tensor.ndim == 2:
        return tensor[:, :, None, None]
    return tensor[:, None] if tensor.ndim == 3 else tensor


def like(tensor: Tensor, given: Any) -> Any:
    """A sample as the loop has it: its shape, its kind of array, its precision."""
    if isinstance(given, Tensor):
        return tensor.reshape(given.shape).to(given)
    return tensor.reshape(np.shape(given)).cpu().numpy().astype(np.asarray(given).dtype)
