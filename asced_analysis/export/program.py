"""The detector as a `torch.export` program: it runs without any Python of ours."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.detection import calibrated
from asced_analysis.detection.blur import gaussian_matrix
from asced_analysis.thresholds.document import Thresholds
from asced_stores.errors import InputError

UNSEEN = calibrated.UNSEEN


def export_program(
    thresholds: Thresholds,
    out: str | PathLike[str],
    *,
    shape: tuple[int, int, int] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a ``.pt2`` program.

    For `calibrated`, its inputs are `values` (batch, step, channel, y, x) float32, all steps of
    the sampler, noisy end first: predicted x0 for the signal `predicted_x0`, eps otherwise;
    `kappa` (step), ``sigma / alpha``; and `log_snr` (step). For `outcome`: `x0` and `eps`
    (batch, step, channel, y, x), `log_snr` (step), and `probed` (batch, channel, y, x) where the
    thresholds want a probe. Batch and step are free. Its outputs are mask (batch, y, x) bool,
    score (batch) float32 and flagged (batch) bool.

    Parameters
    ----------
    thresholds : Thresholds
        Of the variant `calibrated` or `outcome`.
    out : path
    shape : (channel, y, x), optional
        Of the samples; the calibrated shape by default.
    overwrite : bool

    Raises
    ------
    InputError
        Where the variant is another, or the file exists.

    Examples
    --------
    >>> from asced_analysis import Thresholds
    >>> from asced_analysis.export import export_program
    >>> export_program(Thresholds.load("thresholds.json"), "detector.pt2").name
    'detector.pt2'
    """
    import torch

    target = Path(out)
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; choose another name or pass --overwrite")
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist")
    sizes = shape or tuple(thresholds.fingerprint["sample_shape"][-3:])
    batch, steps = torch.export.Dim("batch", min=1), torch.export.Dim("step", min=3, max=100_000)
    inputs: tuple[torch.Tensor, ...]
    free: tuple[dict[int, Any], ...]
    if thresholds.variant == "outcome":
        from asced_analysis.export.outcome_program import OutcomeDetector, example_inputs

        module = OutcomeDetector(thresholds, sizes).eval()
        inputs = example_inputs(module, thresholds.levels.log_snr)
        free = ({0: batch, 1: steps}, {0: batch, 1: steps}, {0: steps}, {0: batch})[: len(inputs)]
    else:
        module = build_module(thresholds, sizes)
        log_snr = torch.linspace(thresholds.levels.log_snr[0], thresholds.levels.log_snr[-1], 5)
        inputs = (torch.zeros((2, 5, *sizes)), torch.ones(5), log_snr)
        free = ({0: batch, 1: steps}, {0: steps}, {0: steps})
    program = torch.export.export(module, inputs, dynamic_shapes=free)
    part = target.with_name(f".{target.name}.part")
    about = {"fingerprint": dict(thresholds.fingerprint), "level": thresholds.levels.level}
    torch.export.save(program, part, extra_files={"thresholds.json": json.dumps(about)})
    part.replace(target)
    return target


def build_module(thresholds: Thresholds, shape: tuple[int, ...]) -> Any:
    """The detector for samples of one shape as a `torch.nn.Module`."""
    import torch

    if thresholds.variant != "calibrated":
        raise InputError(
            f"only calibrated and outcome can be exported as a program, not {thresholds.variant}"
        )
    height, width = int(shape[-2]), int(shape[-1])
    resolution = thresholds.parameters["resolution"]
    rows, columns = calibrated.map_shape(height, width, resolution)
    factor = calibrated.pooling_factor(height, width, resolution)
    opening = thresholds.cleanup.pixels(rows, columns)[1]
    given = calibrated.Parameters(**thresholds.parameters, min_width=opening)
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
            if given.join == "mean":
                joined = (robust * seen).sum(dim=1) / seen.sum(dim=1)
            else:
                robust = torch.where(seen, robust, torch.full_like(robust, UNSEEN))
                if given.join == "persistent":
                    robust = torch.minimum(robust[:, 1:], robust[:, :-1])
                joined = robust.amax(dim=1)
            opened = self.opened(joined)
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

        def opened(self, joined: torch.Tensor) -> torch.Tensor:
            """Grey opening by a square."""
            window = (min(opening, rows), min(opening, columns))
            if window == (1, 1):
                return joined
            pool = torch.nn.functional.max_pool2d
            eroded = -pool(-joined[:, None], window, stride=1)
            border = (window[1] - 1, window[1] - 1, window[0] - 1, window[0] - 1)
            padded = torch.nn.functional.pad(eroded, border, value=-float("inf"))
            return pool(padded, window, stride=1)[:, 0]

    return Detector().eval()
