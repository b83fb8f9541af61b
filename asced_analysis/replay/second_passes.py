"""Strategies that sample a flagged run more than once: noise and denoise, restart."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.corrector import noise_seed
from asced_analysis.correction.restart import Restart
from asced_analysis.replay.recording import Batch
from asced_analysis.replay.sampling import class_labels, table_of
from asced_recorders.sampling import initial_noise, run_generators, sample_unconditional
from asced_recorders.tap import StepEvent, TapListener
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.replay.jobs import Job
    from asced_recorders.schedulers import StepTable

Samples = NDArray[np.float32]


def noise_and_denoise(
    job: Job, batch: Batch, masks: NDArray[np.bool_]
) -> tuple[Samples, NDArray[np.float64]]:
    """Noise the finished images to ``T_c``, denoise them, and keep the result inside the masks.

    Returns
    -------
    samples : float32 array, shape (n, channel, y, x)
    evaluations : float64 array, shape (n,)
    """
    table = table_of(job.pipe, job.recording.steps)
    if not table.resumable:
        raise InputError(
            f"noise_denoise begins at step {job.target}, and {table.scheduler_class} keeps solver "
            "history or draws noise: choose ddim or euler, or another strategy"
        )
    finished = torch.from_numpy(job.recording.read(batch, "sample"))
    noise = _draw([noise_seed(job.seed, int(run)) for run in batch.runs], finished)
    alpha, sigma = float(table.alpha[job.target]), float(table.sigma[job.target])
    again = sample_unconditional(
        job.pipe,
        x_init=None,
        x_start=alpha * finished + sigma * noise,
        start=job.target,
        steps=job.recording.steps,
        labels=class_labels(batch),
    ).cpu()
    inside = torch.from_numpy(masks).reshape(
        len(masks), *[1] * (finished.ndim - 3), *masks.shape[1:]
    )
    samples = torch.where(inside, again, finished).numpy()
    return samples, np.full(len(samples), float(table.steps - job.target))


def draw_anew(job: Job, batch: Batch) -> tuple[Samples, NDArray[np.float64]]:
    """Draw flagged runs anew until one is not flagged, or the tries are used up.

    Each try is abandoned once its score is known; of a run whose every try is flagged, the one of
    the lowest score is finished.

    Returns
    -------
    samples : float32 array, shape (n, channel, y, x)
    evaluations : float64 array, shape (n,)
        Of the denoiser, for all tries and the finish of the accepted one; those of the abandoned
        first run up to ``T_c`` count as well.
    """
    assert isinstance(job.strategy, Restart)
    if job.thresholds is None:
        raise InputError("restart judges every new draw: it needs thresholds, not masks")
    table = table_of(job.pipe, job.recording.steps)
    count = len(batch.runs)
    labels = class_labels(batch)
    best = np.full(count, np.inf)
    seeds = np.zeros(count, np.int64)
    evaluations = np.full(count, float(job.target))
    pending = np.arange(count)
    for attempt in range(job.strategy.tries):
        new = np.array([noise_seed(job.seed, int(batch.runs[i]), 100 + attempt) for i in pending])
        part = None if labels is None else labels[torch.from_numpy(pending)]
        scores, flagged = _judge_start(job, new, table, part)
        evaluations[pending] += job.target
        better = scores < best[pending]
        best[pending[better]] = scores[better]
        seeds[pending[better]] = new[better]
        pending = pending[flagged]
        if not len(pending):
            break
    samples = _sample_seeds(job, seeds, labels)
    evaluations += table.steps - job.target
    return samples, evaluations


class _SeenEnoughError(Exception):
    """Enough was seen of a batch."""


class _Watch(TapListener):
    """Detect, and stop once the window is complete."""

    def __init__(self, detector: Any, last: int) -> None:
        self.detector = detector
        self.last = last
        self.state: Any = None

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Take in one step, and abandon the batch after the last one of interest."""
        if self.state is None:
            self.state = self.detector.start(tuple(event.sample.shape))
        self.state = self.detector.update(
            self.state,
            event.step,
            eps=event.eps.to(torch.float16).float(),
            x0=event.x0.to(torch.float16).float(),
        )
        if event.step >= self.last:
            raise _SeenEnoughError
        return None


def _judge_start(
    job: Job, seeds: NDArray[np.int64], table: StepTable, labels: Tensor | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores and flags of new draws, sampled only as far as the detector looks."""
    from asced_analysis.detection.streaming import make_detector

    assert job.thresholds is not None
    detector = make_detector(
        job.thresholds,
        alpha=tuple(map(float, table.alpha)),
        sigma=tuple(map(float, table.sigma)),
        log_snr=tuple(map(float, table.log_snr)),
        level=job.thresholds.level_for(table.scheduler_class, table.steps),
    )
    watch = _Watch(detector, min(detector.last_step, job.target - 1))
    with suppress(_SeenEnoughError):
        _sample_seeds(job, seeds, labels, watch)
    found = detector.result(watch.state)
    return (
        np.asarray(torch.as_tensor(found.score).cpu(), np.float64),
        np.asarray(torch.as_tensor(found.flagged).cpu(), np.bool_),
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


def _draw(seeds: list[int], like: Tensor) -> Tensor:
    """Standard normal noise, each run from its own seed."""
    rows = [
        torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    return torch.stack(rows)
