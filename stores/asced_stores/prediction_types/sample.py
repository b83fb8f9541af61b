"""The network predicts the clean sample."""

from __future__ import annotations

from typing import Any

from asced_stores.prediction_types.prediction_type import PredictionType, over


class Sample(PredictionType):
    """See the module."""

    name = "sample"
    aliases = ("original_sample",)

    def eps_and_x0(
        self, sample: Any, output: Any, alpha: Any, sigma: Any, sigma_data: float
    ) -> tuple[Any, Any]:
        """See `PredictionType.eps_and_x0`."""
        return (sample - alpha * output) * over(1.0, sigma), output

    def from_eps(self, eps: Any, sample: Any, alpha: Any, sigma: Any, sigma_data: float) -> Any:
        """See `PredictionType.from_eps`."""
        return (sample - sigma * eps) * over(1.0, alpha)


PREDICTION = Sample()
