"""Evaluation: what a correction did, as a judge sees it that no detector was taught by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asced_analysis.evaluation.judging import evaluate, quality
    from asced_analysis.evaluation.result import Evaluation
    from asced_analysis.evaluation.tuning import Tuning, tune

_PLACES = {
    "Evaluation": "result",
    "Tuning": "tuning",
    "evaluate": "judging",
    "quality": "judging",
    "tune": "tuning",
}

__all__ = ["Evaluation", "Tuning", "evaluate", "quality", "tune"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
