"""Score dynamics of diffusion sampling: analysis, calibration, correction and replay.

Names load on first use: ``import asced_analysis`` loads neither torch nor diffusers nor click, and
a `Corrector` needs no zarr, xarray, dask or scikit-learn. The ``ds.asced`` accessor is registered
with the first dataset that this package opens (or by ``import asced_analysis.accessor``).
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asced_analysis.calibration import calibrate as calibrate
    from asced_analysis.correction import Corrector as Corrector
    from asced_analysis.evaluation import evaluate as evaluate
    from asced_analysis.features import run_features as run_features
    from asced_analysis.phases import segment_phases as segment_phases
    from asced_analysis.statistics import step_statistics as step_statistics
    from asced_analysis.thresholds import Thresholds as Thresholds
    from asced_stores import open_runs as open_runs

_SOURCES = {
    "Corrector": "asced_analysis.correction",
    "Thresholds": "asced_analysis.thresholds",
    "calibrate": "asced_analysis.calibration",
    "evaluate": "asced_analysis.evaluation",
    "open_runs": "asced_stores",
    "run_features": "asced_analysis.features",
    "segment_phases": "asced_analysis.phases",
    "step_statistics": "asced_analysis.statistics",
}
_SUBPACKAGES = frozenset(
    {
        "calibration",
        "correction",
        "detection",
        "evaluation",
        "plots",
        "realism",
        "replay",
        "report",
        "viewer",
    }
)

__all__ = [
    "Corrector",
    "Thresholds",
    "calibrate",
    "evaluate",
    "open_runs",
    "run_features",
    "segment_phases",
    "step_statistics",
]

if "xarray" in sys.modules:  # already paid for: register ``ds.asced`` at once
    importlib.import_module("asced_analysis.accessor")


def __getattr__(name: str) -> Any:
    """Load a public name, or a subpackage, on first use (PEP 562)."""
    if name in _SOURCES:
        if name == "open_runs":
            importlib.import_module("asced_analysis.accessor")
        value = getattr(importlib.import_module(_SOURCES[name]), name)
    elif name in _SUBPACKAGES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names and subpackages."""
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
