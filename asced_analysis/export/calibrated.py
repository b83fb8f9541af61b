"""The variant `calibrated` as a torch module for `torch.export`."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from asced_analysis.detection import change_maps
from asced_analysis.detection.blur import gaussian_matrix
from asced_analysis.detection.calibrated import UNSEEN
from asced_analysis.export.maps import MapModule
from asced_analysis.export.registry import Program
from asced_analysis.thresholds.document import Thresholds


class CalibratedDetector(MapModule):
    """Values, kappa and log-SNR of all steps to mask, score and flag.

    Parameters
    ----------
    thresholds : Thresholds
        Of the variant `calibrated`.
    shape : (channel, y, x)
        Of the samples.
    """

    location: torch.Tensor
    scale: torch.Tensor
    blur_y: torch.Tensor
    blur_x: torch.Tensor

    def __init__(self, thresholds: Thresholds, shape: tuple[int, ...]) -> None:
        super().__init__(thresholds, shape)
        rows, columns, levels = self.rows, self.columns, thresholds.levels
        self.opening = thresholds.cleanup.pixels(rows, columns)[1]
        self.given = change_maps.Parameters(**thresholds.parameters, min_width=self.opening)
        self.sigma = self.given.blur * min(rows, columns)
        cells = len(levels.log_snr) - 1
        places = (cells, -1, 1) if np.ndim(levels.location) == 1 else (cells, rows, columns)
        self.keep(
            {
                "location": np.asarray(levels.location).reshape(places),
                "scale": np.asarray(levels.scale).reshape(places),
                "blur_y": gaussian_matrix(rows, self.sigma),
                "blur_x": np.asarray(gaussian_matrix(columns, self.sigma)).T.copy(),
            }
        )

    def forward(
        self, values: torch.Tensor, kappa: torch.Tensor, log_snr: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mask (batch, y, x), score (batch) and flag (batch)."""
        given = self.given
        signal = self.signal(values, kappa)
        at_grid, above = self.at_grid(signal, log_snr)
        change = at_grid[:, 1:] - at_grid[:, :-1]
        size = torch.sqrt(self.small(change * change))
        if given.contrast == "local":
            closing = signal[:, above[1:]]
            mean, square = self.small(closing), self.small(closing * closing)
            size = size / (torch.sqrt((square - mean * mean).clamp(min=0)) + 10 * given.floor)
        robust = (torch.log(size + given.floor) - self.location) / self.scale
        robust = {"high": robust, "low": -robust, "both": robust.abs()}[given.direction]
        seen = (self.grid[1:] > log_snr[0])[None, :, None, None]
        if given.combine == "mean":
            combined = (robust * seen).sum(dim=1) / seen.sum(dim=1)
        else:
            robust = torch.where(seen, robust, torch.full_like(robust, UNSEEN))
            if given.combine == "persistent":
                robust = torch.minimum(robust[:, 1:], robust[:, :-1])
            combined = robust.amax(dim=1)
        opened = self.opened(combined)
        score = opened.amax(dim=(-2, -1))
        return self.enlarged(opened > self.level), score, score > self.level

    def signal(self, values: torch.Tensor, kappa: torch.Tensor) -> torch.Tensor:
        """The signal of every step."""
        if self.given.signal == "predicted_x0":
            return values
        weighted = kappa[:, None, None, None]
        if self.given.signal == "weighted_score":
            return -weighted * values
        change = -weighted[1:] * (values[:, 1:] - values[:, :-1])
        return torch.cat([torch.zeros_like(values[:, :1]), change.cumsum(dim=1)], dim=1)

    def small(self, maps: torch.Tensor) -> torch.Tensor:
        """Pool (batch, cell, channel, y, x) over channels and blocks, then blur."""
        mean = maps.mean(dim=2)
        if self.factor > 1:
            mean = self.pool(mean)
        return self.blur_y @ mean @ self.blur_x if self.sigma > 0 else mean

    def opened(self, combined: torch.Tensor) -> torch.Tensor:
        """Grey opening by a square."""
        window = (min(self.opening, self.rows), min(self.opening, self.columns))
        if window == (1, 1):
            return combined
        eroded = -functional.max_pool2d(-combined[:, None], window, stride=1)
        border = (window[1] - 1, window[1] - 1, window[0] - 1, window[0] - 1)
        padded = functional.pad(eroded, border, value=-float("inf"))
        return functional.max_pool2d(padded, window, stride=1)[:, 0]


def program(thresholds: Thresholds, shape: tuple[int, ...]) -> Program:
    """Values, kappa and log-SNR of all steps; batch and steps are free."""
    grid = thresholds.levels.log_snr
    inputs = (torch.zeros((2, 5, *shape)), torch.ones(5), torch.linspace(grid[0], grid[-1], 5))
    module = CalibratedDetector(thresholds, shape).eval()
    return module, inputs, (("batch", "step"), ("step",), ("step",))


PROGRAM = program
