"""Replay: the recorded runs once more, with a correction, each beside its twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asced_analysis.replay.agreement import Exactness, exactness
    from asced_analysis.replay.branching import Branch, branch
    from asced_analysis.replay.replaying import replay

_PLACES = {
    "Branch": "branching",
    "Exactness": "agreement",
    "branch": "branching",
    "exactness": "agreement",
    "replay": "replaying",
}

__all__ = ["Branch", "Exactness", "branch", "exactness", "replay"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
