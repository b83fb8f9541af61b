"""What a model is: a hash of the content of its weights, and of all else that decides its output.

Nothing is kept from one time to the next: addresses and torch's version counters do not show what
``.data``, fused optimisers and ``EMAModel.copy_to`` write. What a fingerprint cannot see: text
encoders and image encoders (their output enters a call as its conditioning), code (a patched method
is named, not read), what torch's own forward hooks do (most of them only watch; they are named in
``compute``), and what a hook or an attention processor keeps in attributes that are neither numbers
nor text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.model_facts import compute_facts, functional_facts
from asced_recorders.pipelines.networks import networks
from asced_stores.errors import InputError
from asced_stores.format.calls import config_differences

if TYPE_CHECKING:
    from torch import Tensor, nn

SAMPLED = 256  # values of each tensor that are compared at each call


def model_fingerprint(pipe: Any, /) -> str:
    """Hash of the weights and configurations of the networks that make the samples.

    Weights are hashed where they lie, whole. Adapters and their scales, whether they are enabled,
    caches and other hooks that change what a network returns play a part, and so does the precision
    of the weights. Neither the scheduler, nor compilation, nor offloading, nor where the model was
    loaded from does.

    Parameters
    ----------
    pipe : DiffusionPipeline, ModularPipeline or torch.nn.Module

    Returns
    -------
    str
        ``sha256:`` and 64 hexadecimal digits.
    """
    whole = hashlib.sha256()
    for name, module in networks(pipe):
        whole.update(f"{name}:{_module_hash(module)}\n".encode())
    return f"sha256:{whole.hexdigest()}"


class ModelWatch:
    """Knows a model again at each call, by a part of its weights.

    Compared are a sample of each tensor's values (up to `SAMPLED`, evenly spaced), its shape, dtype
    and everything of a fingerprint that is not weights. A change of single values between the
    sampled ones is not seen; the fingerprint, which is taken once for a store, sees it.

    Parameters
    ----------
    pipe : DiffusionPipeline, ModularPipeline or torch.nn.Module
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.known: dict[str, str] | None = None
        self.conditions: dict[str, Any] | None = None

    def check(self) -> None:
        """Remember the model at the first call; compare at the later ones.

        Raises
        ------
        InputError
            If it is another model now, naming the networks that changed, or computes otherwise.
        """
        found = {name: _glance(module) for name, module in networks(self.pipe)}
        conditions = compute_facts(self.pipe)
        if self.known is None:
            self.known, self.conditions = found, conditions
        changed = sorted(
            name for name in {**found, **self.known} if found.get(name) != self.known.get(name)
        )
        if changed:
            raise InputError(
                f"{', '.join(changed)} changed since this recording began (weights, adapters, "
                "their scales, or hooks): one store holds one model; record to another store"
            )
        otherwise = config_differences(self.conditions or {}, conditions)
        if otherwise:
            raise InputError(
                f"the model computes otherwise than in the calls before ({'; '.join(otherwise)}): "
                "one store holds one way of computing; record to another store"
            )


def _module_hash(module: nn.Module) -> str:
    """Hash of one network."""
    from asced_recorders.pipelines.weight_hash import block_hashes

    digest = hashlib.sha256(_description(module))
    for key, tensor in _weights(module):
        digest.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        absent = tensor.device.type == "meta"
        digest.update(b"absent" if absent else block_hashes(tensor).tobytes())
    return digest.hexdigest()


def _description(module: nn.Module) -> bytes:
    """Class, configuration, adapters and hooks of a network."""
    facts = {
        "class": type(module).__name__,
        "config": _public_config(module),
        **functional_facts(module),
    }
    return json.dumps(facts, sort_keys=True, default=str).encode()


def _glance(module: nn.Module) -> str:
    """Hash of a sample of a network's weights, read off each device at once."""
    import torch

    digest = hashlib.sha256(_description(module))
    parts: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for key, tensor in _weights(module):
        digest.update(f"{key}:{tuple(tensor.shape)}".encode())
        if tensor.numel() and tensor.device.type != "meta":
            flat = tensor.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // SAMPLED)][:SAMPLED]
            parts.setdefault((tensor.device, tensor.dtype), []).append(sample)
    for (_, dtype), samples in sorted(parts.items(), key=lambda each: str(each[0][1])):
        values = torch.cat(samples).view(torch.uint8).to("cpu")
        digest.update(str(dtype).encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def _weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a network's state by its plain name, in order; offloaded ones from the host.

    Yields
    ------
    tuple of str and Tensor
        On the meta device, where a weight can be read nowhere.
    """
    import torch

    state: Mapping[str, Any] = module.state_dict(keep_vars=True)
    elsewhere = _offloaded(module) if any(_is_meta(t) for t in state.values()) else {}
    plain = {key.replace("_orig_mod.", ""): key for key in state}
    for name in sorted(plain):
        value = state[plain[name]]
        if not isinstance(value, torch.Tensor):
            value = torch.frombuffer(bytearray(repr(value).encode()), dtype=torch.uint8)
        if _is_meta(value):
            value = elsewhere.get(plain[name], value)
        yield from _plain_tensors(name, value)


def _plain_tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """A tensor, or those that a quantised one is made of."""
    if hasattr(value, "__tensor_flatten__"):
        names, context = value.__tensor_flatten__()
        for inner in names:
            yield from _plain_tensors(f"{name}.{inner}:{context!r}"[:400], getattr(value, inner))
        return
    yield name, value


def _is_meta(value: Any) -> bool:
    return getattr(getattr(value, "device", None), "type", "") == "meta"


def _offloaded(module: nn.Module) -> dict[str, Any]:
    """Weights that accelerate keeps on the host or on the disk, by their full names."""
    found: dict[str, Any] = {}
    for prefix, part in module.named_modules():
        hook = getattr(part, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            held = getattr(each, "weights_map", None)
            if held is None:
                continue
            for name, _ in (*part.named_parameters(), *part.named_buffers()):
                try:
                    found[f"{prefix}.{name}" if prefix else name] = held[name]
                except KeyError:
                    continue
    return found


def _public_config(module: Any) -> dict[str, Any]:
    """Configuration without paths, versions and what loading adds."""
    config = getattr(module, "config", None)
    items = dict(config) if config is not None and hasattr(config, "items") else {}
    return {key: value for key, value in items.items() if not key.startswith("_")}
