"""What a prediction type is, and the arithmetic that they share.

Formulas are for any array that follows the array API; ``alpha`` and ``sigma`` are Python floats, or
arrays that broadcast against the sample, of ``sample = alpha * x0 + sigma * eps``.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from array_api_compat import array_namespace


class PredictionType:
    """What a network's output means; one subclass a file, of which ``PREDICTION`` is the instance.

    Attributes
    ----------
    name : str
        The project's name.
    aliases : tuple of str
        Other names that samplers and configurations use.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()

    def eps_and_x0(
        self, sample: Any, output: Any, alpha: Any, sigma: Any, sigma_data: float
    ) -> tuple[Any, Any]:
        """Predicted noise and predicted clean sample.

        Parameters
        ----------
        sample, output : array
            What entered the step, and what the network returned.
        alpha, sigma : float or array
            Noise level of `sample`.
        sigma_data : float
            Standard deviation of the data, where the type needs it.
        """
        raise NotImplementedError

    def from_eps(self, eps: Any, sample: Any, alpha: Any, sigma: Any, sigma_data: float) -> Any:
        """The network's output for a predicted noise: the inverse; NaN where there is none."""
        raise NotImplementedError


def over(numerator: Any, denominator: Any) -> Any:
    """Quotient that is NaN where the denominator is 0, without a warning."""
    if isinstance(denominator, float):
        return numerator / denominator if denominator != 0 else numerator * math.nan
    xp = array_namespace(denominator)
    safe = xp.where(denominator == 0, xp.full_like(denominator, math.nan), denominator)
    return numerator / safe
