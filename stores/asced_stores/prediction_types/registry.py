"""Prediction types by name."""

from __future__ import annotations

from asced_stores.errors import InputError
from asced_stores.prediction_types.prediction_type import PredictionType
from asced_stores.registry import Registry

PREDICTION_TYPES: Registry[PredictionType] = Registry(
    "prediction type",
    group="asced.prediction_types",
    package="asced_stores.prediction_types",
    modules=(
        "epsilon",
        "sample",
        "v_prediction",
        "flow_prediction",
        "score",
        "edm",
        "edm_v",
    ),
    attribute="PREDICTION",
)


def canonical_prediction_type(prediction_type: str, /) -> str:
    """Return the project's name of a prediction type.

    Parameters
    ----------
    prediction_type : str
        One of `PREDICTION_TYPES`, or an alias: ``flow``, ``velocity``, ``eps``, ``v``,
        ``original_sample`` (the name that some Euler configurations use).

    Raises
    ------
    InputError
        If the name is unknown.
    """
    if prediction_type in PREDICTION_TYPES:
        return prediction_type
    for name in PREDICTION_TYPES:
        if prediction_type in PREDICTION_TYPES.get(name).aliases:
            return name
    raise InputError(
        f"unknown prediction type {prediction_type!r}: give one of {', '.join(PREDICTION_TYPES)}"
    )
