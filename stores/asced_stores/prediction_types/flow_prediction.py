"""The network predicts the velocity ``eps - x0`` of flow matching (``alpha = 1 - sigma``)."""

from __future__ import annotations

from typing import Any

from asced_stores.prediction_types.prediction_type import PredictionType, over


class FlowPrediction(PredictionType):
    """See the module."""

    name = "flow_prediction"
    aliases = ("flow", "velocity")

    def eps_and_x0(
        self, sample: Any, output: Any, alpha: Any, sigma: Any, sigma_data: float
    ) -> tuple[Any, Any]:
        """See `PredictionType.eps_and_x0`."""
        return sample + alpha * output, sample - sigma * output

    def from_eps(self, eps: Any, sample: Any, alpha: Any, sigma: Any, sigma_data: float) -> Any:
        """See `PredictionType.from_eps`."""
        return (eps - sample) * over(1.0, alpha)


PREDICTION = FlowPrediction()
