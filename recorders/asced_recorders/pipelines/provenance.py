"""What a store says about how its runs came to be: strictly JSON, nothing personal."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.devices import device_name
from asced_recorders.pipelines.fingerprint import model_fingerprint
from asced_recorders.pipelines.model_facts import adapter_scales, compute_facts, offload_facts
from asced_recorders.tap.schedulers import StepTable, scheduler_class
from asced_stores.errors import InputError
from asced_stores.format.calls import config_differences

if TYPE_CHECKING:
    import torch

PACKAGES = ("asced-analysis", "torch", "diffusers", "transformers", "numpy", "zarr")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that matter for repeating a run."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_facts(device: Any) -> dict[str, Any]:
    """Device, thread count and the flags that change rounding."""
    import torch

    device = torch.device(device)
    facts: dict[str, Any] = {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "flags": {
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "cudnn_benchmark": bool(torch.backends.cudnn.benchmark),
            "cudnn_tf32": bool(torch.backends.cudnn.allow_tf32),
        },
    }
    name = device_name(device)
    if name is not None:
        facts["device_name"] = name
    for library in ("cuda", "hip", "xpu"):
        if device.type != "cpu" and (version := getattr(torch.version, library, None)):
            facts[library] = version
    return facts


def guider_facts(pipe: Any) -> dict[str, Any]:
    """Class and configuration of each guider; Wan 2.2 has one for each of its experts."""
    return {
        name: {"class": type(part).__name__, **public_config(getattr(part, "config", {}))}
        for name, part in pipe.components.items()
        if name.startswith("guider") and part is not None
    }


def check_sampler(first: Mapping[str, Any], pipe: Any) -> None:
    """Refuse a scheduler or guiders that are not those of a store's runs.

    Parameters
    ----------
    first : mapping
        Attributes of the store.
    pipe : DiffusionPipeline or ModularPipeline

    Raises
    ------
    InputError
        That names what differs.
    """
    scheduler = type(pipe.scheduler)
    known = first.get("scheduler_class"), first.get("scheduler_module")
    if known != (scheduler.__name__, scheduler.__module__):
        raise InputError(
            f"the pipeline's scheduler is a {scheduler.__name__} now, and the store's runs are "
            f"of {known[0]}: record to another store"
        )
    now = {"scheduler_config": public_config(pipe.scheduler.config), **guider_facts(pipe)}
    differing = [
        f"{name}: {each}"
        for name, facts in now.items()
        for each in config_differences(first.get(name) or {}, facts)
    ]
    if differing:
        raise InputError(
            f"the pipeline samples otherwise than the store's runs ({'; '.join(differing)}): "
            "record to another store"
        )


def scheduler_facts(scheduler: Any, table: StepTable) -> dict[str, Any]:
    """Class and configuration of a scheduler, and how its model's output is read."""
    return {
        "scheduler_class": type(scheduler).__name__,
        "scheduler_module": type(scheduler).__module__,
        "scheduler_base": scheduler_class(scheduler),
        "scheduler_config": public_config(scheduler.config),
        "prediction_type": table.prediction_type,
        "sigma_data": table.sigma_data,
    }


def pipeline_facts(pipe: Any, scheduler: Any, table: StepTable) -> dict[str, Any]:
    """Everything known about a pipeline, as attributes of a store."""
    network = next((getattr(pipe, n) for n in ("unet", "transformer") if _has(pipe, n)), None)
    parameter = None if network is None else next(network.parameters(), None)
    facts = {
        "pipeline_class": type(pipe).__name__,
        "model_fingerprint": model_fingerprint(pipe),
        "compute": compute_facts(pipe),
        "versions": versions(),
        **scheduler_facts(scheduler, table),
        **guider_facts(pipe),
    }
    if adapters := adapter_scales(pipe):
        facts["adapters"] = adapters
    if moved := offload_facts(pipe):
        facts["offload"] = moved
    if parameter is not None:
        facts["model_dtype"] = str(parameter.dtype).removeprefix("torch.")
        facts |= device_facts(execution_device(pipe, parameter.device))
    return facts


def execution_device(pipe: Any, found: Any = None) -> torch.device:
    """Where a network computes, which is not where its weights wait while they are offloaded.

    Parameters
    ----------
    pipe : DiffusionPipeline
    found : torch.device, optional
        Where the weights lie, for pipelines that do not say where they compute; by default where
        the pipeline says that it lies.
    """
    import torch

    own = getattr(pipe, "_execution_device", None)
    chosen = torch.device((pipe.device if found is None else found) if own is None else own)
    return torch.device("cpu") if chosen.type == "meta" else chosen


def public_config(config: Any) -> dict[str, Any]:
    """A configuration without private entries (paths, versions), as JSON values."""
    return {key: _json(value) for key, value in config.items() if not key.startswith("_")}


def _has(pipe: Any, name: str) -> bool:
    return getattr(pipe, name, None) is not None


def _json(value: Any) -> Any:
    """A value that JSON has, or its text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, dict):
        return {str(key): _json(each) for key, each in value.items()}
    if hasattr(value, "tolist"):
        return _json(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_json(each) for each in value]
    return str(value)
