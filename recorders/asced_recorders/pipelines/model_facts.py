"""What decides a network's output beside its weights, and under which conditions it computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.networks import networks

if TYPE_CHECKING:
    from torch import nn

# Hooks of diffusers that move weights or work, and leave the function as it is.
MOVING = ("Offload", "Casting", "Autocast", "Parallel", "ExecutionTracker")
SETTINGS = ("threshold", "config", "_range", "scale", "fuse")
FREEU = ("s1", "s2", "b1", "b2")


def functional_facts(module: nn.Module, /) -> dict[str, Any]:
    """What changes a network's output and is neither weight nor configuration.

    Parameters
    ----------
    module : Module

    Returns
    -------
    dict
        ``adapters`` (active ones, scales, whether enabled), ``caches`` and ``hooks`` by the path of
        the submodule, ``processors`` with numbers of their own, ``patched`` methods; each only
        where there is something.
    """
    found: dict[str, dict[str, Any]] = {}

    def note(kind: str, path: str, value: Any) -> None:
        found.setdefault(kind, {})[path] = value

    for path, part in module.named_modules():
        own = part.__dict__
        path = path.replace("_orig_mod.", "").replace("_orig_mod", "")
        config = own.get("_cache_config")
        if config is not None:
            note("caches", path, _settings(config, all_fields=True))
        hooks = [_settings(hook) for hook in diffusers_hooks(part) if not _moves(hook)]
        if hooks:
            note("hooks", path, hooks)
        patch = own.get("forward")
        patch = getattr(patch, "stands_for", patch)  # ours answers for another, or for none
        if patch is not None and not {"_old_forward", "_diffusers_hook"} & set(own):
            note("patched", path, _name(patch))
        if isinstance(own.get("scaling"), dict) and hasattr(part, "active_adapters"):
            note("adapters", path, _adapter(part))
        if any(isinstance(own.get(name), (int, float)) for name in FREEU):
            note("freeu", path, [own.get(name) for name in FREEU])
        processor = own.get("processor") or own.get("_modules", {}).get("processor")
        if processor is not None and (numbers := _settings(processor)) and len(numbers) > 1:
            note("processors", path, numbers)
    return found


def compute_facts(pipe: Any, /) -> dict[str, Any]:
    """Conditions that change rounding, speed or which steps are evaluated, but not the model.

    Parameters
    ----------
    pipe : DiffusionPipeline, ModularPipeline or torch.nn.Module

    Returns
    -------
    dict
        ``precision`` by network, ``autocast``, ``attention`` back ends, ``compiled`` networks,
        ``quantisation``, ``caches``, and names of torch's own forward hooks (which may watch or
        change); each only where there is something to say.
    """
    import torch

    facts: dict[str, Any] = {"precision": {}, "attention": {}}
    wrapped = getattr(pipe, "components", {"model": pipe})
    for name, module in networks(pipe):
        parts = list(module.modules())  # walked once: this is asked before every call
        held = {p.dtype for part in parts for p in part._parameters.values() if p is not None}
        dtypes = sorted(str(dtype).removeprefix("torch.") for dtype in held)
        if dtypes:
            facts["precision"][name] = dtypes[0] if len(dtypes) == 1 else dtypes
        attention = sorted(set(_attention(parts)))
        if attention:
            facts["attention"][name] = attention
        if type(wrapped.get(name)).__name__ == "OptimizedModule" or _is_compiled(parts):
            facts.setdefault("compiled", []).append(name)
        watching = sorted(set(_torch_hooks(parts)))
        if watching:
            facts.setdefault("torch_hooks", {})[name] = watching
        quantised = _quantisation(module)
        if quantised:
            facts.setdefault("quantisation", {})[name] = quantised
        caches = _caches(parts)
        if caches:
            facts.setdefault("caches", {})[name] = caches
    device = str(getattr(getattr(pipe, "device", None), "type", "cpu"))
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        facts["autocast"] = str(torch.get_autocast_dtype(device)).removeprefix("torch.")
    return {name: value for name, value in facts.items() if value}


def adapter_scales(pipe: Any, /) -> dict[str, dict[str, float]]:
    """Scale of each active adapter, by network, as ``set_adapters`` takes it.

    Where the layers of a network have different scales, that of its first layer.
    """
    found: dict[str, dict[str, float]] = {}
    for network, module in networks(pipe):
        part: Any
        for part in module.modules():
            own = part.__dict__
            if not isinstance(own.get("scaling"), dict) or not hasattr(part, "active_adapters"):
                continue
            if getattr(part, "disable_adapters", False):
                continue
            for name in part.active_adapters:
                if name in own["scaling"]:
                    unit = float(part.lora_alpha[name]) / float(part.r[name])
                    scale = round(float(own["scaling"][name]) / unit, 6)
                    found.setdefault(network, {}).setdefault(str(name), scale)
    return found


def offload_facts(pipe: Any, /) -> dict[str, list[str]]:
    """Networks whose weights wait on the host or the disk, and the hooks that move them."""
    found = {name: sorted(set(_offloading(module))) for name, module in networks(pipe)}
    return {name: hooks for name, hooks in found.items() if hooks}


def diffusers_hooks(part: nn.Module, /) -> list[Any]:
    """Hooks that diffusers' registry holds for a module."""
    registry = part.__dict__.get("_diffusers_hook")
    hooks: dict[str, Any] = getattr(registry, "hooks", {})
    return list(hooks.values())


