"""Score dynamics as array kernels: NumPy, torch or any array-API library, core axes last.

Every kernel takes arrays of shape ``(..., step, channel, y, x)`` and noise levels of shape
``(step,)``, step 0 at the noisy end. Half precision is widened to float32 on entry, because a
difference of two fp16 numbers is not an fp16 number; float32 and float64 keep their type.

Notation (arXiv:2503.16218 in the notation of one sampler for all): a sample is
``x = alpha * x0 + sigma * eps``, ``kappa = sigma / alpha``, the score is ``s = -eps / sigma`` and
the weighted score is ``W = (sigma**2 / alpha) * s = -kappa * eps``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from asced_stores.errors import InputError

Array: TypeAlias = Any
"""An array of any array-API library (numpy.ndarray, torch.Tensor, ...)."""

Levels: TypeAlias = Sequence[float] | npt.NDArray[np.floating[Any]]
"""One noise level a step, shape (step,)."""

STEP_AXIS = -4


def noise_ratio(alpha: Levels, sigma: Levels) -> npt.NDArray[np.float64]:
    """``kappa = sigma / alpha`` of each step.

    Parameters
    ----------
    alpha, sigma : sequence of float, shape (step,)
        Signal and noise level of each step.

    Returns
    -------
    numpy.ndarray, shape (step,), float64

    Raises
    ------
    InputError
        Where alpha is zero: the weighted score is infinite there, and the step has to be dropped
        (`first_regular_step`), never filled with a number.
    """
    signal, noise = np.asarray(alpha, np.float64), np.asarray(sigma, np.float64)
    if signal.shape != noise.shape or signal.ndim != 1:
        raise InputError(
            f"alpha has shape {signal.shape} and sigma {noise.shape}; expected one number a step "
            "in each"
        )
    if not np.all(signal > 0):
        step = int(np.flatnonzero(~(signal > 0))[0])
        raise InputError(
            f"alpha is {signal[step]} at step {step}: the weighted score is infinite there. "
            f"Drop the steps before {first_regular_step(alpha)}"
        )
    return noise / signal


def first_regular_step(alpha: Levels) -> int:
    """First step whose weighted score is finite (1 for flow matching and zero terminal SNR).

    Parameters
    ----------
    alpha : sequence of float, shape (step,)
        Signal level of each step.

    Returns
    -------
    int
        0 where every alpha is positive.
    """
    singular = np.flatnonzero(~(np.asarray(alpha, np.float64) > 0))
    return int(singular[-1]) + 1 if singular.size else 0


def score(eps: Array, sigma: Levels, /) -> Array:
    """Score of the noised distribution, ``s = -eps / sigma``.

    Parameters
    ----------
    eps : array, shape (..., step, channel, y, x)
        Noise prediction, in standard deviations.
    sigma : sequence of float, shape (step,)
        Noise level.

    Returns
    -------
    array, shape (..., step, channel, y, x)
        Per unit of the sample's own range.
    """
    return _scale(eps, -1.0 / np.asarray(sigma, np.float64))


def weighted_score(eps: Array, alpha: Levels, sigma: Levels, /) -> Array:
    """Weighted score ``W = (sigma**2 / alpha) * s = -kappa * eps`` (Eq. 4 of arXiv:2503.16218).

    Parameters
    ----------
    eps : array, shape (..., step, channel, y, x)
        Noise prediction, in standard deviations.
    alpha, sigma : sequence of float, shape (step,)
        Signal and noise level.

    Returns
    -------
    array, shape (..., step, channel, y, x)
        In units of the data's own range.

    Raises
    ------
    InputError
        Where alpha is zero; see `noise_ratio`.
    """
    return _scale(eps, -noise_ratio(alpha, sigma))


def score_dynamics(weighted_score: Array, /) -> Array:
    """Difference of the weighted score between adjacent steps (Eq. 4 of arXiv:2503.16218).

    Parameters
    ----------
    weighted_score : array, shape (..., step, channel, y, x)
        In units of the data's own range; any other signal may stand in its place.

    Returns
    -------
    array, shape (..., step - 1, channel, y, x)
        Entry j is ``D_k = W_k - W_{k-1}`` of the later step k = j + 1.
    """
    signal = _widen(weighted_score)
    return signal[..., 1:, :, :, :] - signal[..., :-1, :, :, :]


def predicted_x0_change(x0: Array, /) -> Array:
    """Change of the predicted clean sample between adjacent steps (the released code's signal).

    Parameters
    ----------
    x0 : array, shape (..., step, channel, y, x)
        Predicted x0, unclipped, in units of the data's own range.

    Returns
    -------
    array, shape (..., step - 1, channel, y, x)
    """
    return score_dynamics(x0)


def innovation(eps: Array, alpha: Levels, sigma: Levels, /) -> Array:
    """What the model changed its mind about: ``-kappa_k * (eps_k - eps_{k-1})``.

    It is the weighted-score difference without the part that is only the schedule acting on old
    noise, and it equals the change of predicted x0 for a deterministic first-order sampler.

    Parameters
    ----------
    eps : array, shape (..., step, channel, y, x)
        Noise prediction, in standard deviations.
    alpha, sigma : sequence of float, shape (step,)
        Signal and noise level. Alpha may be zero at step 0, whose kappa is not used.

    Returns
    -------
    array, shape (..., step - 1, channel, y, x)
        In units of the data's own range.
    """
    return _scale(score_dynamics(eps), -noise_ratio(alpha[1:], sigma[1:]))


def acceleration(dynamics: Array, /) -> Array:
    """``|D_k| - |D_{k-1}|``: positive where the signal changes ever faster.

    Parameters
    ----------
    dynamics : array, shape (..., step, channel, y, x)
        Differences as `score_dynamics` returns them.

    Returns
    -------
    array, shape (..., step - 1, channel, y, x)
    """
    xp = array_namespace(dynamics)
    return score_dynamics(xp.abs(_widen(dynamics)))


def log_snr_rate(dynamics: Array, log_snr: Levels, /) -> Array:
    """Dynamics per unit of log-SNR, comparable between step counts and schedulers.

    Parameters
    ----------
    dynamics : array, shape (..., step - 1, channel, y, x)
        Differences between adjacent steps.
    log_snr : sequence of float, shape (step,)
        ``2 * log(alpha / sigma)`` of the steps that were differenced (one more than the
        differences).

    Returns
    -------
    array, shape (..., step - 1, channel, y, x)
        Zero where one of the two steps is free of noise or of signal: the interval is infinite.

    Raises
    ------
    InputError
        When the number of levels does not fit.
    """
    levels = np.asarray(log_snr, np.float64)
    if levels.shape != (dynamics.shape[STEP_AXIS] + 1,):
        raise InputError(
            f"{dynamics.shape[STEP_AXIS]} differences need {dynamics.shape[STEP_AXIS] + 1} "
            f"log-SNR levels, found shape {levels.shape}"
        )
    return _scale(dynamics, 1.0 / np.abs(np.diff(levels)))


def trajectory_variance(x0: Array, /, *, last: int | None = None) -> Array:
    """Variance over steps of the predicted clean sample (arXiv:2406.09358).

    Parameters
    ----------
    x0 : array, shape (..., step, channel, y, x)
        Predicted x0.
    last : int, optional
        Only the last steps; all of them by default. Window and direction must be calibrated.

    Returns
    -------
    array, shape (..., channel, y, x)
        A map; its mean over pixels is the score of a run.

    Raises
    ------
    InputError
        When `last` is not between 1 and the number of steps.
    """
    steps = x0.shape[STEP_AXIS]
    count = steps if last is None else last
    if not 1 <= count <= steps:
        raise InputError(f"the last {count} of {steps} steps do not exist; choose 1 to {steps}")
    window = _widen(x0)[..., steps - count :, :, :, :]
    return array_namespace(window).var(window, axis=STEP_AXIS)


def root_mean_square(signal: Array, /) -> Array:
    """Root mean square over channel and pixels, the norm that ignores image size.

    Parameters
    ----------
    signal : array, shape (..., step, channel, y, x)
        Any signal.

    Returns
    -------
    array, shape (..., step)
    """
    wide = _widen(signal)
    xp = array_namespace(wide)
    return xp.sqrt(xp.mean(wide * wide, axis=(-3, -2, -1)))


def _widen(values: Array) -> Array:
    """Half precision as float32; everything else as it is."""
    xp = array_namespace(values)
    halves = {"float16", "bfloat16"}
    if str(values.dtype).rpartition(".")[2] in halves:
        return xp.astype(values, xp.float32)
    return values


def _scale(values: Array, factors: npt.NDArray[np.float64]) -> Array:
    """Multiply each step by its own factor, in the type of the (widened) values."""
    wide = _widen(values)
    xp = array_namespace(wide)
    if wide.shape[STEP_AXIS] != factors.shape[0]:
        raise InputError(
            f"{wide.shape[STEP_AXIS]} steps in an array of shape {tuple(wide.shape)}, but "
            f"{factors.shape[0]} noise levels; expected (..., step, channel, y, x)"
        )
    column = xp.asarray(factors, dtype=wide.dtype, device=device_of(wide))
    return wide * xp.reshape(column, (-1, 1, 1, 1))
