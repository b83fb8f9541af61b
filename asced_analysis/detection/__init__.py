"""Detection: which pixels of which run went wrong; one variant a module, one kernel for all.

Kernels are array-API code: the same function runs in the sampling loop on torch tensors and
offline on NumPy blocks. Core axes come last, ``(..., step, channel, y, x)``.
"""

from __future__ import annotations

import importlib
from types import ModuleType

VARIANTS = (
    "released",
    "paper",
    "calibrated",
    "outcome",
    "trajectory_variance",
    "final_variance",
    "score_norm",
    "diffpath",
)

_MODULES = (*VARIANTS, "apply", "blur", "components", "external", "medians", "opening", "streaming")

__all__ = ["VARIANTS"]


def __getattr__(name: str) -> ModuleType:
    """Import a detection module on first use."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names of the modules, for completion."""
    return sorted({*globals(), *_MODULES})
