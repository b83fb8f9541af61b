"""Post hoc noise and denoise (as SDEdit does, arXiv 2108.01073): one more pass after sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.masks import broadcast_to_sample, grow, soften
from asced_analysis.correction.noise import noise_seed
from asced_analysis.correction.settings import growth_of
from asced_analysis.correction.strategy import Passes, Strategy, blend
from asced_analysis.replay.recording import Batch
from asced_analysis.replay.sampling import resample_from, schedule_of
from asced_recorders.pipelines.provenance import execution_device
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.replay.jobs import Job


@dataclass(frozen=True)
class NoiseDenoise(Strategy):
    """The finished image of a flagged run is noised to ``T_c`` and denoised again.

    Inside the mask the further pass's result is taken, outside the finished image stays. Costs the
    steps from ``T_c`` on once more; only replay can do it.
    """

    name = "noise_denoise"
    in_loop = False

    def sample_again(self, job: Job, batch: Batch, masks: NDArray[np.bool_]) -> Passes:
        """Noise the finished images to ``T_c``, denoise them, keep the result inside the masks.

        Returns
        -------
        samples : float32 array, shape (n, channel, y, x)
        masks : bool array, shape (n, y, x)
            What was edited: grown, with soft edges.
        evaluations : float64 array, shape (n,)
        """
        table = schedule_of(job.pipe, job.recording)
        if not table.resumable:
            raise InputError(
                f"noise_denoise begins at step {job.target}, and {table.scheduler_class} keeps "
                "solver history or draws noise: choose ddim or euler, or another strategy"
            )
        finished = torch.from_numpy(job.recording.read(batch, "sample"))
        noise = _draw([noise_seed(job.seed, int(run)) for run in batch.runs], finished)
        alpha, sigma = float(table.alpha[job.target]), float(table.sigma[job.target])
        entering = (alpha * finished + sigma * noise).to(execution_device(job.pipe))
        again = resample_from(job.recording, batch, job.pipe, entering, job.target)
        pixels = growth_of(job.thresholds, job.grow, masks.shape[1:])
        weight = soften(grow(torch.from_numpy(masks).float(), pixels), job.soft)
        samples = blend(
            finished, torch.from_numpy(again), broadcast_to_sample(weight, finished)
        ).numpy()
        extra = 0 if job.recording.is_ours(job.pipe) else 1
        paid = np.full(len(samples), float(table.steps - job.target + extra))
        return samples, (weight > 0).numpy(), paid


def _draw(seeds: list[int], like: Tensor) -> Tensor:
    """Standard normal noise, each run from its own seed."""
    rows = [
        torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    return torch.stack(rows)


STRATEGY = NoiseDenoise
