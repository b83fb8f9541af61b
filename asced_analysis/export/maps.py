"""What the torch modules of detectors share: a grid of log-SNR, and maps of pooled blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from asced_analysis.detection import change_maps
from asced_analysis.thresholds.document import Thresholds


class MapModule(torch.nn.Module):
    """A detector whose maps are of pooled blocks.

    Parameters
    ----------
    thresholds : Thresholds
    shape : (channel, y, x)
        Of the samples.
    """

    grid: torch.Tensor

    def __init__(self, thresholds: Thresholds, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.channels, self.height, self.width = (int(size) for size in shape)
        resolution = thresholds.parameters["resolution"]
        self.rows, self.columns = change_maps.map_shape(self.height, self.width, resolution)
        self.factor = change_maps.pooling_factor(self.height, self.width, resolution)
        self.level = thresholds.levels.level
        self.keep({"grid": thresholds.levels.log_snr})

    def keep(self, numbers: Mapping[str, Any]) -> None:
        """Keep arrays of numbers as float32 buffers of these names."""
        for name, values in numbers.items():
            self.register_buffer(name, torch.tensor(np.asarray(values), dtype=torch.float32))

    def at_grid(
        self, signal: torch.Tensor, log_snr: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A signal of every step at the grid's points, and the first step at or beyond each."""
        last = log_snr.shape[0] - 1
        above = torch.searchsorted(log_snr, self.grid).clamp(max=last)
        below = (above - 1).clamp(min=0)
        gap = (log_snr[above] - log_snr[below]).clamp(min=1e-12)
        part = ((self.grid - log_snr[below]) / gap).clamp(0, 1)[None, :, None, None, None]
        low, high = signal[:, below], signal[:, above]
        return low + (high - low) * part, above

    def pool(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over square blocks of (batch, channel, y, x); the edge is repeated."""
        right = self.columns * self.factor - self.width
        below = self.rows * self.factor - self.height
        padded = functional.pad(values, (0, right, 0, below), mode="replicate")
        return functional.avg_pool2d(padded, self.factor)

    def enlarged(self, mask: torch.Tensor) -> torch.Tensor:
        """A map's mask (batch, y, x) at the samples' size."""
        big = mask.repeat_interleave(self.factor, dim=-2).repeat_interleave(self.factor, dim=-1)
        return big[:, : self.height, : self.width]
