"""Edited runs sampled on from a step: what the ideas of `policies.py` share.

`asced_analysis.replay.branch` does the same for one edit a run; here a run may be edited again
later, and its predicted x0 is watched on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        edited = event.next_alpha * event.x0 + event.next_sigma * noise
        return torch.where(mask[:, None], edited, next_sample)


def continued(
    recording: Recording,
    pipe: Any,
    runs: NDArray[np.int64],
    edits: Mapping[int, NDArray[np.bool_]],
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
    edits : mapping of step to bool array, shape (n, y, x)
        At the earliest step a run leaves the recording.
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
            renewed = alpha * x0 + sigma * noise(first, sample.shape)
            start = torch.where(masks.pop(first)[:, None], renewed.float(), sample)
            listener = Watch(masks, noise, watch)
            ends.append(resample_from(recording, batch, pipe, start, first, listener=listener))
            for step in watch:
                seen[step].append(listener.seen[step])
    return pictures(np.concatenate(ends)), {s: np.concatenate(v) for s, v in seen.items()}
