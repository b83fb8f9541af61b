"""Record score trajectories from diffusers: the only code that knows that library.

``record`` draws many runs into a store, ``Recorder`` watches a pipeline or a loop of one's own,
``load_pipeline`` finds models by name, folder or hub. They are imported when they are asked for:
this package alone loads neither torch nor diffusers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asced_recorders.campaign import record
    from asced_recorders.loading import load_pipeline
    from asced_recorders.recording import Recorder

__all__ = ["Recorder", "load_pipeline", "record"]

_HOMES = {
    "Recorder": "asced_recorders.recording",
    "load_pipeline": "asced_recorders.loading",
    "record": "asced_recorders.campaign",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'asced_recorders' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
