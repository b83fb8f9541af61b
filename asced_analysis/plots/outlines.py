"""What the outlines of masks are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def outlined_place(attributes: Mapping[str, Any] | None) -> str:
    """What a replay's masks are: regions that were flagged, or what a strategy renewed."""
    where = ((attributes or {}).get("strategy_parameters") or {}).get("where", "mask")
    return "flagged region" if where == "mask" else "renewed region"
