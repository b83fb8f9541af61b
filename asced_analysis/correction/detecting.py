"""The thresholds' detector over one call of a pipeline: whom and where, as far as is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.frames import as_pictures, by_run, picture_shape
from asced_analysis.correction.loop_step import PartialStepTable
from asced_analysis.correction.strategy import RECORDED
from asced_analysis.detection.log_snr_grid import TOLERANCE
from asced_analysis.detection.registry import VARIANTS, modules_of
from asced_recorders.tap.events import TapListener
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.thresholds.document import Thresholds
    from asced_recorders.pipelines.activations import ActivationWatch
    from asced_recorders.tap.schedulers import StepTable
    from asced_recorders.tap.tap import StepEvent


Network = Callable[[Any, Any, int], Any]
"""``network(sample, table, step)`` to predicted x0; the table names each step's noise level."""


def predict(network: Network, table: Any, sample: Any, step: int) -> Any:
    """Predicted x0 by a network; bound to network and table (`functools.partial`), a lookahead."""
    return network(sample, table, step)


@dataclass(frozen=True)
class BatchDetections:
    """What a detector says of a batch.

    Attributes
    ----------
    masks, flagged, scores : arrays, shapes (n, y, x), (n,) and (n,)
    """

    masks: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    scores: NDArray[np.float64]


