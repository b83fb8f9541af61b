"""What thresholds remember of the runs they were calibrated on, and how two memories differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from asced_analysis.thresholds.files import ThresholdsError
from asced_analysis.thresholds.parts import Fingerprint

PORTABLE_KEYS = (
    *("scheduler_class", "steps", "scheduler_config"),
    *("pipeline", "versions", "dtype", "compute"),
)
LONGEST = 2000


class FingerprintMismatchError(ThresholdsError):
    """Thresholds were calibrated on something else."""


class PortabilityWarning(UserWarning):
    """The promised false-alarm rate was not shown for this sampler, or the model is not known."""


def fingerprint_of(
    attributes: Mapping[str, Any], sample_shape: Sequence[int], *, steps: int | None = None
) -> Fingerprint:
    """What thresholds remember of the runs they were calibrated on.

    Parameters
    ----------
    attributes : mapping
        A store's attributes.
    sample_shape : sequence of int
        ``(channel, y, x)`` or ``(frame, channel, y, x)``.
    steps : int, optional
        Of the sampler; by default what the attributes say.
    """
    computed = attributes.get("compute")
    conditions: dict[str, Any] = {}
    if computed is not None:  # caches, compilation, quantisation, attention, precision
        conditions["compute"] = {
            name: json.dumps(value, sort_keys=True)[:LONGEST] for name, value in computed.items()
        }
    return {
        "model_fingerprint": attributes.get("model_fingerprint"),
        "prediction_type": attributes.get("prediction_type"),
        "sample_shape": [int(size) for size in sample_shape],
        "scheduler_class": attributes.get("scheduler_class"),
        "steps": attributes.get("steps") if steps is None else steps,
        "pipeline": attributes.get("pipeline"),
        **conditions,  # type: ignore[typeddict-item]
    }


def differences(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs between a file's fingerprint and another, where both say it; a sampler may."""
    return [
        f"{key} is {other[key]!r}, thresholds were calibrated on {value!r}"
        for key, value in own.items()
        if key not in PORTABLE_KEYS
        and value is not None
        and other.get(key) is not None
        and _plain(other[key]) != _plain(value)
    ]


def other_conditions(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Conditions under which a model computes that differ, where both say what they are."""
    ours, theirs = own.get("compute"), other.get("compute")
    if ours is None or theirs is None:
        return []
    return [
        f"{name} {theirs.get(name, 'none')}, then {ours.get(name, 'none')}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]


def _plain(value: Any) -> Any:
    """A value as JSON has it, so that tuples equal lists."""
    return json.loads(json.dumps(value))
