"""One call of a pipeline, or one pass of a loop, with a correction in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.detecting import LoopDetector
from asced_analysis.correction.masks import broadcast_to_sample, grow, soften
from asced_analysis.correction.noise import run_noise
from asced_analysis.correction.regions import find_regions, is_found
from asced_analysis.correction.settings import GivenMasks, ImageReport
from asced_analysis.correction.strategy import LoopState
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.correction.edit_settings import EditSettings
    from asced_recorders.tap.schedulers import StepTable
    from asced_recorders.tap.tap import StepEvent

LOOKED_AT = 0.24  # of the steps: where abnormal dynamics begin in the paper


@dataclass(frozen=True)
class Assigned:
    """What is said of a call beforehand (`Corrector.assign`).

    Attributes
    ----------
    runs : int array or None
    given : GivenMasks or None
        Masks from outside: no detection takes place.
    x0 : dict of step to Tensor
        Predicted x0 of steps that the call does not take.
    groups : sequence or None
    """

    runs: NDArray[np.int64] | None = None
    given: GivenMasks | None = None
    x0: dict[int, Tensor] = field(default_factory=dict)
    groups: Sequence[Any] | NDArray[Any] | None = None


class EditedCall:
    """Looks at the steps of one call, and edits what is flagged.

    Parameters
    ----------
    settings : EditSettings
        Of the corrector; they hold for the call.
    table : StepTable
        The schedule.
    assigned : Assigned
    numbers : iterator of int
        Counts the runs of the corrector's calls, where none are assigned.

    Raises
    ------
    InputError
        Where the detector or the strategy cannot do its work on these steps.
    """

    def __init__(
        self,
        settings: EditSettings,
        table: StepTable,
        assigned: Assigned,
        numbers: Iterator[int],
    ) -> None:
        self.settings, self.assigned, self._numbers = settings, assigned, numbers
        self.report: list[ImageReport] = []
        self.watch = self._make_watch(table)
        target = settings.target(table)
        window = (min(round(LOOKED_AT * table.steps), target - 1), target - 1)
        if self.watch is not None:
            window = self.watch.window
        elif assigned.given is not None and assigned.given.window is not None:
            window = assigned.given.window
        if not 1 <= target < table.steps:
            raise InputError(
                f"T_c is step {target}: the sample entering it can only be edited for steps 1 to "
                f"{table.steps - 1}"
            )
        settings.strategy.check(table, target)
        if self.watch is not None:
            window = (window[0], min(window[1], target - 1))
            if window[0] > window[1]:
                raise InputError(
                    f"the detector begins to look at step {window[0]}, but the correction edits "
                    f"the sample entering step {target}: choose a later T_c"
                )
            self.watch.check(target)
        self.state = LoopState(
            correction_step=target, window=window, noise=self._noise, recorded=settings.recorded
        )
        self._runs: NDArray[np.int64] | None = None
        self._whole_mask: Tensor | None = None
        self._any = False
        self._flagged: NDArray[np.bool_] = np.zeros(0, np.bool_)

    @property
    def has_met(self) -> bool:
        """Whether the batch is known."""
        return self._runs is not None

    def forget(self) -> None:
        """Let go what the network's modules gave after the look of the call before."""
        if self.watch is not None and self.watch.activations is not None:
            self.watch.activations.forget()

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Look at a step; change what the network said where the strategy does so."""
        state, strategy = self.state, self.settings.strategy
        if not self.has_met:
            self.meet(event)
        if event.step < state.correction_step:
            self._reveal(event.step)
            if self._is_kept(event.step):
                state.x0[event.step] = event.x0.to(self.settings.recorded)
            if self.watch is not None and event.step <= state.window[1]:
                self.watch.update(event)
                last = event.step == state.window[1]
                if last or (strategy.streams_masks and event.step >= state.window[0]):
                    self._find(event, last=last)
        return strategy.before_step(event, state)

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Edit the sample that enters the next step where the strategy does so."""
        strategy = self.settings.strategy
        if self.state.mask is None or not self._any:
            return None
        if event.step + 1 == self.state.correction_step and is_found(strategy.region):
            self._look_for_region(event)
        return strategy.after_step(event, next_sample, self.state)

    def meet(self, event: StepEvent) -> None:
        """Learn the batch's size at its first step, and take up what was assigned to it."""
        count, assigned = len(event.sample), self.assigned
        if assigned.runs is not None and len(assigned.runs) != count:
            raise InputError(
                f"{len(assigned.runs)} runs were assigned to a batch of {count} images"
            )
        counted = np.fromiter(islice(self._numbers, count), np.int64, count)
        self._runs = counted if assigned.runs is None else assigned.runs
        groups = self._groups(count)
        self.state.x0.update(assigned.x0)
        if self.watch is not None:
            self.watch.start(event.sample, groups)
        elif (given := assigned.given) is not None:
            if len(given.masks) != count:
                raise InputError(f"{len(given.masks)} masks were given for {count} images")
            self._apply(event, given.masks, given.flagged, given.scores)
            if given.first_flagged is not None:
                self.state.first_flagged = torch.as_tensor(given.first_flagged)
                self._whole_mask = self.state.mask

    def _make_watch(self, table: StepTable) -> LoopDetector | None:
        """Make the detector of the thresholds, unless masks are given."""
        settings = self.settings
        if self.assigned.given is not None or not settings.looks:
            return None
        if settings.thresholds is None:
            raise InputError("a corrector without thresholds needs masks: call assign() first")
        return LoopDetector(
            settings.thresholds,
            table,
            settings.network,
            settings.recorded,
            settings.activations,
        )

    def _groups(self, count: int) -> Sequence[Any] | NDArray[Any] | None:
        """Group of each run, as assigned or as the pipeline was called."""
        groups, thresholds = self.assigned.groups, self.settings.thresholds
        if groups is not None:
            if len(groups) != count:
                raise InputError(f"{len(groups)} groups were given for a batch of {count} images")
            return groups
        if thresholds is None or not thresholds.groups:
            return None
        from asced_recorders.pipelines.calls import run_facts

        facts = run_facts(self.settings.arguments, count, [-1] * count)
        found = facts.get(str(thresholds.grouped_by))
        return [found] * count if isinstance(found, float) else found

    def _reveal(self, step: int) -> None:
        """Give a mask from outside to a strategy that streams masks no earlier than it was seen."""
        first, mask = self.state.first_flagged, self._whole_mask
        if mask is not None and first is not None and self.settings.strategy.streams_masks:
            seen = (first <= step).to(mask.device).reshape(-1, *[1] * (mask.ndim - 1))
            self.state.mask = mask * seen

    def _is_kept(self, step: int) -> bool:
        """Whether the strategy goes back to the predicted x0 of this step."""
        state, history = self.state, self.settings.strategy.history
        earliest = state.window[0] - 1 if history is None else state.correction_step - history
        return step >= max(0, earliest)

    def _find(self, event: StepEvent, *, last: bool) -> None:
        """Take the detector's result so far as the mask."""
        assert self.watch is not None
        settings = self.settings
        if settings.strategy.streams_masks:
            found = self.watch.so_far(event.step, last=last)
            first = self.watch.first_flagged
            self.state.first_flagged = None if first is None else torch.as_tensor(first)
        else:
            found = self.watch.result()
        if found is None:
            return
        masks = found.masks
        if settings.control is not None and found.flagged.any():
            from asced_analysis.correction.controls import control_masks

            images = event.x0.float().cpu().numpy().reshape(len(masks), -1, *event.x0.shape[-2:])
            masks = control_masks(
                settings.control,
                masks,
                found.flagged,
                images,
                seed=settings.seed,
                runs=self._runs,
            )
        self._apply(event, masks, found.flagged, found.scores, report=last)

    def _look_for_region(self, event: StepEvent) -> None:
        """Edit the region that predicted x0 shows instead of the mask, and report it."""
        x0 = event.x0.to(self.settings.recorded).float().cpu().numpy()
        edited = self._set_mask(
            event, find_regions(self.settings.strategy.region, x0, self._flagged)
        )
        self.report = [
            replace(one, mask=mask, changed=float(mask.mean()))
            for one, mask in zip(self.report, edited, strict=True)
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
        assert self._runs is not None
        self._flagged = flagged
        masks = masks & flagged[:, None, None]
        region = self.settings.strategy.region
        if region == "everywhere":
            masks = np.broadcast_to(flagged[:, None, None], masks.shape)
        self._any = bool(masks.any() or (is_found(region) and flagged.any()))
        edited = self._set_mask(event, masks)
        if report:
            self.report = [
                ImageReport(
                    run=int(run),
                    flagged=bool(flag),
                    score=float(score),
                    mask=mask,
                    changed=float(mask.mean()),
                )
                for run, flag, score, mask in zip(self._runs, flagged, scores, edited, strict=True)
            ]

    def _set_mask(self, event: StepEvent, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bring masks to the sample's device and shape; what is edited, shape (n, y, x)."""
        weight = torch.as_tensor(np.ascontiguousarray(masks), dtype=torch.float32)
        weight = soften(grow(weight, self.settings.growth(masks.shape[1:])), self.settings.soft)
        self.state.mask = broadcast_to_sample(weight.to(event.sample.device), event.sample)
        return (weight > 0).numpy()

    def _noise(self, like: Tensor, draw: int) -> Tensor:
        """Noise of each run from a generator of its own; drawn only where something is edited."""
        assert self._runs is not None
        assert self.state.mask is not None
        return run_noise(like, self.state.mask, seed=self.settings.seed, runs=self._runs, draw=draw)
