"""Sampling loops of one's own in the place of a pipeline.

The same call records, detects and corrects, ``x = step(..., next_sample=x)``: it is
`CustomRecorder.step` while recording, `Corrector.step` in deployment, and what `replay` hands to
the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asced_analysis.correction.loop_step import rows
from asced_analysis.correction.stepped_loops import ScheduledLoop
from asced_recorders.tap.events import TapListener
from asced_recorders.tap.schedulers import StepTable
from asced_stores.errors import InputError
from asced_stores.named_functions import named_function

Loop = Callable[[Any, Any], Any]
"""``loop(x_init, step)`` samples from `x_init`, calls `step` at every step, and returns the end."""


@dataclass(frozen=True)
class LoopSampler:
    """A loop of one's own in the place of a pipeline.

    Attributes
    ----------
    loop : callable
        ``loop(x_init, step)``.
    device : torch.device
        Where `x_init` is put.
    """

    loop: Loop
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def components(self) -> dict[str, Any]:
        """None: what a loop is made of is its own affair."""
        return {}

    def sample(
        self,
        x_init: NDArray[np.float32],
        table: StepTable,
        attributes: Mapping[str, Any],
        listener: TapListener | None,
        *,
        scalars: Mapping[str, Any] | None = None,
        runs: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float32]:
        """Sample from recorded starts, and give the ends in the recorded shape.

        Parameters
        ----------
        x_init : float32 array, shape (run, channel, y, x)
        table : StepTable
            The recorded schedule.
        attributes : mapping
            Of the recorded store: what the loop's arrays looked like.
        listener : TapListener or None
        scalars, runs
            See `ScheduledLoop`.
        """
        shape = attributes.get("loop_shape") or x_init.shape[1:]
        start: Any = x_init.reshape(len(x_init), *shape)
        if attributes.get("loop_array") != "numpy":
            start = torch.from_numpy(start.copy()).to(self.device)
        step = ScheduledLoop(listener, table, scalars=scalars, runs=runs)
        with torch.no_grad():
            end = step.finish(self.loop(start, step))
        found = rows(end).detach().float().cpu().numpy()
        if found.size != x_init.size:
            raise InputError(
                f"the loop returned an end of shape {tuple(np.shape(end))} for starts of shape "
                f"{tuple(start.shape)}"
            )
        return np.asarray(found.reshape(x_init.shape), np.float32)


def pipeline_or_loop(pipeline: Any, loop: Loop | str | None) -> Any:
    """The pipeline, or a loop that is given in its place."""
    if loop is None:
        return pipeline
    if pipeline is not None:
        raise InputError("give a pipeline or a loop, not both: the loop samples")
    return LoopSampler(named_function(loop) if isinstance(loop, str) else loop)
