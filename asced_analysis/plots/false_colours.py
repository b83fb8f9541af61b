"""False colours: how latents of many channels are looked at without decoding them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SHARE_INSIDE = 0.995
"""Share of the values that a colour scale spans; the rest has its end's colour."""


@dataclass(frozen=True)
class Projection:
    """How latents of many channels become three colours.

    Attributes
    ----------
    mean : array, shape (channel,)
    components : array, shape (3, channel)
    reach : float
        Value at which a colour is full.
    """

    mean: Floats
    components: Floats
    reach: float

    def colours(self, values: npt.NDArray[Any]) -> Floats:
        """Project (..., channel, y, x) to (..., 3, y, x)."""
        centred = values.astype(np.float32) - self.mean[:, None, None]
        mixed: Floats = np.einsum("kc,...cyx->...kyx", self.components, centred)
        return mixed


def false_colours(latent: npt.NDArray[Any]) -> Projection:
    """Three principal components of a latent: what differs most within it gets colours.

    Parameters
    ----------
    latent : array, shape (channel, y, x)
        Predicted x0 at the end of a run.
    """
    flat = np.nan_to_num(latent.astype(np.float64)).reshape(latent.shape[0], -1)
    mean = flat.mean(axis=1)
    _, vectors = np.linalg.eigh(np.cov(flat) if flat.shape[0] > 1 else np.ones((1, 1)))
    chosen = vectors[:, ::-1][:, :3].T
    if len(chosen) < 3:
        chosen = np.concatenate([chosen, np.zeros((3 - len(chosen), latent.shape[0]))])
    # an eigenvector's sign is arbitrary: fixed, so that runs can be compared
    largest = np.take_along_axis(chosen, np.abs(chosen).argmax(axis=1)[:, None], axis=1)
    chosen = chosen * np.where(largest < 0, -1, 1)
    reach = float(np.quantile(np.abs(chosen @ (flat - mean[:, None])), SHARE_INSIDE)) or 1.0
    return Projection(mean.astype(np.float32), chosen.astype(np.float32), reach)
