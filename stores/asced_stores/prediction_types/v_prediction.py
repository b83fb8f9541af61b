"""The network predicts ``v = A eps - S x0``, with ``(A, S) = (alpha, sigma) / r``."""

from __future__ import annotations

from typing import Any

from asced_stores.prediction_types.prediction_type import PredictionType, over


class VPrediction(PredictionType):
    """See the module."""

    name = "v_prediction"
    aliases = ("v",)

    def eps_and_x0(
        self, sample: Any, output: Any, alpha: Any, sigma: Any, sigma_data: float
    ) -> tuple[Any, Any]:
        """See `PredictionType.eps_and_x0`."""
        r = (alpha**2 + sigma**2) ** 0.5
        A, S = alpha / r, sigma / r
        x = sample * (1.0 / r)
        return S * x + A * output, A * x - S * output

    def from_eps(self, eps: Any, sample: Any, alpha: Any, sigma: Any, sigma_data: float) -> Any:
        """See `PredictionType.from_eps`."""
        r = (alpha**2 + sigma**2) ** 0.5
        return (eps - (sigma / r) * sample * (1.0 / r)) * over(r, alpha)


PREDICTION = VPrediction()
