"""Edited runs sampled on from a step: what the ideas of `policies.py` share.

`asced_analysis.replay.branch` does the same for one edit a run; here a run may be edited again
later, and its predicted x0 is watched on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.evaluation.judges import pictures
from asced_analysis.replay.branching import entering_samples
from asced_analysis.replay.environment import recorded_threads
from asced_analysis.replay.recording import Recording
from asced_analysis.replay.sampling import resample_from
from asced_recorders.tap import StepEvent, TapListener

AT_ONCE = 64


@dataclass
class Watch(TapListener):
    """Edits again at later steps, and keeps predicted x0 of some steps."""

    masks: Mapping[int, Tensor] = field(default_factory=dict)
    noise: Any = None
    steps: Sequence[int] = ()
    seen: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def before_step(self, event: StepEvent) -> None:
        """Keep what the model predicts."""
        if event.step in self.steps:
            self.seen[event.step] = event.x0.float().numpy()

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Renew a region once more."""
        mask = self.masks.get(event.step + 1)
        if mask is None:
            return None
        noise = self.noise(event.step + 1, next_sample.shape)
        return renewed(next_sample, event.next_alpha * event.x0, event.next_sigma * noise, mask)


def renewed(sample: Tensor, signal: Tensor, noise: Tensor, amount: Tensor) -> Tensor:
    """Put fresh noise in place of a share of a sample's own, keeping its variance.

    Parameters
    ----------
    sample, signal, noise : tensor, shape (n, channel, y, x)
        The sample, its predicted x0 times alpha, fresh noise times sigma.
    amount : bool or float tensor, shape (n, y, x)
        Between 0, which leaves the sample as it is, and 1, where all noise is fresh.
    """
    part = amount.to(sample.dtype)[:, None]
    mixed = signal + (1 - part**2) ** 0.5 * (sample - signal) + part * noise
    return torch.where(part == 0, sample, torch.where(part == 1, signal + noise, mixed)).float()


def continued(
    recording: Recording,
    pipe: Any,
    runs: NDArray[np.int64],
    edits: Mapping[int, NDArray[np.bool_] | NDArray[np.float32]],
    *,
    seed: int = 0,
    watch: Sequence[int] = (),
) -> tuple[NDArray[np.float32], dict[int, NDArray[np.float32]]]:
    """Ends of runs whose predicted x0 is noised afresh inside masks.

    Parameters
    ----------
    recording : Recording
    pipe : DiffusionPipeline
    runs : int array, shape (n,)
    edits : mapping of step to bool or float array, shape (n, y, x)
        How much of the noise is fresh there, 0 to 1 (see `renewed`); a run leaves the recording at
        the earliest step.
    seed : int
        Of the noise, with the run's number and the step.
    watch : sequence of int
        Steps whose predicted x0 is returned.

    Returns
    -------
    ends : float32 array, shape (n, channel, y, x)
    seen : dict of step to float32 array of the same shape
    """
    first = min(edits)
    ends, seen = [], {step: [] for step in watch}
    alpha, sigma = recording.spec.alpha[first], recording.spec.sigma[first]
    with recorded_threads(recording.attributes):
        for begin in range(0, len(runs), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            batch = recording.select(runs[part])

            def noise(step: int, shape: Any, numbers: Any = batch.runs) -> Tensor:
                rows = [
                    np.random.default_rng([77, seed, int(run), step]).standard_normal(shape[1:])
                    for run in numbers
                ]
                return torch.from_numpy(np.stack(rows).astype(np.float32))

            sample = entering_samples(recording, batch, pipe, {first})[first]
            x0 = torch.from_numpy(recording.read(batch, "x0", step=first - 1).astype(np.float32))
            masks = {step: torch.from_numpy(mask[part]) for step, mask in edits.items()}
            fresh = sigma * noise(first, sample.shape)
            start = renewed(sample, alpha * x0, fresh, masks.pop(first))
            listener = Watch(masks, noise, watch)
            ends.append(resample_from(recording, batch, pipe, start, first, listener=listener))
            for step in watch:
                seen[step].append(listener.seen[step])
    return pictures(np.concatenate(ends)), {s: np.concatenate(v) for s, v in seen.items()}


def renewed_by(
    recording: Recording,
    pipe: Any,
    runs: NDArray[np.int64],
    step: int,
    edit: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Ends of runs whose own noise is edited in the sample entering a step.

    Parameters
    ----------
    recording : Recording
    pipe : DiffusionPipeline
    runs : int array, shape (n,)
    step : int
    edit : callable
        The noise (n, channel, y, x) in units of sigma, to what shall stand in its place.
    """
    ends = []
    alpha, sigma = float(recording.spec.alpha[step]), float(recording.spec.sigma[step])
    with recorded_threads(recording.attributes):
        for begin in range(0, len(runs), AT_ONCE):
            batch = recording.select(runs[begin : begin + AT_ONCE])
            sample = entering_samples(recording, batch, pipe, {step})[step].numpy()
            x0 = recording.read(batch, "x0", step=step - 1).astype(np.float32)
            start = alpha * x0 + sigma * edit((sample - alpha * x0) / sigma)
            begun = torch.from_numpy(np.asarray(start, np.float32))
            ends.append(resample_from(recording, batch, pipe, begun, step))
    return pictures(np.concatenate(ends))
