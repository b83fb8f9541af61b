"""What a model is: a hash of its weights and configuration."""

from __future__ import annotations

import hashlib
import json
import weakref
from typing import Any

# Everything that turns noise into samples, by the names that pipelines give it. Text encoders are
# left out: they may hold ten gigabytes, and their output is not what the score is made by.
DENOISERS = ("unet", "transformer", "transformer_2", "prior", "decoder", "vae", "vqvae")
_cache: weakref.WeakKeyDictionary[Any, tuple[tuple[int, ...], str]] = weakref.WeakKeyDictionary()


def model_fingerprint(pipe: Any, /) -> str:
    """Hash of the weights and configurations of the networks that make the samples.

    Neither the scheduler nor where the model was loaded from plays a part; the precision of the
    weights does. A result is kept as long as the weights are not changed.

    Parameters
    ----------
    pipe : DiffusionPipeline or torch.nn.Module

    Returns
    -------
    str
        ``sha256:`` and 64 hexadecimal digits.
    """
    import torch

    if isinstance(pipe, torch.nn.Module):
        modules = {"model": pipe}
    else:
        modules = {
            name: part
            for name, part in pipe.components.items()
            if name in DENOISERS and isinstance(part, torch.nn.Module)
        }
    whole = hashlib.sha256()
    for name in sorted(modules):
        whole.update(f"{name}:{_module_hash(modules[name])}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _module_hash(module: Any) -> str:
    """Hash of one network, kept until one of its tensors is written to."""
    state = module.state_dict(keep_vars=True)
    versions = tuple(v for t in state.values() for v in (t.data_ptr(), _version(t)))
    known = _cache.get(module)
    if known is not None and known[0] == versions:
        return known[1]
    digest = hashlib.sha256()
    digest.update(type(module).__name__.encode())
    digest.update(json.dumps(_public_config(module), sort_keys=True, default=str).encode())
    for key in sorted(state):
        tensor = state[key].detach()
        digest.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    _cache[module] = (versions, digest.hexdigest())
    return digest.hexdigest()


def _version(tensor: Any) -> int:
    return 0 if tensor.is_inference() else int(tensor._version)


def _public_config(module: Any) -> dict[str, Any]:
    """Configuration without paths, versions and what loading adds."""
    config = getattr(module, "config", None)
    items = dict(config) if config is not None and hasattr(config, "items") else {}
    return {key: value for key, value in items.items() if not key.startswith("_")}


def _bytes(tensor: Any) -> memoryview:
    """The tensor's bytes, whatever its dtype."""
    import torch

    flat = tensor.to("cpu").contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")
