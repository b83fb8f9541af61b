"""Strategies that sample a flagged run more than once: one function, dispatched on the strategy.

A strategy of one's own with ``in_loop = False`` registers how it is done::

    @further_passes.register(MyStrategy)
    def sample_again(strategy, job, batch, masks): ...
"""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.strategy import Strategy
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.replay.jobs import Job
    from asced_analysis.replay.recording import Batch

Passes: TypeAlias = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]
"""Samples (n, channel, y, x), what was edited (n, y, x), and evaluations of the denoiser (n,)."""


@singledispatch
def further_passes(strategy: Strategy, job: Job, batch: Batch, masks: NDArray[np.bool_]) -> Passes:
    """Sample flagged runs again.

    Parameters
    ----------
    strategy : Strategy
    job : Job
    batch : Batch
        Flagged runs alone.
    masks : bool array, shape (n, y, x)

    Returns
    -------
    samples : float32 array, shape (n, channel, y, x)
    edited : bool array, shape (n, y, x)
    evaluations : float64 array, shape (n,)
        Of the denoiser.

    Raises
    ------
    InputError
        Where nothing is registered for this strategy.
    """
    raise InputError(
        f"strategy {strategy.name} samples a run more than once, and nothing says how: register a "
        "function with asced_analysis.replay.further_passes.further_passes, or set in_loop = True"
    )
