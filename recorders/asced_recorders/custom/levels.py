"""Noise levels as a loop hands them over, step by step: one schedule for all runs of a store."""

from __future__ import annotations

from typing import Any

import numpy as np

from asced_recorders.tap.schedulers import StepTable
from asced_stores.errors import InputError
from asced_stores.format.noise_levels import canonical_prediction_type, log_snr

Level = tuple[float, float, float]  # timestep, alpha, sigma


class GivenLevels:
    """Checks each level against those before it and against the batches before.

    Attributes
    ----------
    churned : bool
        Whether noise is added before some steps: a level may rise a little.
    present : list of tuple
        Timestep, alpha and sigma of the batch that was begun.
    """

    def __init__(self) -> None:
        self.churned = False
        self.present: list[Level] = []
        self._fixed: list[Level] | None = None
        self._kind = ""
        self._sigma_data = 0.5

    def add(
        self, timestep: float, alpha: float, sigma: float, kind: str, sigma_data: float, *, of: int
    ) -> None:
        """Take the level of the next step, of so many.

        Raises
        ------
        InputError
            If it is none, is noisier than the one before, or is not that of the batches before.
        """
        step = len(self.present)
        kind = canonical_prediction_type(kind)
        if not (np.isfinite([timestep, alpha, sigma]).all() and alpha >= 0 and sigma > 0):
            raise InputError(
                f"step {step} has alpha {alpha} and sigma {sigma}: expected numbers, alpha "
                "at least 0 and sigma above 0"
            )
        if self._kind not in ("", kind):
            raise InputError(f"prediction type {kind} in a store of {self._kind}")
        level = (timestep, alpha, sigma)
        if self.present and not _noisier(self.present[0], level):
            raise InputError(
                f"the loop begins anew after {step} of {of} steps: nothing of the batch that was "
                "begun is recorded. Call discard() where an error of the loop is caught; give "
                "steps= the loop's own number; hand the steps over from the noisy end to the clean "
                "one, each once"
            )
        if self._fixed is not None and not np.allclose(level, self._fixed[step], rtol=1e-6):
            raise InputError(
                f"step {step} has timestep, alpha and sigma {level}, in the batches before "
                f"{self._fixed[step]}: one store holds one schedule"
            )
        before = self.present[0 if self.churned else -1] if self.present else None
        if before is not None and _noisier(level, before):
            raise InputError(
                f"step {step} is noisier than the one before: hand the steps over from the "
                "noisy end to the clean one, each once"
            )
        self._kind, self._sigma_data = kind, sigma_data
        self.present.append(level)

    def goes_on(self, alpha: float, sigma: float) -> bool:
        """Whether a level is cleaner than the last one of a batch that should be over."""
        return bool(self.present) and _noisier(self.present[-1], (0.0, alpha, sigma))

    def table(self) -> StepTable:
        """The schedule of a batch that is complete."""
        timestep, alpha, sigma = np.array(self.present, np.float64).T
        return StepTable(
            timestep=timestep,
            alpha=alpha,
            sigma=sigma,
            log_snr=np.asarray(log_snr(alpha, sigma)),
            prediction_type=self._kind,
            sigma_data=self._sigma_data,
            calls=np.arange(len(timestep)),
            editable=np.ones(len(timestep), dtype=bool),
            resumable=False,
            scheduler_class="custom",
        )

    def finish(self) -> None:
        """Hold the batches that follow to the levels of this one."""
        self._fixed, self.present = self.present, []

    def discard(self) -> None:
        """Forget the batch that was begun."""
        self.present = []


def one_number(value: Any, name: str, /) -> float:
    """A noise level as a float: numbers, scalar tensors, or arrays of one and the same number.

    Raises
    ------
    InputError
        If it differs from run to run.
    """
    import torch

    if isinstance(value, (int, float)):
        return float(value)
    flat = torch.as_tensor(value).detach().reshape(-1).double().cpu()
    if not len(flat) or bool((flat != flat[0]).any()):
        raise InputError(f"{name} differs from run to run: all runs of a step share one level")
    return float(flat[0])


def _noisier(one: Level, other: Level) -> bool:
    return one[1] * other[2] < other[1] * one[2]
