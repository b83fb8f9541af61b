"""Options of a recorder for a loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asced_recorders.writing.options import StoreOptions
from asced_stores.options import option, options


@options
class CustomOptions(StoreOptions):
    """How a loop of one's own is recorded."""

    attributes: Mapping[str, Any] | None = option(
        None, "Further facts for the store; they go before those that are found."
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
