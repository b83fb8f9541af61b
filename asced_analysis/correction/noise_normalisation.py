"""NoiseNormalisation: the noise of a flagged run is brought to the energy that the schedule names.

A deterministic sampler carries the energy of its starting noise to the end. Where a sample has few
values that energy differs from run to run (2.2 % for 1 x 32 x 32), and runs that have much of it
break far more often (docs/truth.md). It draws nothing and changes no
noise but its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from asced_analysis.correction.regions import Region
from asced_analysis.correction.strategy import LoopState, Strategy, blend
from asced_recorders.tap.schedulers import StepTable
from asced_recorders.tap.tap import StepEvent, Tap, TapListener
from asced_stores.errors import InputError


def normalise_noise(noise: Tensor, *, target: float = 1.0) -> Tensor:
    """Scale each run's noise to one root mean square.

    For starts: pass the result as a pipeline's ``latents``, and no run begins with more noise than
    its schedule says.

    Parameters
    ----------
    noise : Tensor, shape (run, ...)
        In units of sigma.
    target : float
        Root mean square asked for.

    Returns
    -------
    Tensor of the same shape
        A run without any noise is left as it is.

    Examples
    --------
    >>> import torch
    >>> from asced_analysis.correction import normalise_noise
    >>> start = normalise_noise(torch.randn(2, 1, 32, 32))
    >>> start.square().mean((1, 2, 3)).round(decimals=4)
    tensor([1., 1.])
    """
    energy = noise.float().square().mean(tuple(range(1, noise.ndim)), keepdim=True).sqrt()
    factor = (target / energy).where(energy > 0, energy.new_ones(()))
    return (noise * factor).to(noise.dtype)


def normalise_sample(
    sample: Tensor, signal: Tensor, sigma: float, *, target: float = 1.0
) -> Tensor:
    """Scale what of a sample is not signal to `target` times sigma.

    Parameters
    ----------
    sample, signal : Tensor, shape (run, ...)
        The sample, and alpha times its predicted x0.
    sigma, target : float
    """
    if sigma == 0:
        return sample
    return signal + sigma * normalise_noise((sample - signal) / sigma, target=target)


@dataclass(frozen=True)
class NoiseNormalisation(Strategy):
    """Bring the noise of a flagged run to the schedule's energy, once, at ``T_c``.

    Attributes
    ----------
    target : float
        Root mean square of the noise afterwards, in units of sigma. Below 1 images come out
        smoother, above 1 busier.
    """

    name = "noise_normalisation"

    target: float = 1.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not 0.5 <= self.target <= 2:
            raise InputError(f"target is a root mean square of about 1, not {self.target}")

    @property
    def region(self) -> Region:
        """The energy is that of the whole run."""
        return "everywhere"

    @property
    def history(self) -> int | None:
        """Predicted x0 of the step before ``T_c``, as it is recorded."""
        return 1

    def edited_steps(self, correction_step: int, steps: int) -> list[int]:
        """``T_c``."""
        return [correction_step]

    def after_step(self, event: StepEvent, sample: Tensor, state: LoopState) -> Tensor | None:
        """Scale what of the sample entering ``T_c`` is not predicted x0."""
        if event.step + 1 != state.correction_step or state.mask is None:
            return None
        signal = event.next_alpha * state.x0[event.step].to(sample.dtype)
        edited = normalise_sample(sample, signal, event.next_sigma, target=self.target)
        return blend(sample, edited, state.mask)


class _Normaliser(TapListener):
    """Levels every run once, as early as the sampler lets a sample be edited."""

    def __init__(self, target: float) -> None:
        self.target = target
        self.step = 1

    def begin(self, table: StepTable) -> None:
        self.step = next((k for k in range(1, table.steps) if table.editable[k]), 0)

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        if event.step + 1 != self.step:
            return None
        signal = event.next_alpha * event.x0.to(next_sample.dtype)
        return normalise_sample(next_sample, signal, event.next_sigma, target=self.target)


@contextmanager
def normalised_noise(pipeline: Any, *, target: float = 1.0) -> Iterator[None]:
    """Level the noise of every run right after a pipeline's first step, without any detector.

    For pipelines that draw their own start. Where a pipeline takes ``latents``, pass
    ``normalise_noise(latents)`` instead: the first step has seen the noise as it was drawn, so that
    some of the difference stays.

    Parameters
    ----------
    pipeline : DiffusionPipeline
    target : float
        Root mean square of the noise afterwards, in units of sigma.

    Examples
    --------
    >>> from asced_analysis.correction import normalised_noise
    >>> from asced_recorders import load_pipeline
    >>> pipe = load_pipeline("fashion")
    >>> pipe.set_progress_bar_config(disable=True)
    >>> with normalised_noise(pipe):
    ...     images = pipe(batch_size=2, num_inference_steps=12, output_type="np").images
    """
    with Tap(pipeline, _Normaliser(target)):
        yield


STRATEGY = NoiseNormalisation