def skips_work(pipe: Any, /) -> bool:
    """Whether some of a pipeline's networks may answer without computing (caches, patches)."""
    for _, module in networks(pipe):
        facts = functional_facts(module)
        if {"caches", "hooks", "patched"} & set(facts):
            return True
    return False


def _rounded(scale: Any) -> float:
    """A scale without its last bits, which a call that scales adapters and back may change."""
    return float(f"{float(scale):.9g}")


def _adapter(part: Any) -> dict[str, Any]:
    """Scales and state of an adapter's layer, as peft keeps them."""
    return {
        "scaling": {str(k): _rounded(v) for k, v in sorted(part.scaling.items())},
        "active": [str(name) for name in part.active_adapters],
        "disabled": bool(getattr(part, "disable_adapters", False)),
        "merged": [str(name) for name in getattr(part, "merged_adapters", ())],
    }


def _settings(thing: Any, *, all_fields: bool = False) -> dict[str, Any]:
    """Class of a hook, cache or processor, with its settings that are numbers or text."""
    found: dict[str, Any] = {"class": type(thing).__name__}
    fields = (
        {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing)}
        if dataclasses.is_dataclass(thing)
        else getattr(thing, "__dict__", {})
    )
    for name, value in sorted(fields.items()):
        if not (all_fields or name.endswith(SETTINGS)):
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found[name] = _settings(value, all_fields=True)
        elif _is_plain(value):
            found[name] = value
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(each) for each in value)
    return isinstance(value, (bool, int, float, str))


def _moves(hook: Any) -> bool:
    return any(word in type(hook).__name__ for word in MOVING)


def _name(function: Any) -> str:
    function = getattr(function, "func", function)
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _attention(parts: Sequence[nn.Module]) -> Iterator[str]:
    """Processors of a network's attention, with the back end where one is chosen."""
    for part in parts:
        processor = part.__dict__.get("processor") or part.__dict__.get("_modules", {}).get(
            "processor"
        )
        if processor is not None:
            chosen = getattr(processor, "_attention_backend", None)
            chosen = getattr(chosen, "value", chosen)
            yield type(processor).__name__ + (f" ({chosen})" if chosen else "")


def _torch_hooks(parts: Sequence[nn.Module]) -> Iterator[str]:
    for part in parts:
        for group in ("_forward_hooks", "_forward_pre_hooks"):
            for hook in part.__dict__.get(group, {}).values():
                if not getattr(hook, "asced", False):
                    yield _name(hook)


def _is_compiled(parts: Sequence[nn.Module]) -> bool:
    return any(
        type(part).__name__ == "OptimizedModule"
        or part.__dict__.get("_compiled_call_impl") is not None
        for part in parts
    )


def _quantisation(module: nn.Module) -> str | None:
    config = getattr(module, "quantization_config", None) or getattr(
        getattr(module, "hf_quantizer", None), "quantization_config", None
    )
    if config is None:
        return None
    method = getattr(config, "quant_method", None) or type(config).__name__
    return str(getattr(method, "value", method))


def _caches(parts: Sequence[nn.Module]) -> list[str]:
    """Names of the caches that are switched on in a network."""
    found = {
        type(part.__dict__["_cache_config"]).__name__
        for part in parts
        if part.__dict__.get("_cache_config") is not None
    }
    if not found:  # applied to the blocks by themselves
        found = {
            type(hook).__name__
            for part in parts
            for hook in diffusers_hooks(part)
            if not _moves(hook)
        }
    return sorted(found)


def _offloading(module: nn.Module) -> Iterator[str]:
    for part in module.modules():
        hook = part.__dict__.get("_hf_hook")
        for each in getattr(hook, "hooks", (hook,)):
            if each is not None and (
                getattr(each, "offload", False) or "Offload" in type(each).__name__
            ):
                yield type(each).__name__
        for each in diffusers_hooks(part):
            if "Offload" in type(each).__name__:
                yield type(each).__name__
