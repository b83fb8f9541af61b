"""What a thresholds file holds, beside its format and version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from asced_analysis.thresholds.parts import (
    Cleanup,
    ConformanceVector,
    Correction,
    DriftCounts,
    Fingerprint,
    Guarantee,
    Levels,
    Name,
    Teaching,
    Transfer,
    WeightsFile,
    Window,
)


@dataclass(frozen=True)
class Content:
    """The fields of a thresholds file; `asced_analysis.Thresholds` says what they mean."""

    variant: Name
    parameters: Mapping[str, Any]
    levels: Levels
    window: Window
    cleanup: Cleanup
    correction: Correction
    guarantee: Guarantee
    fingerprint: Fingerprint
    counts: DriftCounts = field(default_factory=DriftCounts)
    conformance: Annotated[tuple[ConformanceVector, ...], Meta(max_length=16)] = ()
    groups: Annotated[Mapping[str, float], Meta(max_length=10_000)] = field(default_factory=dict)
    grouped_by: Name | None = None
    transfers: Annotated[tuple[Transfer, ...], Meta(max_length=1000)] = ()
    weights: WeightsFile | None = None
    teacher: Teaching | None = None
