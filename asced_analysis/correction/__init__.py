"""Correction in the sampling loop: detect while sampling, edit the sample entering step ``T_c``.

One strategy a file, each a frozen dataclass; `Corrector` joins a detector and a strategy and
attaches to any pipeline the recorder supports. Uses torch; loads no zarr, xarray, dask or
scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asced_analysis.correction.corrector import Corrector, ImageReport
    from asced_analysis.correction.levelling import level_noise, levelled
    from asced_analysis.correction.registry import STRATEGIES, make_strategy

_PLACES = {
    "Corrector": "corrector",
    "ImageReport": "corrector",
    "STRATEGIES": "registry",
    "level_noise": "levelling",
    "levelled": "levelling",
    "make_strategy": "registry",
}

__all__ = ["STRATEGIES", "Corrector", "ImageReport", "level_noise", "levelled", "make_strategy"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
