"""Options of a recorder for a loop of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from asced_recorders.writing.options import StoreOptions
from asced_stores.errors import InputError
from asced_stores.format.metadata import RESERVED_ATTRIBUTES
from asced_stores.options import option, options

KNOWN = {
    "pipeline": str,
    "pipeline_class": str,
    "scheduler_class": str,
    "scheduler_module": str,
    "scheduler_base": str,
    "scheduler_config": Mapping,
    "model_fingerprint": str,
    "call": Mapping,
    "versions": Mapping,
}
"""Facts that a store has a meaning for and a loop may know better, with their kinds."""
OWN = frozenset(
    (
        *RESERVED_ATTRIBUTES,
        *("activations", "adapters", "call_missing", "compute", "correction", "device"),
        *("dropped_steps", "flags", "guider", "guider_2", "keep", "kept_steps", "launch"),
        *("loop", "loop_array", "loop_shape", "model_dtype", "networks_by_step"),
        *("prediction_type", "pruning", "repacked", "replay_conditions", "replay_of"),
        *("selected_from", "sigma_data", "start", "steps", "stores", "strategy", "threads"),
        *("thresholds", "unseeded_noise", "value_range"),
    )
)
"""Facts that are the recorder's own to say, and that readers of a store go by."""


@options
class CustomOptions(StoreOptions):
    """How a loop of one's own is recorded."""

    attributes: Mapping[str, Any] | None = option(
        None,
        "Further facts for the store, strictly JSON. Those of model, scheduler, call and versions "
        "go before what is found; names that are the recorder's own are refused.",
    )
    model: Any = option(
        None,
        "The torch module or pipeline that the steps come from. A hash of its weights, taken when "
        "the first batch is complete, is the store's ``model_fingerprint``: thresholds then know "
        "this model from others. Give a pipeline where other stores of it are recorded with "
        "`Recorder`.",
    )
    corrector: Any = option(
        None,
        "An `asced_analysis.correction.Corrector` that corrects what is recorded: `step` then "
        "returns what it makes of `next_sample`, and the store keeps each run's flag, score and "
        "mask.",
    )

    def __post_init__(self) -> None:
        """Check the options, and make plain dicts, lists and numbers of attributes.

        Raises
        ------
        InputError
            Where an option or an attribute cannot be written.
        """
        super().__post_init__()
        if self.attributes is not None:
            object.__setattr__(self, "attributes", checked_attributes(self.attributes))


def checked_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse facts that would stand in the place of a recorder's own, before anything is sampled.

    Parameters
    ----------
    attributes : mapping of str
        Of mappings, sequences, text, numbers (NumPy's too), truth values and None.

    Returns
    -------
    dict
        The same in plain dicts, lists and numbers, as JSON holds them.

    Raises
    ------
    InputError
        Naming the attribute, and what may be given in its place.
    """
    if not isinstance(attributes, Mapping):
        raise InputError(f"attributes is {attributes!r}: give a mapping of names to values")
    if taken := sorted(OWN.intersection(attributes)):
        raise InputError(
            f"attributes {', '.join(taken)} are the recorder's own: call them otherwise"
        )
    for name, kind in KNOWN.items():
        if name in attributes and not isinstance(attributes[name], kind):
            wanted = "text" if kind is str else "a mapping"
            raise InputError(
                f"attribute {name} is {attributes[name]!r}: give {wanted}, or call it otherwise"
            )
    return {_named(name, "attributes"): _plain(value, name) for name, value in attributes.items()}


def _named(name: Any, where: str) -> str:
    """Refuse a name that is no text, which JSON would change."""
    if not isinstance(name, str):
        raise InputError(f"{where} has the name {name!r}: give text, for example {str(name)!r}")
    return name


def _plain(value: Any, name: str) -> Any:
    """A value as JSON holds it; `name` says where it lies."""
    if isinstance(value, Mapping):
        return {
            _named(key, f"attribute {name}"): _plain(each, f"{name}.{key}")
            for key, each in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(each, f"{name}[{place}]") for place, each in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"attribute {name} is {value!r}, which JSON does not hold: give text, a finite "
            "number, true or false, None, or lists and mappings of them"
        ) from error
    return value
