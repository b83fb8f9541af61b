"""Detection variants by name; `asced_analysis.thresholds.registries` says where they come from."""

from asced_analysis.thresholds.registries import VARIANTS

__all__ = ["VARIANTS"]
