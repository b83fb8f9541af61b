"""Thresholds for other deployments: a bundle for ports, a `torch.export` program, the schema."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {"export_bundle": "bundle", "export_program": "program", "export_schema": "bundle"}

__all__ = ["export_bundle", "export_program", "export_schema"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
