"""Detection variants by name, and who asks a model where thresholds want to look ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asced_analysis.thresholds.registries import VARIANTS
from asced_stores.registry import Registry

if TYPE_CHECKING:
    from asced_analysis.compute.source import Source
    from asced_analysis.detection.variant import Lookahead

__all__ = ["LOOKAHEADS", "VARIANTS"]

LOOKAHEADS: Registry[Callable[[Source, Any], Lookahead]] = Registry(
    "way to ask a model",
    group="asced.lookahead",
    package="asced_analysis.correction",
    modules=("lookahead",),
    attribute="LOOKAHEAD",
)
"""``LOOKAHEADS.get("lookahead")(source, pipeline)``: by name, since this room samples nothing."""
