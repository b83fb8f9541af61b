"""The corrector: a listener of the recorder's tap that detects, and edits what is flagged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.detecting import ActivationListener, watched_modules
from asced_analysis.correction.edit_settings import EditSettings
from asced_analysis.correction.edited_call import Assigned, EditedCall
from asced_analysis.correction.layout_adapter import adapted_tap
from asced_analysis.correction.lookahead import pipeline_network
from asced_analysis.correction.loop_step import LoopStep, loop_table
from asced_analysis.correction.options import CorrectorOptions
from asced_analysis.correction.settings import GivenMasks, ImageReport
from asced_analysis.correction.step_callback import StepCallback
from asced_analysis.correction.stepped_loops import ScheduledLoop, UnscheduledLoop
from asced_analysis.detection.registry import needs_network
from asced_recorders.tap.schedulers import step_table
from asced_stores.options import documents, takes_others

if TYPE_CHECKING:
    from asced_analysis.thresholds.document import Thresholds
    from asced_recorders.tap.schedulers import StepTable
    from asced_recorders.tap.tap import StepEvent


__all__ = ["Corrector", "ImageReport"]


@documents(CorrectorOptions)
class Corrector(EditSettings, ActivationListener):
    """Detect artifacts while sampling and correct them, on any pipeline the recorder supports.

    Parameters
    ----------
    thresholds : Thresholds or None
        Detector, level, ``T_c``, strategy. None: masks are given by `assign`.
    options : CorrectorOptions
        Each by keyword.

    Examples
    --------
    >>> from asced_analysis import Corrector
    >>> from asced_recorders import load_pipeline
    >>> pipe = load_pipeline("fashion")
    >>> pipe.set_progress_bar_config(disable=True)
    >>> corrector = Corrector.from_file("thresholds.json")
    >>> with corrector.attach(pipe):
    ...     images = pipe(batch_size=2, num_inference_steps=12, output_type="np").images
    >>> [report.run for report in corrector.report]
    [0, 1]
    """

    @takes_others(CorrectorOptions)
    def __init__(self, thresholds: Thresholds | None, options: CorrectorOptions) -> None:
        super().__init__(thresholds, options)
        self._assigned = Assigned()
        self._numbers = count()
        self._call: EditedCall | None = None
        self._continuing = False
        self._loop: ScheduledLoop | UnscheduledLoop = (
            UnscheduledLoop(self, self)
            if options.schedule is None
            else ScheduledLoop(
                self, loop_table(*options.schedule, scheduler_class=self.known_sampler)
            )
        )

    @property
    def report(self) -> list[ImageReport]:
        """What was found in each image of the last call, and what was done to it."""
        return [] if self._call is None else self._call.report

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Corrector:
        """Read thresholds and make a corrector of them; options as for the class."""
        from asced_analysis.thresholds.document import Thresholds

        return cls(Thresholds.load(path), **options)

    @contextmanager
    def attach(self, pipeline: Any, arguments: dict[str, Any] | None = None) -> Iterator[Corrector]:
        """Correct every call of a pipeline inside the ``with``; it is left as it was.

        Parameters
        ----------
        pipeline : DiffusionPipeline, ModularPipeline or SchedulerMixin
        arguments : dict, optional
            Of a call that goes on already, by name: this one alone is corrected then.
        """
        before = self.network
        if before is None and needs_network(self.thresholds):
            self.network = pipeline_network(pipeline)
        try:
            grouped = self.thresholds is not None and bool(self.thresholds.groups)
            with (
                watched_modules(pipeline, self.thresholds) as self.activations,
                adapted_tap(pipeline, self, self._called if grouped else None, arguments),
            ):
                yield self
        finally:
            self.network, self.activations = before, None

    def callback(self, pipeline: Any) -> StepCallback:
        """Correct as a ``callback_on_step_end``, where a ``with`` can't be written.

        Parameters
        ----------
        pipeline : DiffusionPipeline
            The one that is to be called.

        Returns
        -------
        StepCallback
            Corrects the calls that it is given to, as `attach` does, and no others.

        Raises
        ------
        InputError
            If the pipeline takes no such callback.

        Examples
        --------
        >>> images = pipe(
        ...     "a lighthouse", callback_on_step_end=corrector.callback(pipe)
        ... ).images  # doctest: +SKIP
        """
        return StepCallback(self.attach, pipeline)

    def assign(
        self,
        runs: Sequence[int] | NDArray[np.int64],
        *,
        masks: NDArray[np.bool_] | None = None,
        flagged: NDArray[np.bool_] | None = None,
        scores: NDArray[np.float64] | None = None,
        first_flagged: NDArray[np.int64] | None = None,
        window: tuple[int, int] | None = None,
        x0: dict[int, Tensor] | None = None,
        groups: Sequence[Any] | NDArray[Any] | None = None,
    ) -> None:
        """Say which runs the next call samples, and give masks and predicted x0 known before.

        Parameters
        ----------
        runs : sequence of int
            Their numbers, which choose the correction's noise.
        masks, flagged, scores : arrays, shapes (n, y, x), (n,) and (n,), optional
            Masks from outside: no detection takes place.
        first_flagged : int array, shape (n,), optional
            First flagged step of each run, -1 where unknown; a strategy that acts before ``T_c``
            leaves a run alone until then.
        window : (int, int), optional
            First and last step that the masks' detector looked at; `LOOKED_AT` by default.
        x0 : dict of step to Tensor, optional
            Predicted x0 of steps before the first that the call takes (a start at a checkpoint).
        groups : sequence, optional
            Label, prompt or the like of each run, where thresholds have levels by it. `attach`
            reads it off the call.
        """
        given = None
        if masks is not None:
            known = np.asarray(masks.any((1, 2)) if flagged is None else flagged, np.bool_)
            values = (
                np.full(len(masks), np.nan) if scores is None else np.asarray(scores, np.float64)
            )
            given = GivenMasks(np.asarray(masks, np.bool_), known, values, first_flagged, window)
        self._assigned = Assigned(np.asarray(runs, np.int64), given, dict(x0 or {}), groups)

    def step(
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
        """Take in one step of a sampling loop of one's own; sample on with what comes back.

        The same call as `asced_recorders.Recorder.custom(...).step`, so that the same lines record,
        detect and correct. A sampler that mixes in what the network said at earlier steps must
        forget that after an edit.

        Parameters
        ----------
        sample : torch.Tensor or ndarray, shape (run, ...)
            What the network saw, ``alpha * x0 + sigma * eps``.
        model_output : torch.Tensor or ndarray, of the shape of `sample`
            After guidance.
        alpha, sigma : float
            Noise level of `sample`.
        prediction_type : str
            One of `asced_stores.format.noise_levels.PREDICTION_TYPES`.
        next_sample : torch.Tensor or ndarray
            What the sampler made of it: the sample that enters the next step.
        next_alpha, next_sigma : float
            Its noise level (1 and 0 after the last step); not needed where the schedule was given.
        timestep : float, optional
            Not looked at; `Recorder.custom` keeps it.
        sigma_data : float
            For EDM's parametrisation.

        Returns
        -------
        torch.Tensor or ndarray
            `next_sample`, or what a correction made of it at ``T_c``.

        Examples
        --------
        >>> import numpy as np
        >>> from asced_analysis import Corrector
        >>> levels = [(0.3, 0.95), (0.7, 0.71), (0.95, 0.3), (1.0, 0.0)]
        >>> corrector = Corrector(None, step=2)
        >>> corrector.assign([0], masks=np.ones((1, 8, 8), bool))
        >>> x = np.random.default_rng(0).standard_normal((1, 1, 8, 8), np.float32)
        >>> for (alpha, sigma), (a, s) in zip(levels, levels[1:]):
        ...     eps = x  # the model
        ...     x = corrector.step(
        ...         sample=x,
        ...         model_output=eps,
        ...         alpha=alpha,
        ...         sigma=sigma,
        ...         next_sample=a * (x - sigma * eps) / alpha + s * eps,
        ...         next_alpha=a,
        ...         next_sigma=s,
        ...     )
        >>> corrector.report[0].changed
        1.0
        """
        taken = LoopStep(
            sample=sample,
            model_output=model_output,
            alpha=alpha,
            sigma=sigma,
            prediction_type=prediction_type,
            next_sample=next_sample,
            next_alpha=next_alpha,
            next_sigma=next_sigma,
            sigma_data=sigma_data,
        )
        return self._loop.take(taken)

    def __repr__(self) -> str:
        """Short."""
        flagged = sum(one.flagged for one in self.report)
        return (
            f"Corrector({self.strategy.title}, {flagged} of {len(self.report)} images of the last "
            "call flagged)"
        )

    # ---- the tap's calls

    def scheduled(self, scheduler: Any) -> None:
        """Refuse steps on which it cannot work before the network is asked."""
        if not self._continuing:
            EditedCall(self, step_table(scheduler), self._assigned, self._numbers).forget()

    def begin(self, table: StepTable) -> None:
        """Prepare for one call of the pipeline."""
        if self._continuing:
            self._continuing = False
            return
        self._call = None  # the report is of one call
        self._call = EditedCall(self, table, self._assigned, self._numbers)

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Look at a step; clip its score where the strategy does so."""
        assert self._call is not None
        if not self._call.has_met:
            self._assigned = Assigned()  # it was for this call
        return self._call.before_step(event)

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Edit the sample that enters the next step where the strategy does so."""
        assert self._call is not None
        edited = self._call.after_step(event, next_sample)
        if self.monitor is not None:
            self.monitor.after_step(
                event,
                next_sample if edited is None else edited,
                self.report,
                edits=self.strategy.edits,
            )
        return edited

    def edit_start(self, event: StepEvent, sample: Tensor) -> Tensor:
        """Edit a sample that a run is to begin with, before its first step is taken.

        Parameters
        ----------
        event : StepEvent
            Of the step before, as far as it was recorded.
        sample : Tensor
            The recorded sample entering step ``event.step + 1``.

        Returns
        -------
        Tensor
            To begin with; the next call of the pipeline goes on from here.
        """
        self.begin(event.table)
        assert self._call is not None
        self._assigned = Assigned()
        self._call.meet(event)
        edited = self.after_step(event, sample)
        self._continuing = True
        return sample if edited is None else edited

    # ---- beside a recorder

    def corrected(self) -> dict[str, NDArray[Any]]:
        """What was found in each run of the last call, and edited."""
        return {
            "flagged": np.array([one.flagged for one in self.report], np.bool_),
            "score": np.array([one.score for one in self.report], np.float64),
            "mask": np.array([one.mask for one in self.report], np.uint8),
        }

    def _called(self, arguments: dict[str, Any]) -> None:
        """Keep what a pipeline is called with."""
        self.arguments = arguments
