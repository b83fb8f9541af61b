"""The variant `calibrated` as a torch module for `torch.export`."""

from __future__ import annotations

from typing import Any

import numpy as np

from asced_analysis.detection import calibrated, change_maps
from asced_analysis.detection.blur import gaussian_matrix
from asced_analysis.export.registry import Program
from asced_analysis.thresholds.document import Thresholds

UNSEEN = calibrated.UNSEEN


def build_module(thresholds: Thresholds, shape: tuple[int, ...]) -> Any:
    """The detector for samples of one shape as a `torch.nn.Module`."""
    import torch

    height, width = int(shape[-2]), int(shape[-1])
    resolution = thresholds.parameters["resolution"]
    rows, columns = change_maps.map_shape(height, width, resolution)
    factor = change_maps.pooling_factor(height, width, resolution)
    opening = thresholds.cleanup.pixels(rows, columns)[1]
    given = change_maps.Parameters(**thresholds.parameters, min_width=opening)
    sigma = given.blur * min(rows, columns)
    levels = thresholds.levels
    cells = len(levels.log_snr) - 1

    class Detector(torch.nn.Module):
        """See `export_program`."""

        grid: torch.Tensor
        location: torch.Tensor
        scale: torch.Tensor
        blur_y: torch.Tensor
        blur_x: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            places = (cells, -1, 1) if np.ndim(levels.location) == 1 else (cells, rows, columns)
            for name, numbers in (
                ("grid", np.asarray(levels.log_snr)),
                ("location", np.asarray(levels.location).reshape(places)),
                ("scale", np.asarray(levels.scale).reshape(places)),
                ("blur_y", np.array(gaussian_matrix(rows, sigma))),
                ("blur_x", np.array(gaussian_matrix(columns, sigma)).T.copy()),
            ):
                self.register_buffer(name, torch.tensor(numbers, dtype=torch.float32))

        def forward(
            self, values: torch.Tensor, kappa: torch.Tensor, log_snr: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            signal = self.signal(values, kappa, log_snr)
            at_grid, closing = self.at_grid(signal, log_snr)
            change = at_grid[:, 1:] - at_grid[:, :-1]
            size = torch.sqrt(self.small(change * change))
            if given.contrast == "local":
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
            mask = opened > levels.level
            big = mask.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
            return big[:, :height, :width], score, score > levels.level

        def signal(
            self, values: torch.Tensor, kappa: torch.Tensor, log_snr: torch.Tensor
        ) -> torch.Tensor:
            """The signal of every step."""
            if given.signal == "predicted_x0":
                return values
            weighted = kappa[:, None, None, None]
            if given.signal == "weighted_score":
                return -weighted * values
            change = -weighted[1:] * (values[:, 1:] - values[:, :-1])
            return torch.cat([torch.zeros_like(values[:, :1]), change.cumsum(dim=1)], dim=1)

        def at_grid(
            self, signal: torch.Tensor, log_snr: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            """The signal at grid points, and at the step that completes each cell."""
            last = log_snr.shape[0] - 1
            above = torch.searchsorted(log_snr, self.grid).clamp(max=last)
            below = (above - 1).clamp(min=0)
            gap = (log_snr[above] - log_snr[below]).clamp(min=1e-12)
            part = ((self.grid - log_snr[below]) / gap).clamp(0, 1)[None, :, None, None, None]
            low, high = signal[:, below], signal[:, above]
            return low + (high - low) * part, high[:, 1:]

        def small(self, maps: torch.Tensor) -> torch.Tensor:
            """Pool (batch, cell, channel, y, x) over channels and blocks, then blur."""
            mean = maps.mean(dim=2)
            if factor > 1:
                missing = (0, columns * factor - width, 0, rows * factor - height)
                padded = torch.nn.functional.pad(mean, missing, mode="replicate")
                mean = torch.nn.functional.avg_pool2d(padded, factor)
            return self.blur_y @ mean @ self.blur_x if sigma > 0 else mean

        def opened(self, combined: torch.Tensor) -> torch.Tensor:
            """Grey opening by a square."""
            window = (min(opening, rows), min(opening, columns))
            if window == (1, 1):
                return combined
            pool = torch.nn.functional.max_pool2d
            eroded = -pool(-combined[:, None], window, stride=1)
            border = (window[1] - 1, window[1] - 1, window[0] - 1, window[0] - 1)
            padded = torch.nn.functional.pad(eroded, border, value=-float("inf"))
            return pool(padded, window, stride=1)[:, 0]

    return Detector().eval()


def program(thresholds: Thresholds, shape: tuple[int, ...]) -> Program:
    """Values, kappa and log-SNR of all steps; batch and steps are free."""
    import torch

    grid = thresholds.levels.log_snr
    inputs = (torch.zeros((2, 5, *shape)), torch.ones(5), torch.linspace(grid[0], grid[-1], 5))
    return build_module(thresholds, shape), inputs, (("batch", "step"), ("step",), ("step",))


PROGRAM = program
