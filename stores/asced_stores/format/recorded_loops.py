"""Recordings of sampling loops of one's own, which no name can load again; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CUSTOM = "custom"
"""What a recorded loop calls its scheduler."""


def is_loop_recording(attributes: Mapping[str, Any]) -> bool:
    """Whether a store was recorded from a loop of one's own, and from no pipeline.

    Examples
    --------
    >>> from asced_stores.format.recorded_loops import is_loop_recording
    >>> is_loop_recording({"scheduler_class": "DDIMScheduler"})
    False
    """
    return attributes.get("scheduler_class") == CUSTOM
