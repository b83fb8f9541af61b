"""The corrector: a listener of the recorder's tap that detects, and edits what is flagged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.detecting import Watch
from asced_analysis.correction.layout_adapter import arranged_tap
from asced_analysis.correction.lookahead import Network, pipeline_network, wants_network
from asced_analysis.correction.loops import LoopSteps, OpenSteps, SeenTable, loop_table
from asced_analysis.correction.masks import broadcast_to_sample, grow, soften
from asced_analysis.correction.noise import run_noise
from asced_analysis.correction.regions import find_regions, is_found
from asced_analysis.correction.settings import (
    GivenMasks,
    ImageReport,
    correction_settings,
    correction_step,
    growth_of,
    recorded_precision,
    strategy_of,
)
from asced_analysis.correction.strategy import LoopState, Strategy
from asced_analysis.detection.log_snr_grid import TOLERANCE
from asced_recorders.tap.tap import TapListener
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.correction.controls import Control
    from asced_analysis.thresholds.document import Thresholds
    from asced_recorders.tap.schedulers import StepTable
    from asced_recorders.tap.tap import StepEvent

    class Monitor(Protocol):
        """What a corrector tells of its steps."""

        def after_step(self, event: StepEvent, sample: Tensor, corrector: Corrector) -> None:
            """See a step that was taken, and the sample that goes on."""


__all__ = ["Corrector", "ImageReport"]

LOOKED_AT = 0.24  # of the steps: where abnormal dynamics begin in the paper


class Corrector(TapListener):
    """Detect artifacts while sampling and correct them, on any pipeline the recorder supports.

    Parameters
    ----------
    thresholds : Thresholds or None
        Detector, level, ``T_c``, strategy. None: masks are given by `assign`.
    strategy : str or Strategy, optional
        Overrides the thresholds' own; ``ttc`` where neither says.
    control : {"shuffled", "foreground", "everywhere"}, optional
        Correct at the wrong place, to learn what the mask is worth.
    seed : int
        Of the correction's noise, which is independent of the sampler's.
    step : int, optional
        ``T_c`` as a step, in place of the thresholds' log-SNR.
    grow : int, optional
        Pixels by which the mask is grown, in place of the thresholds' fraction.
    soft : int
        Pixels over which the mask's edge fades.
    dtype : {"float16", "float32"}, optional
        Precision in which runs of this model are recorded, to which the loop rounds what it looks
        at; by default that of the runs that the thresholds were calibrated on.
    schedule : (alphas, sigmas), optional
        Noise levels of a loop of one's own that hands its steps to `step`, noisy end first.
    network : callable, optional
        For learnt thresholds that ask the model once more: ``network(sample, table, step)`` gives
        predicted x0. `attach` takes the pipeline's own where none is given.
    monitor : asced_analysis.monitoring.Monitor, optional
        Told of every step, and of the report. With strategy ``none`` it makes the corrector look
        without editing.
    **parameters
        Of the strategy.

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

    def __init__(
        self,
        thresholds: Thresholds | None,
        *,
        strategy: str | Strategy | None = None,
        control: Control | None = None,
        seed: int | None = None,
        step: int | None = None,
        grow: int | None = None,
        soft: int = 0,
        network: Network | None = None,
        dtype: str | None = None,
        schedule: tuple[Sequence[float], Sequence[float]] | None = None,
        monitor: Monitor | None = None,
        **parameters: Any,
    ) -> None:
        own = correction_settings(thresholds)
        self.thresholds = thresholds
        self.strategy = strategy_of(thresholds, strategy, parameters)
        if not self.strategy.in_loop:
            raise InputError(
                f"{self.strategy.name} samples a run more than once, which a corrector in the loop "
                "cannot do: use `asced replay`, or a strategy of one pass, such as renoise"
            )
        if control is not None and self.strategy.region != "mask":
            raise InputError(
                f"{self.strategy.title} does not edit the detector's mask, so that there is "
                "nothing to control in the loop: `asced evaluate` has the controls"
            )
        self.control = control
        self.seed = int(own.get("seed", 0)) if seed is None else seed
        self.step_given = step
        self.grow, self.soft = grow, soft
        self.network = network
        self.monitor = monitor
        self.recorded = recorded_precision(thresholds, dtype)
        self.report: list[ImageReport] = []
        self._given: GivenMasks | None = None
        self._runs: NDArray[np.int64] | None = None
        self._images = 0
        self._edit_at: int | None = None
        self._loop: LoopSteps | OpenSteps = (
            OpenSteps(self) if schedule is None else LoopSteps(self, self._table(*schedule))
        )
        self._groups: Sequence[Any] | NDArray[Any] | None = None
        self._arguments: dict[str, Any] = {}
        self._x0_given: dict[int, Tensor] = {}
        self._continuing = False

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Corrector:
        """Read thresholds and make a corrector of them; options as for the class."""
        from asced_analysis.thresholds.document import Thresholds

        return cls(Thresholds.load(path), **options)

    @contextmanager
    def attach(self, pipeline: Any) -> Iterator[Corrector]:
        """Correct every call of a pipeline inside the ``with``; it is left as it was."""
        before = self.network
        if before is None and wants_network(self.thresholds):
            self.network = pipeline_network(pipeline)
        try:
            grouped = self.thresholds is not None and bool(self.thresholds.groups)
            with arranged_tap(pipeline, self, self._called if grouped else None):
                yield self
        finally:
            self.network = before

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
        self._runs = np.asarray(runs, np.int64)
        self._x0_given = dict(x0 or {})
        self._groups = groups
        self._given = None
        if masks is not None:
            count = len(masks)
            known = np.asarray(masks.any((1, 2)) if flagged is None else flagged, np.bool_)
            values = np.full(count, np.nan) if scores is None else np.asarray(scores, np.float64)
            self._given = GivenMasks(
                np.asarray(masks, np.bool_), known, values, first_flagged, window
            )

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
        return self._loop(
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

    # ---- what a loop without a schedule asks

    @property
    def known_sampler(self) -> str:
        """The sampler that thresholds were calibrated with."""
        known = None if self.thresholds is None else self.thresholds.fingerprint["scheduler_class"]
        return "custom" if known is None else str(known)

    def _table(self, alpha: Sequence[float], sigma: Sequence[float]) -> StepTable:
        """Table of a loop's own schedule."""
        return loop_table(alpha, sigma, scheduler_class=self.known_sampler)

    def is_due(self, step: int, log_snr: float) -> bool:
        """Whether the sample entering this step is the one to edit; steps come in order."""
        if self._edit_at is None and self.thresholds is None and self.step_given is None:
            raise InputError("a corrector without thresholds needs step=..., where to edit")
        if self.step_given is not None:
            due = step == self.step_given
        else:
            due = log_snr >= float(correction_settings(self.thresholds)["log_snr"]) - TOLERANCE
        if not due:
            return False
        if self.strategy.streams_masks or self.strategy.edited_steps(step, 10**6) != [step]:
            raise InputError(
                f"{self.strategy.title} acts at more steps than T_c, for which the whole schedule "
                "must be known: Corrector(..., schedule=(alphas, sigmas))"
            )
        self._edit_at = step
        return True

    def refuse_late(self, steps: int, log_snr: float) -> None:
        """Say that a loop ended before the step that was to be edited."""
        where = (
            f"step {self.step_given}"
            if self.step_given is not None
            else f"log-SNR {float(correction_settings(self.thresholds)['log_snr']):.3g}"
        )
        raise InputError(
            f"the loop ended after {steps} steps at log-SNR {log_snr:.3g}, before the correction "
            f"at {where}: nothing was detected or corrected"
        )

    def __repr__(self) -> str:
        """Short."""
        flagged = sum(one.flagged for one in self.report)
        return (
            f"Corrector({self.strategy.title}, {flagged} of {len(self.report)} images of the last "
            "call flagged)"
        )

    def target(self, table: StepTable) -> int:
        """``T_c`` on the steps of a sampler."""
        if isinstance(table, SeenTable) and self._edit_at is not None:
            return self._edit_at
        return (
            correction_step(self.thresholds, table) if self.step_given is None else self.step_given
        )

    def growth(self, shape: tuple[int, ...]) -> int:
        """Pixels by which a mask of this shape is grown."""
        return growth_of(self.thresholds, self.grow, shape)

    # ---- the tap's calls

    def begin(self, table: StepTable) -> None:
        """Prepare for one call of the pipeline."""
        if self._continuing:
            self._continuing = False
            return
        self.report = []  # of one call
        self._watch = self._make_watch(table)
        target = self.target(table)
        window = (min(round(LOOKED_AT * table.steps), target - 1), target - 1)
        if self._watch is not None:
            window = self._watch.window
        elif self._given is not None and self._given.window is not None:
            window = self._given.window
        if not 1 <= target < table.steps:
            raise InputError(
                f"T_c is step {target}: the sample entering it can only be edited for steps 1 to "
                f"{table.steps - 1}"
            )
        self.strategy.check(table, target)
        if self._watch is not None:
            window = (window[0], min(window[1], target - 1))
            if window[0] > window[1]:
                raise InputError(
                    f"the detector begins to look at step {window[0]}, but the correction edits "
                    f"the sample entering step {target}: choose a later T_c"
                )
            self._watch.check(target)
        self._state = LoopState(
            correction_step=target, window=window, noise=self._noise, recorded=self.recorded
        )
        self._batch: NDArray[np.int64] | None = None
        self._whole_mask: Tensor | None = None

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Look at a step; clip its score where the strategy does so."""
        state = self._state
        if self._batch is None:
            self._meet(event)
        if event.step < state.correction_step:
            self._reveal(event.step)
            if self._is_kept(event.step):
                state.x0[event.step] = event.x0.to(self.recorded)
            if self._watch is not None and event.step <= state.window[1]:
                self._watch.update(event)
                last = event.step == state.window[1]
                if last or (self.strategy.streams_masks and event.step >= state.window[0]):
                    self._find(event, last=last)
        return self.strategy.before_step(event, state)

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Edit the sample that enters the next step where the strategy does so."""
        edited = self._edit(event, next_sample)
        if self.monitor is not None:
            self.monitor.after_step(event, next_sample if edited is None else edited, self)
        return edited

    def _edit(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        if self._state.mask is None or not self._any:
            return None
        if event.step + 1 == self._state.correction_step and is_found(self.strategy.region):
            self._look_for_place(event)
        return self.strategy.after_step(event, next_sample, self._state)

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
        self._meet(event)
        edited = self.after_step(event, sample)
        self._continuing = True
        return sample if edited is None else edited

    # ---- what happens inside

    def _make_watch(self, table: StepTable) -> Watch | None:
        """Make the detector of the thresholds, unless masks are given."""
        self._any = False
        looks = self.strategy.edits or self.monitor is not None
        if self._given is not None or not looks:
            return None
        if self.thresholds is None:
            raise InputError("a corrector without thresholds needs masks: call assign() first")
        return Watch(self.thresholds, table, self.network, self.recorded)

    def _meet(self, event: StepEvent) -> None:
        """Learn the batch's size at its first step, and take up what was given for it."""
        count = len(event.sample)
        runs = self._runs
        self._runs = None
        if runs is not None and len(runs) != count:
            raise InputError(f"{len(runs)} runs were assigned to a batch of {count} images")
        self._batch = np.arange(self._images, self._images + count) if runs is None else runs
        self._images += count
        given, self._given = self._given, None
        groups = self._groups_of(count)
        self._state.x0.update(self._x0_given)
        self._x0_given = {}
        if self._watch is not None:
            self._watch.start(event.sample, groups)
        elif given is not None:
            if len(given.masks) != count:
                raise InputError(f"{len(given.masks)} masks were given for {count} images")
            self._apply(event, given.masks, given.flagged, given.scores)
            if given.first_flagged is not None:
                self._state.first_flagged = torch.as_tensor(given.first_flagged)
                self._whole_mask = self._state.mask

    def _called(self, arguments: dict[str, Any]) -> None:
        """Keep what a pipeline is called with."""
        self._arguments = arguments

    def _groups_of(self, count: int) -> Sequence[Any] | NDArray[Any] | None:
        """Group of each run, as told or as the pipeline was called."""
        groups, self._groups = self._groups, None
        if groups is not None:
            if len(groups) != count:
                raise InputError(f"{len(groups)} groups were given for a batch of {count} images")
            return groups
        if self.thresholds is None or not self.thresholds.groups:
            return None
        from asced_recorders.pipelines.calls import run_facts

        found = run_facts(self._arguments, count, [-1] * count).get(str(self.thresholds.grouped_by))
        return [found] * count if isinstance(found, float) else found

    def _reveal(self, step: int) -> None:
        """Give a mask from outside to a strategy that streams masks no earlier than it was seen."""
        first, mask = self._state.first_flagged, self._whole_mask
        if mask is not None and first is not None and self.strategy.streams_masks:
            seen = (first <= step).to(mask.device).reshape(-1, *[1] * (mask.ndim - 1))
            self._state.mask = mask * seen

    def _is_kept(self, step: int) -> bool:
        """Whether the strategy goes back to the predicted x0 of this step."""
        state, history = self._state, self.strategy.history
        earliest = state.window[0] - 1 if history is None else state.correction_step - history
        return step >= max(0, earliest)

    def _find(self, event: StepEvent, *, last: bool) -> None:
        """Take the detector's result so far as the mask."""
        assert self._watch is not None
        streamed = self.strategy.streams_masks
        if streamed:
            found = self._watch.so_far(event, last=last)
            self._state.first_flagged = self._watch.first_flagged
        else:
            found = self._watch.result(len(event.sample))
        if found is None:
            return
        masks = found.masks
        if self.control is not None and found.flagged.any():
            from asced_analysis.correction.controls import control_masks

            images = event.x0.float().cpu().numpy().reshape(len(masks), -1, *event.x0.shape[-2:])
            masks = control_masks(
                self.control, masks, found.flagged, images, seed=self.seed, runs=self._batch
            )
        self._apply(event, masks, found.flagged, found.scores, report=last)

    def _look_for_place(self, event: StepEvent) -> None:
        """Edit the region that predicted x0 shows instead of the mask, and report it."""
        x0 = event.x0.to(self.recorded).float().cpu().numpy()
        masks = find_regions(self.strategy.region, x0, self._flagged)
        edited = self._set_mask(event, masks)
        self.report[-len(edited) :] = [
            replace(one, mask=mask, changed=float(mask.mean()))
            for one, mask in zip(self.report[-len(edited) :], edited, strict=True)
        ]

    def _apply(
        self,
        event: StepEvent,
        masks: NDArray[np.bool_],
        flagged: NDArray[np.bool_],
        scores: NDArray[np.float64],
        *,
        report: bool = True,
    ) -> None:
        """Bring masks to the sample's device and shape, and report on them."""
        assert self._batch is not None
        self._flagged = flagged
        masks = masks & flagged[:, None, None]
        if self.strategy.region == "everywhere":
            masks = np.broadcast_to(flagged[:, None, None], masks.shape)
        self._any = bool(masks.any() or (is_found(self.strategy.region) and flagged.any()))
        edited = self._set_mask(event, masks)
        if report:
            self.report += [
                ImageReport(
                    run=int(run),
                    flagged=bool(flag),
                    score=float(score),
                    mask=mask,
                    changed=float(mask.mean()),
                )
                for run, flag, score, mask in zip(self._batch, flagged, scores, edited, strict=True)
            ]

    def _set_mask(self, event: StepEvent, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bring masks to the sample's device and shape; what is edited, shape (n, y, x)."""
        weight = torch.as_tensor(np.ascontiguousarray(masks), dtype=torch.float32)
        weight = soften(grow(weight, self.growth(masks.shape[1:])), self.soft)
        self._state.mask = broadcast_to_sample(weight.to(event.sample.device), event.sample)
        return (weight > 0).numpy()

    def _noise(self, like: Tensor, draw: int) -> Tensor:
        """Noise of each run from a generator of its own; drawn only where something is edited."""
        assert self._batch is not None
        assert self._state.mask is not None
        return run_noise(like, self._state.mask, seed=self.seed, runs=self._batch, draw=draw)
