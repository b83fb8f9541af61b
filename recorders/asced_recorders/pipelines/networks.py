"""Which networks of a pipeline make its samples."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import nn

# What turns noise into samples is all networks but these, which prepare or judge.
NOT_SAMPLING = ("text_encoder", "tokenizer", "image_encoder", "safety_checker", "feature_extractor")
DECODERS = ("vae", "vqvae", "movq")
WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def bare(module: Any, /) -> Any:
    """A network without the wrappers of ``torch.compile`` and parallel training."""
    while (inner := WRAPPERS.get(type(module).__name__)) is not None:
        module = getattr(module, inner)
    return module


def networks(pipe: Any, /) -> list[tuple[str, nn.Module]]:
    """Networks that make the samples, by the names that the pipeline gives them, in order.

    A compiled or parallel wrapper is taken off.
    """
    import torch

    if isinstance(pipe, torch.nn.Module):
        return [("model", bare(pipe))]
    return [
        (name, bare(part))
        for name, part in sorted(pipe.components.items())
        if isinstance(part, torch.nn.Module) and not name.startswith(NOT_SAMPLING)
    ]


def copied_pipeline(pipe: Any, part: str) -> Any:
    """A copy of a pipeline with the very networks, which is to have another part.

    Parameters
    ----------
    pipe : DiffusionPipeline
    part : str
        Its name, for example ``scheduler``.

    Raises
    ------
    InputError
        Where a cache of its networks asks the given pipeline for its timestep, not the copy.
    """
    for name, network in networks(pipe):
        for module in network.modules():
            cache = module.__dict__.get("_cache_config")
            if getattr(cache, "current_timestep_callback", None) is not None:
                raise InputError(
                    f"{name} has a {type(cache).__name__} that asks the given pipeline for its "
                    f"timestep, and with another {part} a copy of it would sample: set pipe.{part} "
                    f"first to the one that is asked for, or switch the cache off (disable_cache())"
                )
    return copy.copy(pipe)


def denoisers(pipe: Any, /) -> list[tuple[str, nn.Module]]:
    """The same without decoders: networks that are evaluated at the steps."""
    return [(name, part) for name, part in networks(pipe) if name not in DECODERS]


def hook(register: Any, function: Any, **options: Any) -> Any:
    """Register a hook that facts of a model pass over."""

    def watching(*args: Any) -> None:
        function(*args)

    watching.asced = True  # type: ignore[attr-defined]
    return register(watching, **options)


def rows_of(args: Any, kwargs: Any) -> int:
    """Length of the first tensor that a module is given."""
    for value in (*args, *kwargs.values()):
        if hasattr(value, "shape") and len(value.shape):
            return int(value.shape[0])
    return 0
