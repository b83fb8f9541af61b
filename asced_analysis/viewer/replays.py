"""What the store of a replay says of itself, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def correction_in_words(attributes: Mapping[str, Any]) -> str:
    """What a replay did to flagged runs."""
    if "strategy" not in attributes:
        return "corrected"
    parameters = attributes.get("strategy_parameters") or {}
    words = [f"corrected: {attributes['strategy']}"]
    if "where" in parameters:
        words.append(str(parameters["where"]))
    if "draws" in parameters:
        words.append(f"best of {parameters['draws']} draws")
    if parameters.get("renoise_steps"):
        words.append("again at " + ", ".join(f"{when:g}" for when in parameters["renoise_steps"]))
    if attributes.get("correction_step") is not None:
        words.append(f"step {attributes['correction_step']}")
    return ", ".join(words)
