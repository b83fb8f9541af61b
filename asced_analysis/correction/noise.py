"""The correction's own noise: the same for a run whatever its batch, the strategy or ``T_c``."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def noise_seed(seed: int, run: int, draw: int = 0) -> int:
    """Seed of a run's correction noise: unrelated to the seeds of the runs themselves."""
    words = np.random.SeedSequence([seed, run, draw, 0xA5CED]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def run_noise(
    like: Tensor, mask: Tensor, *, seed: int, runs: NDArray[np.int64], draw: int
) -> Tensor:
    """Standard normal noise, each run's from a generator of its own.

    Parameters
    ----------
    like : Tensor, shape (n, ...)
    mask : Tensor, shape (n, ...)
        Nothing is drawn for runs whose mask is empty.
    seed : int
        Of the correction.
    runs : int array, shape (n,)
    draw : int
        Which of the run's streams.
    """
    out = torch.zeros(like.shape, dtype=torch.float32)
    edited = mask.flatten(1).any(1).cpu().numpy()
    for index in np.flatnonzero(edited):
        generator = torch.Generator().manual_seed(noise_seed(seed, int(runs[index]), draw))
        out[index] = torch.randn(like.shape[1:], generator=generator)
    return out.to(device=like.device, dtype=like.dtype)