class LoopDetector:
    """A detector that is shown one step after the other.

    Parameters
    ----------
    thresholds : Thresholds
    table : StepTable
        Of the sampler.
    network : callable, optional
        For thresholds with a lookahead.
    dtype : torch.dtype
        Precision in which runs are recorded.
    activations : ActivationWatch, optional
        Gives the activations of a step, for thresholds that look at them.
    """

    def __init__(
        self,
        thresholds: Thresholds,
        table: StepTable,
        network: Network | None,
        dtype: torch.dtype = RECORDED,
        activations: ActivationWatch | None = None,
    ) -> None:
        self.thresholds, self.table, self.dtype = thresholds, table, dtype
        self.activations = activations if modules_of(thresholds) else None
        self.levels: NDArray[np.float64] | None = None
        from asced_analysis.detection.streaming import make_detector

        self.detector = make_detector(
            thresholds,
            alpha=table.alpha,
            sigma=table.sigma,
            log_snr=table.log_snr,
            level=thresholds.level_for(*self._sampler),
            lookahead=None if network is None else partial(predict, network, table),
        )
        self.first_flagged: Tensor | None = None
        self._seen: BatchDetections | None = None
        self._state: Any = None

    def check(self, target: int) -> None:
        """Refuse, before anything is sampled, an edit that the detector can't judge in time.

        Raises
        ------
        InputError
            Naming the steps that there are, and what the thresholds need.
        """
        variant = VARIANTS.get(self.thresholds.variant)
        grid = self.thresholds.levels.log_snr
        levels = [float(value) for value in self.table.log_snr]
        last = min(self.window[1], target - 1)
        seen = levels[self.window[0] : last + 1]
        enough = len(seen) > 1
        if variant.on_grid and enough:
            begun = max(grid[0], seen[0]) - TOLERANCE
            inside = [point for point in grid if begun <= point <= seen[-1] + TOLERANCE]
            whole = last == len(levels) - 1  # nothing follows: a short last cell is closed
            enough = whole or len(inside) >= (len(grid) if variant.learnt else 2)
        if not enough:
            raise InputError(
                f"{self.table.scheduler_class} in {self.table.steps} steps has {len(seen)} at "
                f"which the detector can look before the edit at step {target} (log-SNR "
                f"{', '.join(f'{value:.2f}' for value in seen) or 'none'}); these thresholds "
                f"compare log-SNR {grid[0]:.2f} to {grid[-1]:.2f}, calibrated in "
                f"{self.thresholds.window.of_steps} steps. Sample in more steps, correct later "
                "(step=...), or calibrate on runs of so few steps"
            )

    @property
    def _sampler(self) -> tuple[str | None, int | None]:
        """The sampler; of a loop whose schedule goes on, that it is the thresholds' is taken."""
        if isinstance(self.table, PartialStepTable):
            return None, None
        return self.table.scheduler_class, self.table.steps

    @property
    def window(self) -> tuple[int, int]:
        """First and last step that are looked at."""
        return int(self.detector.first_step), int(self.detector.last_step)

    def start(self, sample: Tensor, groups: Sequence[Any] | NDArray[Any] | None = None) -> None:
        """Begin with a batch of samples like this one, of these groups."""
        if self.activations is None and (modules := modules_of(self.thresholds)):
            raise InputError(
                f"these thresholds look at activations of {', '.join(modules)}: attach the "
                "corrector to the pipeline, whose modules it then watches"
            )
        shape = picture_shape(tuple(sample.shape))
        self._state = self.detector.start(shape)
        levels = self.thresholds.levels_for(groups, *self._sampler)
        self.levels = None if levels is None else np.repeat(levels, shape[0] // len(sample))

    def update(self, event: StepEvent) -> None:
        """Take in one step, rounded as it is recorded."""
        watch = self.activations
        more = {} if watch is None else {"activations": watch.since(len(event.sample))}
        self._state = self.detector.update(
            self._state,
            event.step,
            eps=as_pictures(event.eps.to(self.dtype).float()),
            x0=as_pictures(event.x0.to(self.dtype).float()),
            **more,
        )

    def result(self, runs: int) -> BatchDetections:
        """What is known by now, frames united by run."""
        result = self.detector.result(self._state, self.levels)
        masks, flagged, scores = by_run(
            _to_numpy(result.mask), _to_numpy(result.flagged), _to_numpy(result.score), runs
        )
        return BatchDetections(masks, flagged, scores)

    def so_far(self, event: StepEvent, *, last: bool) -> BatchDetections | None:
        """What was found up to this step, united with what was found before.

        Keeps the step at which each run was first flagged. None while it is too early to say.
        """
        try:
            found = self.result(len(event.sample))
        except InputError:
            if last:
                raise
            return None  # not one cell of the detector's grid is complete
        seen = torch.as_tensor(found.flagged)
        if self.first_flagged is None:
            self.first_flagged = torch.full((len(found.flagged),), -1)
        new = (self.first_flagged < 0) & seen
        self.first_flagged = torch.where(new, event.step, self.first_flagged)
        if self._seen is not None:  # what was edited on the way stays in the report
            found = BatchDetections(
                found.masks | self._seen.masks, found.flagged | self._seen.flagged, found.scores
            )
        self._seen = BatchDetections(
            found.masks & found.flagged[:, None, None], found.flagged, found.scores
        )
        return found


class ActivationListener(TapListener):
    """A listener whose detector may look at activations: at those that the recorder keeps.

    Further evaluations of a second-order step, and what listeners ask of a network, are left out.

    Attributes
    ----------
    activations : ActivationWatch or None
        None where no module is watched.
    """

    activations: ActivationWatch | None = None

    def calling(self, inside: bool) -> None:
        """Be blind inside a call of the scheduler, and let go what came before its end."""
        if self.activations is not None:
            self.activations.pause(inside)


@contextmanager
def watched_modules(pipe: Any, thresholds: Thresholds | None) -> Iterator[ActivationWatch | None]:
    """Watch the modules of a pipeline that thresholds look at; None where they look at none.

    Raises
    ------
    InputError
        Where the pipeline has no such module.
    """
    names = modules_of(thresholds)
    if not names:
        yield None
        return
    from asced_recorders.pipelines.activations import ActivationWatch

    if not hasattr(pipe, "components"):
        raise InputError(
            f"these thresholds look at activations of {', '.join(names)}: attach the corrector to "
            "the whole pipeline, not to its scheduler"
        )
    with ActivationWatch(pipe, names) as watch:
        yield watch


def _to_numpy(array: Any) -> NDArray[Any]:
    """Torch tensor or NumPy array to NumPy."""
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
