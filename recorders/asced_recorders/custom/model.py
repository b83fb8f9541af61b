"""The model that a loop of one's own says its steps come from."""

from __future__ import annotations

from typing import Any

from asced_recorders.pipelines.fingerprint import model_fingerprint
from asced_recorders.pipelines.model_facts import compute_facts
from asced_stores.errors import InputError


def check_model(model: Any) -> Any:
    """A torch module, a pipeline or None, as given.

    Raises
    ------
    InputError
        If it has no weights.
    """
    from torch import nn

    if model is None or isinstance(model, nn.Module) or hasattr(model, "components"):
        return model
    raise InputError(
        f"model is a {type(model).__name__}: give the torch module or pipeline whose weights are "
        "to be known again"
    )


def facts_of(model: Any) -> dict[str, Any]:
    """What a store says of it, as attributes."""
    if model is None:
        return {}
    return {"model_fingerprint": model_fingerprint(model), "compute": compute_facts(model)}
