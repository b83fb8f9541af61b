"""The learnt detector as a torch module for `torch.export`."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from asced_analysis.detection import outcome
from asced_analysis.detection.outcome_network import (
    LIMIT,
    MOST_SNAPSHOT_CHANNELS,
    layers_from_bytes,
    layout_statistics,
    layout_terms,
)
from asced_analysis.export.maps import MapModule
from asced_analysis.export.registry import Program
from asced_analysis.thresholds.document import Thresholds
from asced_stores.errors import InputError


class OutcomeDetector(MapModule):
    """Predicted x0 and eps of all steps, and what a lookahead gave, to mask, score and flag.

    Parameters
    ----------
    thresholds : Thresholds
        Of the variant `outcome`.
    shape : (channel, y, x)
        Of the samples.
    """

    location: torch.Tensor
    scale: torch.Tensor
    coefficients: torch.Tensor
    layout_location: torch.Tensor
    layout_scale: torch.Tensor

    def __init__(self, thresholds: Thresholds, shape: tuple[int, ...]) -> None:
        super().__init__(thresholds, shape)
        given, levels = dict(thresholds.parameters), thresholds.levels
        self.given = outcome.learnt_parameters(given)
        if self.given.modules:
            raise InputError(
                "thresholds that look at activations have no program: they need the network's own "
                "modules. Learn from other inputs, or attach a Corrector to the pipeline"
            )
        self.keep(
            {
                "location": levels.location,
                "scale": levels.scale,
                "coefficients": self.given.coefficients,
                "layout_location": self.given.layout_location,
                "layout_scale": self.given.layout_scale,
            }
        )
        layers = layers_from_bytes(thresholds.weights_bytes())
        learnt = thresholds.fingerprint["sample_shape"][-3:]
        outcome.check_size(self.given, layers, len(levels.location), shape, learnt)
        self.layers = torch.nn.ModuleList()
        for weight, bias in layers:
            outputs, inputs, side, _ = weight.shape
            layer = torch.nn.Conv2d(inputs, outputs, side, padding=side // 2)
            layer.load_state_dict(
                {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
            )
            self.layers.append(layer.requires_grad_(False))
        self.halved = bool(self.layers[-1].out_channels == 4)

    def forward(
        self,
        x0: torch.Tensor,
        eps: torch.Tensor,
        log_snr: torch.Tensor,
        lookahead_x0: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mask (batch, y, x), score (batch) and flag (batch)."""
        at_grid, above = self.at_grid(x0, log_snr)
        channels, shown = self.inputs(at_grid, eps[:, above[-1:]][:, 0], lookahead_x0)
        predicted = self.network(channels)
        flat = predicted.flatten(1)
        ordered = flat.sort(dim=1).values
        places = self.rows * self.columns
        terms = [
            channels.mean(dim=(-2, -1)),
            channels.std(dim=(-2, -1), correction=0),
            channels.amax(dim=(-2, -1)),
            flat.mean(dim=1, keepdim=True),
            ordered[:, int(0.9 * places), None],
            flat.exp().mean(dim=1, keepdim=True).log(),
        ]
        if self.given.layout_location:
            layout = layout_statistics(shown)
            terms.append(
                layout_terms(
                    layout, self.layout_location, self.layout_scale, products=self.given.products
                )
            )
        summary = torch.cat(terms, dim=1)
        score = summary @ self.coefficients[1:] + self.coefficients[0]
        flagged = score > self.level
        limit = ordered[:, places - max(1, round(self.given.share * places))]
        mask = (predicted >= limit[:, None, None]) & flagged[:, None, None]
        return self.enlarged(mask), score, flagged

    def inputs(
        self, at_grid: torch.Tensor, eps: torch.Tensor, lookahead_x0: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Channels of the network, and the picture whose layout the score looks at."""
        change = at_grid[:, 1:] - at_grid[:, :-1]
        place = (1, -1, 1, 1)
        dynamics = (self.log_size(change) - self.location.view(place)) / self.scale.view(place)
        limit = LIMIT
        snapshot = at_grid[:, -1].clamp(-limit, limit)
        picture = self.picture(snapshot)
        parts: list[torch.Tensor] = []
        if self.given.inputs != "snapshot":
            parts.append(dynamics)
        if self.given.inputs != "dynamics":
            parts += [picture, self.picture(eps)]
        if lookahead_x0 is not None:
            known = lookahead_x0.clamp(-limit, limit)
            moved = known - snapshot
            parts += [self.picture(known), self.picture(moved), self.log_size(moved[:, None])]
        shown = dynamics if self.given.inputs == "dynamics" else picture
        return torch.cat(parts, dim=1), shown

    def log_size(self, change: torch.Tensor) -> torch.Tensor:
        """Log of the pooled size of changes (batch, cell, channel, y, x)."""
        return torch.log(torch.sqrt(self.pool((change * change).mean(dim=2))) + self.given.floor)

    def picture(self, values: torch.Tensor) -> torch.Tensor:
        """A picture as channels at map resolution; see `snapshot_channels`."""
        whole = self.height % self.factor == 0 and self.width % self.factor == 0
        if self.channels * self.factor**2 <= MOST_SNAPSHOT_CHANNELS and whole:
            return functional.pixel_unshuffle(values, self.factor)
        mean = self.pool(values.mean(dim=1, keepdim=True))
        square = self.pool((values * values).mean(dim=1, keepdim=True))
        return torch.cat([mean, (square - mean * mean).clamp(min=0).sqrt()], dim=1)

    def network(self, channels: torch.Tensor) -> torch.Tensor:
        """Map of predicted log distance, shape (batch, y, x)."""
        values = channels
        if self.halved:
            odd = (0, self.columns % 2, 0, self.rows % 2)
            values = functional.pixel_unshuffle(functional.pad(values, odd, mode="replicate"), 2)
        for number, layer in enumerate(self.layers):
            values = layer(values)
            if number < len(self.layers) - 1:
                values = values.relu()
        if self.halved:
            values = functional.pixel_shuffle(values, 2)[..., : self.rows, : self.columns]
        return values[:, 0]


def example_inputs(module: Any, grid: tuple[float, ...]) -> tuple[torch.Tensor, ...]:
    """Inputs of the right shapes to trace a module with."""
    shape = (module.channels, module.height, module.width)
    steps = torch.zeros((2, 5, *shape))
    some = (steps, steps.clone(), torch.linspace(grid[0], grid[-1], 5))
    return (*some, torch.zeros((2, *shape))) if module.given.lookahead is not None else some


def program(thresholds: Thresholds, shape: tuple[int, ...]) -> Program:
    """Predicted x0 and eps of all steps, log-SNR, and what a lookahead gave."""
    module = OutcomeDetector(thresholds, shape).eval()
    inputs = example_inputs(module, thresholds.levels.log_snr)
    free = (("batch", "step"), ("batch", "step"), ("step",), ("batch",))
    return module, inputs, free[: len(inputs)]


PROGRAM = program
