"""Which networks of a pipeline make its samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
