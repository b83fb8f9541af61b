"""Detection variants by name, and who evaluates a model for a lookahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asced_analysis.thresholds import registries
from asced_stores.registry import Registry

if TYPE_CHECKING:
    from asced_analysis.compute.source import Source
    from asced_analysis.detection.variant import Lookahead, Variant
    from asced_analysis.thresholds.document import Thresholds

__all__ = ["LOOKAHEADS", "VARIANTS", "extra_evaluations", "modules_of", "needs_network"]

VARIANTS: Registry[Variant] = registries.VARIANTS

LOOKAHEADS: Registry[Callable[[Source, Any], Lookahead]] = Registry(
    "source of lookaheads",
    group="asced.lookahead",
    package="asced_analysis.correction",
    modules=("lookahead",),
    attribute="LOOKAHEAD",
)
"""``LOOKAHEADS.get("lookahead")(source, pipeline)``: by name, since this room samples nothing."""


def extra_evaluations(thresholds: Thresholds | None) -> int:
    """Evaluations of the model beyond sampling's own that thresholds need, for every run."""
    if thresholds is None:
        return 0
    return VARIANTS.get(thresholds.variant).extra_evaluations(thresholds.parameters)


def modules_of(thresholds: Thresholds | None) -> tuple[str, ...]:
    """Modules of the network whose activations thresholds look at."""
    if thresholds is None:
        return ()
    return tuple(VARIANTS.get(thresholds.variant).modules(thresholds.parameters))


def needs_network(thresholds: Thresholds | None) -> bool:
    """Whether thresholds evaluate the model beyond sampling (a lookahead)."""
    return extra_evaluations(thresholds) > 0
