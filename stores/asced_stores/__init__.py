"""Trajectory stores: what a score trajectory is, and where it lies.

The ground floor: it imports none of the other packages, and no torch. Names are loaded when they
are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asced_stores.datasets import open_runs
    from asced_stores.index import RunIndex
    from asced_stores.spec import TrajectorySpec, VariableSpec
    from asced_stores.store import TrajectoryStore
    from asced_stores.streaming import RunReader

_HOMES = {
    "RunIndex": "index",
    "RunReader": "streaming",
    "TrajectorySpec": "spec",
    "TrajectoryStore": "store",
    "VariableSpec": "spec",
    "open_runs": "datasets",
}

__all__ = [
    "RunIndex",
    "RunReader",
    "TrajectorySpec",
    "TrajectoryStore",
    "VariableSpec",
    "open_runs",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
