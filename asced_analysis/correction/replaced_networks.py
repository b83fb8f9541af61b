"""Functions that answer for a pipeline's networks while a ``with`` lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

DENOISERS = ("unet", "transformer", "transformer_2", "prior", "controlnet", "network")
"""What pipelines call the networks that are asked at every step."""


def denoisers(pipe: Any) -> Iterator[torch.nn.Module]:
    """The networks of a pipeline that are asked at every step."""
    for name in DENOISERS:
        part = getattr(pipe, "components", {}).get(name)
        if isinstance(part, torch.nn.Module):
            yield part


@contextmanager
def replaced_forward(network: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a function answer for a network; the network is left as it was."""
    real, own = network.forward, "forward" in vars(network)
    forward.stands_for = real if own else None  # type: ignore[attr-defined]
    network.forward = forward
    try:
        yield
    finally:
        if own:
            network.forward = real
        else:
            del network.forward
