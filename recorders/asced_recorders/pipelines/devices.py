"""What accelerator torch has here, whichever kind: CUDA, ROCm, XPU, MPS and others are one path."""

from __future__ import annotations

from typing import Any


def default_device() -> str:
    """The accelerator's kind, or ``cpu``."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if found is None else found.type


def available_devices() -> list[str]:
    """Devices that torch finds here, the CPU first."""
    import torch

    kind = default_device()
    if kind == "cpu":
        return ["cpu"]
    return ["cpu", *(f"{kind}:{index}" for index in range(torch.accelerator.device_count()))]


def device_name(device: Any) -> str | None:
    """What a device calls itself; None where its kind has no names."""
    named = getattr(_module_of(device), "get_device_name", None)
    return None if named is None else str(named(device))


def device_memory(device: Any) -> tuple[int, int] | None:
    """Free and total bytes of a device; None where its kind does not say."""
    asked = getattr(_module_of(device), "mem_get_info", None)
    return None if asked is None else tuple(asked(device))


def _module_of(device: Any) -> Any:
    """Torch's module of a kind of device (``torch.cuda``, ``torch.xpu``); None for the CPU."""
    import torch

    kind = torch.device(device).type
    return None if kind == "cpu" else torch.get_device_module(kind)
