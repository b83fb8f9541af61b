"""Local realism: how far local features of an image lie from those of real images.

Needs no trajectory and no label, so it may judge what reads trajectories. Two embedded models for
`fashion` (a teacher for calibration, a judge for reporting), whitened patches for pictures of any
other kind, and any torch module as a feature extractor. Imported lazily: torch is loaded where a
network is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asced_analysis.realism.distances import frechet_distance, precision_recall
    from asced_analysis.realism.embedded import load_embedded
    from asced_analysis.realism.local import RealismModel, features, local_realism, upsample
    from asced_analysis.realism.modules import model_from_module
    from asced_analysis.realism.patches import patch_model

_PLACES = {
    "RealismModel": "local",
    "features": "local",
    "frechet_distance": "distances",
    "load_embedded": "embedded",
    "local_realism": "local",
    "model_from_module": "modules",
    "patch_model": "patches",
    "precision_recall": "distances",
    "upsample": "local",
}

__all__ = [
    "RealismModel",
    "features",
    "frechet_distance",
    "load_embedded",
    "local_realism",
    "model_from_module",
    "patch_model",
    "precision_recall",
    "upsample",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
