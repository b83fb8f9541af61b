"""The network predicts the noise."""

from __future__ import annotations

from typing import Any

from asced_stores.prediction_types.prediction_type import PredictionType, over


class Epsilon(PredictionType):
    """See the module."""

    name = "epsilon"
    aliases = ("eps",)

    def eps_and_x0(
        self, sample: Any, output: Any, alpha: Any, sigma: Any, sigma_data: float
    ) -> tuple[Any, Any]:
        """See `PredictionType.eps_and_x0`."""
        return output, (sample - sigma * output) * over(1.0, alpha)

    def from_eps(self, eps: Any, sample: Any, alpha: Any, sigma: Any, sigma_data: float) -> Any:
        """See `PredictionType.from_eps`."""
        return eps


PREDICTION = Epsilon()
