"""Runs corrected by a strategy from a step on, and seen on the way: what the ideas share.

The edits are the product's own (`renoise`, `ttc`, `noise_normalisation` in a `Corrector`, started
off as `asced_analysis.replay.branch` does). What stands here beside them is what the product does
not offer: predicted x0 of chosen steps, so that several draws are compared at several steps without
sampling them anew (draw j is what `best_of` draws as its j-th), masks and strategies that are not
written to a store, and two edits that are questions and no remedies: a share of fresh noise, and
noise normalised around each place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from asced_analysis.correction import Corrector
from asced_analysis.correction.noise_normalisation import NoiseNormalisation, normalise_sample
from asced_analysis.correction.strategy import LoopState, Strategy, blend
from asced_analysis.realism.pictures import as_pictures as pictures
from asced_analysis.replay.branching import entering_samples
from asced_analysis.replay.recording import Recording
from asced_analysis.replay.sampling import earlier_x0, resample_from
from asced_recorders.tap.tap import ListenerChain, StepEvent, TapListener

AT_ONCE = 64


@dataclass(frozen=True)
class PartlyFresh(Strategy):
    """Put fresh noise in place of a share of a sample's own, keeping its variance.

    Attributes
    ----------
    amount : float
        Between 0, which leaves the sample as it is, and 1, where all noise is fresh; its square is
        the share of the variance.
    """

    name = "partly_fresh"

    amount: float = 1.0

    @property
    def history(self) -> int | None:
        """Predicted x0 of the step before ``T_c``."""
        return 1

    def after_step(self, event: StepEvent, sample: Tensor, state: LoopState) -> Tensor | None:
        """Mix fresh noise into the sample entering ``T_c``."""
        if event.step + 1 != state.correction_step or state.mask is None:
            return None
        signal = event.next_alpha * state.x0[event.step].to(sample.dtype)
        own = (1 - self.amount**2) ** 0.5 * (sample - signal)
        fresh = self.amount * event.next_sigma * state.noise(sample, 0)
        return blend(sample, signal + own + fresh, state.mask)


@dataclass(frozen=True)
class NormalisedAround(NoiseNormalisation):
    """Level the noise around each place as well, then the whole.

    Attributes
    ----------
    blur : float
        Pixels: standard deviation of the Gaussian that says what is around.
    """

    name = "normalised_around"

    blur: float = 4.0

    def after_step(self, event: StepEvent, sample: Tensor, state: LoopState) -> Tensor | None:
        """Scale what of the sample entering ``T_c`` is not predicted x0."""
        if event.step + 1 != state.correction_step or state.mask is None:
            return None
        signal = event.next_alpha * state.x0[event.step].to(sample.dtype)
        noise = (sample - signal) / event.next_sigma
        around = torch.from_numpy(local_energy(noise.cpu().numpy(), self.blur)).to(sample)
        edited = signal + event.next_sigma * noise / around[:, None]
        edited = normalise_sample(edited, signal, event.next_sigma, target=self.target)
        return blend(sample, edited, state.mask)


def local_energy(noise: NDArray[Any], blur: float) -> NDArray[np.float32]:
    """Root mean square around each place, weighted by a Gaussian, (n, y, x)."""
    square = np.mean(noise.astype(np.float32) ** 2, axis=1)
    return np.sqrt(ndimage.gaussian_filter(square, (0, blur, blur), mode="reflect"))


class Seen(TapListener):
    """Keeps predicted x0 of chosen steps."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.x0: dict[int, NDArray[np.float32]] = {}
        self._steps = steps

    def before_step(self, event: StepEvent) -> None:
        """Keep what the model predicts."""
        if event.step in self._steps:
            self.x0[event.step] = event.x0.float().cpu().numpy()


def continued(
    recording: Recording,
    pipe: Any,
    runs: NDArray[np.int64],
    strategy: Strategy,
    step: int,
    masks: NDArray[np.bool_] | None = None,
    *,
    seed: int = 0,
    watch: Sequence[int] = (),
) -> tuple[NDArray[np.float32], dict[int, NDArray[np.float32]]]:
    """Ends of runs that are corrected from a step on.

    Parameters
    ----------
    recording : Recording
    pipe : DiffusionPipeline
    runs : int array, shape (n,)
    strategy : Strategy
        One that edits at ``T_c``, or from there on.
    step : int
        ``T_c``.
    masks : bool array, shape (n, y, x), optional
        Everywhere by default.
    seed : int
        Of the noise, with the run's number.
    watch : sequence of int
        Steps whose predicted x0 is returned.

    Returns
    -------
    ends : float32 array, shape (n, channel, y, x)
    seen : dict of step to float32 array of the same shape
    """
    shape = recording.spec.sample_shape[-2:]
    masks = np.ones((len(runs), *shape), np.bool_) if masks is None else masks
    ends, seen = [], {at: [] for at in watch}
    with recording.threads():
        for begin in range(0, len(runs), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            batch = recording.select(runs[part])
            corrector = Corrector(None, strategy=strategy, seed=seed, step=step)
            corrector.assign(
                batch.runs,
                masks=masks[part],
                flagged=np.ones(len(batch.runs), np.bool_),
                x0=earlier_x0(recording, batch, step, pipe.device),
            )
            look = Seen(watch)
            end = resample_from(
                recording,
                batch,
                pipe,
                entering_samples(recording, batch, pipe, {step})[step],
                step,
                corrector=corrector,
                listener=ListenerChain(corrector, look),
            )
            ends.append(end)
            for at in watch:
                seen[at].append(look.x0[at])
    return pictures(np.concatenate(ends)), {at: np.concatenate(v) for at, v in seen.items()}
