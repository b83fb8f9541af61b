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


class RunDetector:
    """A detector that is shown the steps of a batch of runs, recorded or sampled just now.

    Parameters
    ----------
    thresholds : Thresholds
    table : StepTable or RecordedTable
        Of the sampler.
    network : callable or None
        For thresholds with a lookahead.
    sampler : (str or None, int or None)
        Scheduler's class and number of steps, which may have a level of their own.

    Attributes
    ----------
    first_flagged : int array, shape (run,), or None
        Step at which `so_far` first found each run flagged, -1 for none.
    """

    def __init__(
        self,
        thresholds: Thresholds,
        table: Any,
        network: Network | None,
        sampler: tuple[str | None, int | None],
    ) -> None:
        from asced_analysis.detection.streaming import make_detector

        self.thresholds = thresholds
        self.detector = make_detector(
            thresholds,
            alpha=table.alpha,
            sigma=table.sigma,
            log_snr=table.log_snr,
            level=thresholds.level_for(*sampler),
            lookahead=None if network is None else partial(predict, network, table),
        )

    @property
    def window(self) -> tuple[int, int]:
        """First and last step that are looked at."""
        return int(self.detector.first_step), int(self.detector.last_step)

    def begin(self, shape: tuple[int, ...], levels: NDArray[np.float64] | None) -> None:
        """Begin with samples of this shape, and the level of each run where groups have some."""
        pictures = picture_shape(shape)
        self._runs = shape[0]
        self._levels = None if levels is None else np.repeat(levels, pictures[0] // shape[0])
        self._state = self.detector.start(pictures)
        self.first_flagged: NDArray[np.int64] | None = None
        self._seen: BatchDetections | None = None

    def look(self, step: int, *, eps: Any, x0: Any, **more: Any) -> None:
        """Take in a step's float32 values, shape (run, [frame,] channel, y, x)."""
        self._state = self.detector.update(
            self._state, step, eps=as_pictures(eps), x0=as_pictures(x0), **more
        )

    def result(self) -> BatchDetections:
        """What is known by now, frames united by run."""
        found = self.detector.result(self._state, self._levels)
        mask, flagged, score = map(_to_numpy, (found.mask, found.flagged, found.score))
        return BatchDetections(*by_run(mask, flagged, score, self._runs))

    def so_far(self, step: int, *, last: bool) -> BatchDetections | None:
        """What was found up to this step, united with what was found before.

        None while it is too early to say.
        """
        try:
            found = self.result()
        except InputError:
            if last:
                raise
            return None  # not one cell of the detector's grid is complete
        masks, flagged = found.masks & found.flagged[:, None, None], found.flagged
        if self.first_flagged is None:
            self.first_flagged = np.full(self._runs, -1)
        self.first_flagged = np.where((self.first_flagged < 0) & flagged, step, self.first_flagged)
        if self._seen is not None:  # what was edited on the way stays in the report
            masks, flagged = masks | self._seen.masks, flagged | self._seen.flagged
        self._seen = BatchDetections(masks, flagged, found.scores)
        return self._seen


class LoopDetector(RunDetector):
    """A detector that is told one step after the other.

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
        self.table, self.dtype = table, dtype
        self.activations = activations if modules_of(thresholds) else None
        # That a loop whose schedule goes on is the thresholds' sampler is taken.
        known = not isinstance(table, PartialStepTable)
        self._sampler = (table.scheduler_class, table.steps) if known else (None, None)
        super().__init__(thresholds, table, network, self._sampler)

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

    def start(self, sample: Tensor, groups: Sequence[Any] | NDArray[Any] | None = None) -> None:
        """Begin with a batch of samples like this one, of these groups."""
        if self.activations is None and (modules := modules_of(self.thresholds)):
            raise InputError(
                f"these thresholds look at activations of {', '.join(modules)}: attach the "
                "corrector to the pipeline, whose modules it then watches"
            )
        self.begin(tuple(sample.shape), self.thresholds.levels_for(groups, *self._sampler))

    def update(self, event: StepEvent) -> None:
        """Take in one step, rounded as it is recorded."""
        watch = self.activations
        more = {} if watch is None else {"activations": watch.since(len(event.sample))}
        eps, x0 = (values.to(self.dtype).float() for values in (event.eps, event.x0))
        self.look(event.step, eps=eps, x0=x0, **more)


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
