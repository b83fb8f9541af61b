"""Calibration: from recorded runs to thresholds with a stated guarantee.

The statistic (`asced_analysis.detection`) and the guarantee are separate: `conformal`, `risk`,
`groups`, `robust` and `labels` know numbers only.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {"calibrate": "calibrate_runs", "check": "drift", "recheck": "portability"}

__all__ = ["calibrate", "check", "recheck"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
