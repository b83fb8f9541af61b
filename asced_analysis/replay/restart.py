"""Restart: abandon a run predicted to break, and draw it anew."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.detecting import (
    ActivationListener,
    LoopDetector,
    watched_modules,
)
from asced_analysis.correction.halting import HaltedError
from asced_analysis.correction.noise import noise_seed
from asced_analysis.correction.regions import Region
from asced_analysis.correction.settings import recorded_precision
from asced_analysis.correction.strategy import Passes, Strategy
from asced_analysis.replay.recording import Batch
from asced_analysis.replay.sampling import class_labels, table_of
from asced_recorders.pipelines.sampling import (
    initial_noise,
    run_generators,
    sample_unconditional,
)
from asced_recorders.tap.tap import StepEvent, TapListener
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.replay.jobs import Job
    from asced_recorders.tap.schedulers import StepTable

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Restart(Strategy):
    """A flagged run is abandoned at ``T_c`` and drawn anew from other noise.

    Costs only the steps already taken. Needs thresholds, since every new draw is judged as well;
    only replay can do it.

    Attributes
    ----------
    tries : int
        Most new draws a run may take; the one of the lowest score is finished.
    """

    name = "restart"
    in_loop = False
    judges_draws = True

    tries: int = 3

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.tries < 1:
            raise InputError(f"tries must be at least 1, not {self.tries}")

    @property
    def region(self) -> Region:
        """A new draw is another image altogether."""
        return "everywhere"

    def sample_again(self, job: Job, batch: Batch, masks: NDArray[np.bool_]) -> Passes:
        """Draw flagged runs anew until one is not flagged, or the tries are used up.

        Each try is abandoned once its score is known; of a run whose every try is flagged, the one
        of the lowest score is finished.

        Returns
        -------
        samples : float32 array, shape (n, channel, y, x)
        masks : bool array, shape (n, y, x)
            As given.
        evaluations : float64 array, shape (n,)
            Of the denoiser: of the abandoned first run up to ``T_c``, of every try as far as the
            detector looks, and of the finish of the accepted one, which goes on from there.
            Samplers with solver history or noise of their own cannot go on: they pay for the whole
            run again.
        """
        if job.thresholds is None:
            raise InputError("restart judges every new draw: it needs thresholds, not masks")
        if not job.recording.is_ours(job.pipe):
            raise InputError(
                f"restart draws runs anew in a loop of its own, and {type(job.pipe).__name__} "
                "samples only when it is called: choose renoise, or sample flagged runs again with "
                "other seeds"
            )
        table = table_of(job.pipe, job.recording.steps)
        count = len(batch.runs)
        labels, groups = class_labels(batch), batch.groups(job.thresholds)
        best = np.full(count, np.inf)
        seeds = np.zeros(count, np.int64)
        entering: dict[int, Tensor] = {}
        evaluations = np.full(count, float(job.target))
        pending = np.arange(count)
        for attempt in range(self.tries):
            new = np.array(
                [noise_seed(job.seed, int(batch.runs[i]), 100 + attempt) for i in pending]
            )
            part = None if labels is None else labels[torch.from_numpy(pending)]
            own = None if groups is None else groups[pending]
            judged = _judge_start(job, new, table, part, own)
            evaluations[pending] += judged.steps + job.extra_evaluations
            for place, i in enumerate(pending):
                if judged.scores[place] < best[i] or attempt == 0:
                    best[i], seeds[i] = judged.scores[place], new[place]
                    entering[int(i)] = judged.entering[place]
            pending = pending[judged.flagged]
            if not len(pending):
                break
        if not table.resumable:
            return _sample_seeds(job, seeds, labels), masks, evaluations + table.steps
        finished = sample_unconditional(
            job.pipe,
            x_init=None,
            x_start=torch.stack([entering[i] for i in range(count)]),
            start=judged.steps,
            steps=table.steps,
            labels=labels,
        )
        return finished.cpu().numpy(), masks, evaluations + (table.steps - judged.steps)


@dataclass(frozen=True)
class _Judged:
    """New draws as far as they were sampled.

    Attributes
    ----------
    scores, flagged : arrays, shape (n,)
    entering : Tensor, shape (n, channel, y, x)
        Samples entering step `steps`.
    steps : int
        Taken.
    """

    scores: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    entering: Tensor
    steps: int


class _Watch(ActivationListener):
    """Detect, and stop once the window is complete."""

    def __init__(self, detector: LoopDetector, last: int, groups: NDArray[Any] | None) -> None:
        self.detector, self.last, self.groups = detector, last, groups
        self.entering: Tensor | None = None

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Take in one step."""
        if event.step == 0:
            self.detector.start(event.sample, self.groups)
        self.detector.update(event)
        return None

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Keep what enters the next step, and abandon the batch, after the last of interest."""
        if event.step >= self.last:
            self.entering = next_sample.float()
            raise HaltedError
        return None


def _judge_start(
    job: Job,
    seeds: NDArray[np.int64],
    table: StepTable,
    labels: Tensor | None,
    groups: NDArray[Any] | None,
) -> _Judged:
    """Scores and flags of new draws, sampled only as far as the detector looks."""
    assert job.thresholds is not None
    dtype = recorded_precision(None, job.recording.spec.dtype)
    detector = LoopDetector(job.thresholds, table, job.network, dtype)
    watch = _Watch(detector, min(detector.window[1], job.target - 1), groups)
    modules = watched_modules(job.pipe, job.thresholds)
    with suppress(HaltedError), modules as watch.activations:
        detector.activations = watch.activations
        _sample_seeds(job, seeds, labels, watch)
    found = detector.result()
    assert watch.entering is not None
    return _Judged(
        np.asarray(found.scores, np.float64), found.flagged, watch.entering, watch.last + 1
    )


def _sample_seeds(
    job: Job,
    seeds: NDArray[np.int64],
    labels: Tensor | None,
    listener: TapListener | None = None,
) -> Samples:
    """Sample new runs of these seeds."""
    steps = job.recording.steps
    job.pipe.scheduler.set_timesteps(steps)
    generators = run_generators([int(seed) for seed in seeds])
    x_init = initial_noise(job.pipe, generators)
    out = sample_unconditional(
        job.pipe,
        x_init=x_init,
        steps=steps,
        generators=generators,
        listener=listener,
        labels=labels,
    )
    return out.cpu().numpy()


STRATEGY = Restart
