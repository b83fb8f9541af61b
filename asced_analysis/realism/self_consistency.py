"""Self-consistency: how far a model's own prediction from a re-noised image lies from the image.

A finished sample is re-noised several times to one level, the model predicts x0 once from each, and
the mean prediction is compared with the sample: the model's averaged score at that level, seen from
its own end product. It needs no label, no real image and no features, and works on pixels and
latents alike. A picture with more in it is further from its mean prediction, so one slope on the
sample's own energy is taken off (compare complexity-corrected likelihoods, arXiv 2310.17432;
reconstruction-based detection, 2211.07740).

It must not report on corrections by the same model: re-noising and denoising lowers it by
construction.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import InputError

DRAWS = 4  # of noise; 8 gain a hundredth of AUROC at twice the cost
LOG_SNR = 0.5  # of pictures: as good as or better than -0.4 on four kinds (docs/judges.md)
FEW = 6.0  # log-SNR for one number: 5.3 for points of a plane, 0.5 from 250 numbers on
SMOOTH = 5  # places over which a map is averaged
FLOOR = 1e-8

Samples = NDArray[np.float32]
Predict = Callable[[Samples, NDArray[np.intp]], NDArray[np.floating[Any]]]
"""``predict(noised, which)`` to predicted x0; `which` are the samples' places."""


def level_for(numbers: int) -> float:
    """Log-SNR to re-noise samples of so many numbers to.

    Pictures are told apart through heavy noise by their many pixels. Samples of a few numbers are
    not: on a plane, AUROC is .42 at 0.5 and .99 at 5.
    """
    return max(LOG_SNR, FEW - float(np.log(max(1, numbers))))


def level_step(log_snr: Sequence[float], target: float = LOG_SNR) -> int:
    """The step of a schedule whose log-SNR is nearest to a target; never the first.

    Raises
    ------
    InputError
        For a schedule of one step.
    """
    levels = np.asarray(log_snr, np.float64)
    inside = [step for step in range(1, len(levels)) if np.isfinite(levels[step])]
    if not inside:
        raise InputError(
            f"a schedule of {len(levels)} steps has no level to re-noise to; record runs of at "
            "least 2 steps"
        )
    return min(inside, key=lambda step: abs(levels[step] - target))


def mean_residual(
    samples: Samples,
    predict: Predict,
    *,
    alpha: float,
    sigma: float,
    draws: int = DRAWS,
    seed: int = 0,
    runs: NDArray[np.integer[Any]] | None = None,
) -> Samples:
    """Squared difference of the mean prediction and the sample, by place.

    Parameters
    ----------
    samples : float32 array, shape (n, channel, y, x)
        Finished samples, or predicted x0.
    predict : callable
        The model, under each run's own prompt, class and guidance.
    alpha, sigma : float
        The level that is re-noised to, in the schedule's own coordinates.
    draws : int
        Of noise.
    seed : int
        Of that noise; a run's own does not depend on who is asked with it.
    runs : int array, shape (n,), optional
        Numbers of the runs, for their noise.

    Returns
    -------
    float32 array, shape (n, y, x)
        Mean over channels.

    Raises
    ------
    InputError
        Where the network answers with another shape, or not with finite numbers.
    """
    if draws < 1:
        raise InputError(f"draws is {draws}; expected at least 1")
    samples = np.asarray(samples, np.float32)
    numbers = np.arange(len(samples)) if runs is None else np.asarray(runs)
    total = np.zeros(samples.shape, np.float64)
    for draw in range(draws):
        noise = np.stack(
            [noise_of((seed, int(run) % 2**31, draw), samples.shape[1:]) for run in numbers]
        )
        noised = np.float32(alpha) * samples + np.float32(sigma) * noise
        found = np.asarray(predict(noised, np.arange(len(samples))))
        if found.shape != samples.shape:
            raise InputError(
                f"the network predicted x0 of shape {found.shape} for samples of shape "
                f"{samples.shape}; expected network(sample, alpha, sigma) -> predicted x0"
            )
        if not np.isfinite(found).all():
            raise InputError("the network predicted an x0 that is not finite")
        total += found
    return np.asarray(redrawn_residual(samples, total / draws), np.float32)


