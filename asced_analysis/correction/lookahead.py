"""Lookahead: what the model predicts of the sample that its own predictions give at a later level.

A deterministic sampler's end is settled early, but a small network can't compute it. One evaluation
at a later noise level of the jump ``alpha * x0 + sigma * eps`` is a coarse look ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from asced_analysis.correction.detecting import Network, predict
from asced_stores.errors import InputError
from asced_stores.format.noise_levels import eps_and_x0, log_snr

if TYPE_CHECKING:
    from asced_analysis.compute.source import Source
    from asced_analysis.detection.variant import Lookahead

KNOWN = ("epsilon", "sample", "v_prediction")


def pipeline_network(pipeline: Any) -> Network:
    """Take the network of an unconditional pipeline.

    Parameters
    ----------
    pipeline : DiffusionPipeline
        With a `UNet2DModel` that takes no class.

    Returns
    -------
    callable
        ``network(sample, table, step)`` to predicted x0, NumPy for NumPy, a tensor for a tensor.
        The table has `timestep`, `alpha`, `sigma` by step, and `prediction_type`.

    Raises
    ------
    InputError
        For networks that want more than a sample and a timestep: write one of your own.
    """
    unet: Any = getattr(pipeline, "unet", None)
    config = getattr(unet, "config", {})
    if (
        type(unet).__name__ != "UNet2DModel"
        or config.get("class_embed_type")
        or (config.get("num_class_embeds"))
    ):
        raise InputError(
            f"{type(pipeline).__name__} wants more than a sample and a timestep, which a lookahead "
            "can't know; give a network of your own: network(sample, table, step) -> predicted x0"
        )

    @torch.no_grad()
    def ask(sample: Any, table: Any, step: int) -> Any:
        if table.prediction_type not in KNOWN:
            raise InputError(
                f"no lookahead for prediction type {table.prediction_type!r}; expected one of "
                f"{KNOWN}, or a network of your own"
            )
        given = sample if isinstance(sample, Tensor) else torch.from_numpy(np.asarray(sample))
        entering = given.to(device=unet.device, dtype=unet.dtype)
        alpha, sigma = float(table.alpha[step]), float(table.sigma[step])
        scaled = entering / (alpha**2 + sigma**2) ** 0.5  # what networks are fed in sigma space
        output = unet(scaled, float(table.timestep[step]), return_dict=False)[0]
        x0 = eps_and_x0(
            entering.float(),
            output.float(),
            alpha=alpha,
            sigma=sigma,
            prediction_type=table.prediction_type,
        )[1]
        return x0.to(given.device) if isinstance(sample, Tensor) else x0.cpu().numpy()

    return ask


def network_by_step(network: Callable[[Any, Any, Any], Any]) -> Network:
    """A network that is asked by noise level, ``network(sample, alpha, sigma)``, as one by step."""

    @torch.no_grad()
    def ask(sample: Any, table: Any, step: int) -> Any:
        return network(sample, float(table.alpha[step]), float(table.sigma[step]))

    return ask


@dataclass(frozen=True)
class RecordedTable:
    """Noise levels of recorded runs, by step."""

    timestep: tuple[float, ...]
    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    prediction_type: str

    @property
    def log_snr(self) -> Any:
        """``2 log(alpha / sigma)`` of each step."""
        return log_snr(np.asarray(self.alpha), np.asarray(self.sigma))


def recorded_lookahead(source: Source, pipeline: Any = None) -> Lookahead:
    """Make a lookahead for recorded runs.

    Parameters
    ----------
    source : Source
    pipeline : DiffusionPipeline, str or Path, optional
        By default the one that the store names.
    """
    from asced_recorders.pipelines.environment import matching_pipeline

    attributes = source.dataset.attrs
    table = RecordedTable(
        tuple(float(value) for value in source.dataset["timestep"].values),
        source.alpha,
        source.sigma,
        str(attributes.get("prediction_type")),
    )
    network = pipeline_network(matching_pipeline(attributes, pipeline))
    return partial(predict, network, table)


LOOKAHEAD = recorded_lookahead
