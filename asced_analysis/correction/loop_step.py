"""Steps that a sampling loop of one's own hands over, and the schedule that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asced_analysis.detection.log_snr_grid import TOLERANCE
from asced_recorders.custom.levels import one_number
from asced_recorders.tap.events import StepEvent
from asced_recorders.tap.schedulers import StepTable
from asced_stores.errors import InputError
from asced_stores.format.noise_levels import canonical_prediction_type, eps_and_x0, log_snr


@dataclass(frozen=True)
class PartialStepTable(StepTable):
    """The steps of a loop as far as they are known: those taken, and the next one."""


@dataclass(frozen=True, kw_only=True)
class LoopStep:
    """What a loop says of a step; see `asced_analysis.correction.Corrector.step`.

    Attributes
    ----------
    sample, model_output : torch.Tensor or ndarray, shape (run, ...)
    alpha, sigma : float
        Noise level of `sample`.
    prediction_type : str
    next_sample : torch.Tensor or ndarray
    next_alpha, next_sigma : float
        Its noise level.
    timestep : float, optional
        Not looked at.
    sigma_data : float
    """

    sample: Any
    model_output: Any
    alpha: Any
    sigma: Any
    prediction_type: str = "epsilon"
    next_sample: Any = None
    next_alpha: Any = None
    next_sigma: Any = None
    timestep: Any = None
    sigma_data: float = 0.5

    @property
    def level(self) -> tuple[float, float]:
        """``alpha`` and ``sigma`` of the sample."""
        return level_of(self.alpha, self.sigma)

    @property
    def next_level(self) -> tuple[float, float] | None:
        """Those of the next sample, where they are given."""
        if self.next_alpha is None or self.next_sigma is None:
            return None
        return level_of(self.next_alpha, self.next_sigma)

    def event(self, table: StepTable, step: int) -> StepEvent:
        """The event of this step, as the tap would tell it."""
        x, output = rows(self.sample), rows(self.model_output)
        if x.shape != output.shape:
            raise InputError(
                f"sample has shape {tuple(x.shape)} and model_output {tuple(output.shape)}: they "
                "must be the same"
            )
        event = StepEvent(table, step, x, output, None)
        alpha, sigma = self.level
        event._prediction = eps_and_x0(
            x.float(),
            output.float(),
            alpha=alpha,
            sigma=sigma,
            prediction_type=canonical_prediction_type(self.prediction_type),
            sigma_data=self.sigma_data,
        )
        return event

    def moved(self, said: Tensor, event: StepEvent) -> Tensor:
        """The next sample, had the network said something else.

        Known for deterministic samplers of first order (DDIM, Euler), whose next sample is
        ``alpha' x0 + sigma' eps``: whether it is, is checked.

        Parameters
        ----------
        said : Tensor
            Instead of the model output.
        event : StepEvent
            Of this step.

        Raises
        ------
        InputError
            For every other sampler, and where the next level is not known.
        """
        if self.next_sample is None:
            raise InputError("this step's next sample is to be changed: give next_sample")
        following = self.next_level or (event.next_alpha, event.next_sigma)
        before = following[0] * event.x0 + following[1] * event.eps
        found = rows(self.next_sample)
        scale = max(1.0, float(before.abs().max()))
        if float((found.float() - before).abs().max()) > SAME * scale:
            raise InputError(
                "this correction changes the network's prediction, which needs a sampler whose "
                "next sample is alpha' x0 + sigma' eps (DDIM and Euler without noise of their "
                "own); this one's is not: choose a strategy that edits samples, such as ttc"
            )
        eps, x0 = eps_and_x0(
            event.sample.float(),
            said.float(),
            alpha=self.level[0],
            sigma=self.level[1],
            prediction_type=canonical_prediction_type(self.prediction_type),
            sigma_data=self.sigma_data,
        )
        change = following[0] * (x0 - event.x0) + following[1] * (eps - event.eps)
        moved: Tensor = found + change.to(found.dtype)
        return moved


SAME = 1e-3
"""Share of the largest value by which a sampler's arithmetic may differ from ours."""


def loop_table(
    alpha: Sequence[float],
    sigma: Sequence[float],
    *,
    prediction_type: str = "epsilon",
    kind: type[StepTable] = StepTable,
    scheduler_class: str = "custom",
) -> StepTable:
    """The schedule of a loop, noisy end first.

    Parameters
    ----------
    alpha, sigma : sequence of float
        Noise levels of the samples that the network sees; a last level without noise is left out.
    prediction_type : str
    kind : type
        `PartialStepTable` for a schedule that goes on.
    scheduler_class : str
        What thresholds know the sampler as.
    """
    a, s = np.asarray(alpha, np.float64), np.asarray(sigma, np.float64)
    if a.ndim != 1 or a.shape != s.shape:
        raise InputError(
            f"a schedule is two rows of equal length, alpha and sigma, not {a.shape} and {s.shape}"
        )
    if len(s) and s[-1] == 0:
        a, s = a[:-1], s[:-1]
    levels = np.asarray(log_snr(a, s))
    if not len(a) or not (s > 0).all() or not (np.diff(levels) > 0).all():
        raise InputError(
            "a schedule runs from the noisy end to the clean one, with sigma above 0 at every step "
            "at which the network is evaluated"
        )
    return kind(
        timestep=np.arange(len(a), dtype=np.float64),
        alpha=a,
        sigma=s,
        log_snr=levels,
        prediction_type=prediction_type,
        sigma_data=0.5,
        calls=np.arange(len(a)),
        editable=np.ones(len(a), np.bool_),
        resumable=False,
        scheduler_class=scheduler_class,
    )


def level_of(alpha: Any, sigma: Any) -> tuple[float, float]:
    """A noise level as two floats: numbers, or arrays of one and the same number."""
    return one_number(alpha, "alpha"), one_number(sigma, "sigma")


def same_level(one: float, other: float) -> bool:
    """Whether two log-SNR are the same within the tolerance; both infinite are."""
    return one == other or abs(one - other) <= TOLERANCE


def rows(value: Any) -> Tensor:
    """Samples of a loop as (run, [frame,] channel, y, x)."""
    tensor = torch.as_tensor(value)
    if tensor.ndim == 2:
        return tensor[:, :, None, None]
    return tensor[:, None] if tensor.ndim == 3 else tensor


def like(tensor: Tensor, given: Any) -> Any:
    """A sample as the loop has it: its shape, its kind of array, its precision."""
    if isinstance(given, Tensor):
        return tensor.reshape(given.shape).to(given)
    return tensor.reshape(np.shape(given)).cpu().numpy().astype(np.asarray(given).dtype)
