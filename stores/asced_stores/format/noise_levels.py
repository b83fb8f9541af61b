"""What a network said, in one notation: ``x = alpha * x0 + sigma * eps``, for every sampler.

Pure formulas for any array that follows the array API (NumPy, torch, ...). ``alpha`` and ``sigma``
are Python floats, or arrays that broadcast against the sample. The names follow arXiv:2503.16218
and Karras et al., arXiv:2206.00364.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from asced_stores.prediction_types.prediction_type import over
from asced_stores.prediction_types.registry import PREDICTION_TYPES, canonical_prediction_type

__all__ = [
    "PREDICTION_TYPES",
    "canonical_prediction_type",
    "eps_and_x0",
    "log_snr",
    "model_output_from_eps",
    "score",
    "weighted_score",
]


def log_snr(alpha: Any, sigma: Any, /) -> Any:
    """Logarithm of the signal-to-noise ratio, ``2 * log(alpha / sigma)``.

    The time axis that depends neither on the scheduler nor on the number of steps. It is
    ``-inf`` where ``alpha`` is 0 (pure noise) and ``inf`` where ``sigma`` is 0.

    Parameters
    ----------
    alpha, sigma : float or array
        Noise level, of the same shape or broadcastable.

    Returns
    -------
    float or array
        In nats.
    """
    alpha, sigma = _arrays(alpha), _arrays(sigma)
    if isinstance(alpha, float) and isinstance(sigma, float):
        return 2.0 * (_log(alpha) - _log(sigma))
    xp = array_namespace(*_only_arrays(alpha, sigma))
    with np.errstate(divide="ignore"):
        left = _log(alpha) if isinstance(alpha, float) else xp.log(alpha)
        right = _log(sigma) if isinstance(sigma, float) else xp.log(sigma)
        return 2.0 * (left - right)


def score(eps: Any, sigma: Any, /) -> Any:
    """Score of the noisy density, ``-eps / sigma``.

    Parameters
    ----------
    eps : array
        Predicted noise.
    sigma : float or array
        Noise level, broadcastable against `eps`; NaN comes out where it is 0.

    Returns
    -------
    array
        Like `eps`, in units of one over the sample's unit.
    """
    return -eps * over(1.0, _arrays(sigma))


def weighted_score(eps: Any, alpha: Any, sigma: Any, /) -> Any:
    """Weighted score ``W = -(sigma / alpha) * eps``, the quantity of Eq. 4 of arXiv:2503.16218.

    It equals ``sigma**2 / alpha * score`` and ``x0 - x / alpha`` in every parametrisation. NaN
    where ``alpha`` is 0 (first step of flow matching and of zero-terminal-SNR schedules): ``W`` is
    infinite there and is to be dropped, never filled with a number.

    Parameters
    ----------
    eps : array
        Predicted noise.
    alpha, sigma : float or array
        Noise level, broadcastable against `eps`.

    Returns
    -------
    array
        Like `eps`, in units of the data.
    """
    return -eps * over(_arrays(sigma), _arrays(alpha))


def eps_and_x0(
    sample: Any,
    model_output: Any,
    /,
    *,
    alpha: Any,
    sigma: Any,
    prediction_type: str,
    sigma_data: float = 0.5,
) -> tuple[Any, Any]:
    """Predicted noise and predicted clean sample from what the network returned.

    Parameters
    ----------
    sample : array
        The sample that entered the step, in the scheduler's own coordinates.
    model_output : array, of the shape of `sample`
        After guidance, before any clipping or thresholding.
    alpha, sigma : float or array
        Noise level of `sample`.
    prediction_type : str
        See `canonical_prediction_type`. ``edm`` and ``edm_v`` are the raw network ``F`` of
        arXiv:2206.00364 (table 1), with ``c_out`` negative in the latter, as diffusers has it.
    sigma_data : float
        Standard deviation of the data, for ``edm`` only.

    Returns
    -------
    eps, x0 : array
        With ``sample = alpha * x0 + sigma * eps``.

    Raises
    ------
    InputError
        If the prediction type is unknown.
    """
    kind = PREDICTION_TYPES.get(canonical_prediction_type(prediction_type))
    found: tuple[Any, Any] = kind.eps_and_x0(
        sample, model_output, _arrays(alpha), _arrays(sigma), sigma_data
    )
    return found


def model_output_from_eps(
    eps: Any,
    sample: Any,
    /,
    *,
    alpha: Any,
    sigma: Any,
    prediction_type: str,
    sigma_data: float = 0.5,
) -> Any:
    """Turn a predicted noise back into the network's own output: the inverse of `eps_and_x0`.

    Parameters
    ----------
    eps : array
        Predicted noise, for example after score clipping.
    sample : array, of the shape of `eps`
        The sample that entered the step.
    alpha, sigma : float or array
        Noise level of `sample`; where the inverse does not exist (``alpha`` 0, unless the type is
        ``epsilon`` or ``score``) the result is NaN.
    prediction_type, sigma_data
        As for `eps_and_x0`.

    Returns
    -------
    array

    Raises
    ------
    InputError
        If the prediction type is unknown.
    """
    kind = PREDICTION_TYPES.get(canonical_prediction_type(prediction_type))
    return kind.from_eps(eps, sample, _arrays(alpha), _arrays(sigma), sigma_data)


def _arrays(level: Any) -> Any:
    """Leave arrays alone; turn numbers into floats and sequences into NumPy arrays."""
    if is_array_api_obj(level) and level.ndim:
        return level
    if isinstance(level, (list, tuple)):
        return np.asarray(level, dtype=np.float64)
    return float(level)


def _only_arrays(*levels: Any) -> list[Any]:
    return [level for level in levels if not isinstance(level, float)]


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