def network_at(network: Any, alpha: float, sigma: float) -> Callable[[Any], Any]:
    """A network of one's own at one level, given tensors for arrays and called without gradients.

    Raises
    ------
    InputError
        Where it does not take a sample, alpha and sigma.
    """
    name = getattr(network, "__name__", type(network).__name__)
    try:
        inspect.signature(network).bind(None, alpha, sigma)
    except TypeError as error:
        raise InputError(
            f"the network {name} cannot be called with a sample, alpha and sigma ({error}); "
            "expected network(sample, alpha, sigma) -> predicted x0"
        ) from error
    except ValueError:  # written in C: it says nothing of what it takes
        pass

    def ask(noised: Any) -> Any:
        import torch

        try:
            with torch.no_grad():
                found = network(torch.from_numpy(noised), alpha, sigma)
        except Exception as error:
            error.add_note(f"raised by the network {name}, given samples of shape {noised.shape}")
            raise
        if hasattr(found, "detach"):
            found = found.detach().float().cpu().numpy()
        return np.asarray(found, np.float32)

    return ask


def noise_of(seed: tuple[int, ...], shape: tuple[int, ...]) -> Samples:
    """One draw of standard normal noise, the same wherever it is drawn."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def redrawn_residual(samples: Any, predicted: Any) -> Any:
    """Squared difference of the mean prediction and the sample, mean over channels.

    Parameters
    ----------
    samples, predicted : arrays, shape (n, channel, y, x)
        Of NumPy, torch or any array-API library.

    Returns
    -------
    array, shape (n, y, x)
    """
    return array_api_compat.array_namespace(samples).mean((predicted - samples) ** 2, axis=1)


def content_energy(samples: Any) -> Any:
    """Mean squared distance of samples from their background, the median of their border.

    Parameters
    ----------
    samples : array, shape (n, channel, y, x)

    Returns
    -------
    array, shape (n,)
    """
    xp = array_api_compat.array_namespace(samples)
    wide = samples if samples.dtype == xp.float64 else xp.astype(samples, xp.float32)
    border = xp.sort(
        xp.concat([wide[:, :, 0], wide[:, :, -1], wide[..., 0], wide[..., -1]], axis=2), axis=2
    )
    count = border.shape[2]
    median = (border[:, :, (count - 1) // 2] + border[:, :, count // 2]) / 2
    return xp.mean((wide - median[:, :, None, None]) ** 2, axis=(1, 2, 3))


def content_slope(residual: NDArray[np.floating[Any]], energy: NDArray[np.float64]) -> float:
    """Slope of log residual on log energy over a population; 0 where energies are all alike.

    Parameters
    ----------
    residual : array, shape (n,)
        Mean of each run's residual.
    energy : array, shape (n,)
    """
    x, y = np.log(energy + FLOOR), np.log(np.asarray(residual, np.float64) + FLOOR)
    x = x - x.mean()
    return float(np.clip((x @ y) / (x @ x), 0.0, 2.0)) if x @ x > 1e-6 * len(x) else 0.0


def self_consistency(residual: Any, energy: Any, slope: float) -> tuple[Any, Any]:
    """Map and score of each run, lower is more consistent.

    Parameters
    ----------
    residual : array, shape (n, y, x)
        Of `redrawn_residual`.
    energy : array, shape (n,)
        Of `content_energy`.
    slope : float
        Of `content_slope`.

    Returns
    -------
    maps : array, shape (n, y, x)
        Log of the residual averaged over `SMOOTH` x `SMOOTH` places, less the content's share.
    scores : array, shape (n,)
        ``log mean residual - slope log energy``.
    """
    xp = array_api_compat.array_namespace(residual)
    less = slope * xp.log(energy + FLOOR)
    maps = xp.log(box_mean(residual, SMOOTH) + FLOOR) - less[:, None, None]
    scores = xp.log(xp.mean(residual, axis=(1, 2)) + FLOOR) - less
    return maps, scores


def box_mean(maps: Any, width: int) -> Any:
    """Mean over a square around each place; beyond the border the nearest place counts again."""
    xp = array_api_compat.array_namespace(maps)
    for axis in (1, 2):
        length, reach = maps.shape[axis], width // 2
        ends = [
            (slice(None),) * axis + (part,) for part in (slice(0, 1), slice(length - 1, length))
        ]
        first, last = (maps[end] for end in ends)
        padded = xp.concat([first] * reach + [maps] + [last] * reach, axis=axis)
        parts = [
            padded[(slice(None),) * axis + (slice(offset, offset + length),)]
            for offset in range(2 * reach + 1)
        ]
        maps = sum(parts[1:], parts[0]) / len(parts)
    return maps
