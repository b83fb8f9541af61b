"""The raw network ``F`` of EDM (arXiv:2206.00364, table 1): ``x0 = c_skip x + c_out F``."""

from __future__ import annotations

from typing import Any, ClassVar

from asced_stores.prediction_types.prediction_type import PredictionType, over


class Edm(PredictionType):
    """See the module."""

    name = "edm"
    sign: ClassVar[float] = 1.0

    def eps_and_x0(
        self, sample: Any, output: Any, alpha: Any, sigma: Any, sigma_data: float
    ) -> tuple[Any, Any]:
        """See `PredictionType.eps_and_x0`."""
        c_skip, c_out = self._coefficients(sigma, sigma_data)
        x0 = c_skip * sample + c_out * output
        return (sample - x0) * over(1.0, sigma), x0

    def from_eps(self, eps: Any, sample: Any, alpha: Any, sigma: Any, sigma_data: float) -> Any:
        """See `PredictionType.from_eps`."""
        c_skip, c_out = self._coefficients(sigma, sigma_data)
        return (sample - sigma * eps - c_skip * sample) * over(1.0, c_out)

    def _coefficients(self, sigma: Any, sigma_data: float) -> tuple[Any, Any]:
        """``c_skip`` and ``c_out``."""
        total = sigma**2 + sigma_data**2
        return sigma_data**2 / total, self.sign * sigma * sigma_data / total**0.5


PREDICTION = Edm()
