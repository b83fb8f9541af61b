"""What trajectories do at every step beside what their levels ask for, with intervals.

For a network that knows the mean of what it predicts, and runs that lie where their noise levels
say (``x = alpha * x0 + sigma * eps``), these hold whatever the data are, E0 being the ends' mean
square by pixel:

- energy: ``E[x^2] = alpha^2 E0 + sigma^2``
- noise: ``E[x eps_hat] = sigma``
- unit energy of predicted eps, less what is not known of it:
  ``E[eps_hat^2] = 1 - (alpha / sigma)^2 (E0 - E[x0_hat^2])``
- the next sample: ``x' = alpha' x0_hat + sigma' eps'``, of which ``eps'`` is the predicted eps,
  fresh noise, or a mixture.

Intervals are Student's, from the jackknife over groups of runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asced_analysis.audit.moments import Moments

Floats = npt.NDArray[np.float64]

ROUNDING = 2e-3  # root mean square of what float16 leaves of a sample, per unit of its noise
ALIKE = 0.1  # share of the change that the predictions do not explain
RIDGE = 1e-4  # of each regressor's energy: towards what the level asks for, where they are alike


@dataclass(frozen=True)
class Estimate:
    """Estimates by step, each with an interval.

    Attributes
    ----------
    value, low, high : array, shape (step,)
        NaN where there is none: at a singular level, or without runs. Without a second run the
        interval is the whole line.
    """

    value: Floats
    low: Floats
    high: Floats

    def beyond(self, least: Floats | float, most: Floats | float) -> npt.NDArray[np.bool_]:
        """Steps whose whole interval lies below `least` or above `most`."""
        with np.errstate(invalid="ignore"):
            return np.asarray((self.high < least) | (self.low > most), np.bool_)


@dataclass(frozen=True)
class Quantities:
    """By step, as ratios to what the level asks for: 1 is right.

    Attributes
    ----------
    energy : Estimate
        Of the sample entering the step.
    noise : Estimate
        Noise in it, as the network sees it: its product with predicted eps.
    eps_energy : Estimate
        Mean square of predicted eps; not a ratio.
    eps_excess : Estimate
        That, less what a network that knows the mean would leave.
    next_noise : Estimate
        Amount of noise in the sample that the next step gets; NaN at the last step.
    angle : Estimate
        By how much that sample's level, ``arctan(sigma / alpha)``, is off, in radians.
    exact : array of bool, shape (step,)
        Whether that sample is, to rounding, made of this step's predictions and their change: then
        its level is known exactly.
    alike : array of bool, shape (step,)
        Whether that change is a mixture of the predictions (the first step, and data as simple as
        a Gaussian's): then its level is known roughly.
    """

    energy: Estimate
    noise: Estimate
    eps_energy: Estimate
    eps_excess: Estimate
    next_noise: Estimate
    angle: Estimate
    exact: npt.NDArray[np.bool_]
    alike: npt.NDArray[np.bool_]


def quantities(moments: Moments, alpha: Floats, sigma: Floats, *, confidence: float) -> Quantities:
    """Estimate everything, with intervals.

    Parameters
    ----------
    moments : Moments
    alpha, sigma : array, shape (step,)
    confidence : float
        Of all steps of a quantity together (Bonferroni).
    """
    whole, leaving = _leave_one_out(moments)
    best = _derive(*whole, alpha, sigma)
    others = [_derive(*part, alpha, sigma) for part in leaving]
    rest, own = best.pop("rest"), best.pop("own")
    with np.errstate(invalid="ignore"):
        exact = np.append(rest[:-1] < ROUNDING + ROUNDING * sigma[1:], False)
    return Quantities(
        **{
            name: _estimate(best[name], [one[name] for one in others], confidence, len(alpha))
            for name in best
        },
        exact=exact,
        alike=own < ALIKE,
    )


def sums(moments: Moments) -> tuple[float, float, Floats, Floats]:
    """Means over all runs: their number, the ends' energy, pairs and following."""
    return _leave_one_out(moments)[0]


def grouped_mean(totals: Floats, runs: npt.NDArray[np.int64], confidence: float) -> Estimate:
    """Mean over runs of something that was summed by group, as one number with its interval."""
    held = np.flatnonzero(runs)
    parts = [(totals.sum() - totals[g]) / max(1, runs.sum() - runs[g]) for g in held]
    value = np.array([totals.sum() / max(1, runs.sum())])
    several = [np.array([part]) for part in parts] if len(held) > 1 else []
    return _estimate(value, several, confidence, 1)


def _leave_one_out(
    moments: Moments,
) -> tuple[tuple[float, float, Floats, Floats], list[tuple[float, float, Floats, Floats]]]:
    """Means over all groups, and without each of those that hold runs."""
    totals = (
        moments.runs.sum(),
        moments.energy.sum(),
        moments.pairs.sum(0),
        moments.following.sum(0),
    )

    def mean(runs: float, *values: npt.ArrayLike) -> tuple[float, float, Floats, Floats]:
        count = max(float(runs), 1e-300)
        return (runs, *(np.asarray(one) / count for one in values))  # type: ignore[return-value]

    held = np.flatnonzero(moments.runs)
    parts = [
        mean(
            totals[0] - moments.runs[g],
            totals[1] - moments.energy[g],
            totals[2] - moments.pairs[g],
            totals[3] - moments.following[g],
        )
        for g in (held if len(held) > 1 else ())
    ]
    return mean(*totals), parts


def _derive(
    runs: float, end: float, pairs: Floats, following: Floats, alpha: Floats, sigma: Floats
) -> dict[str, Floats]:
    """Every quantity of `Quantities`, as plain numbers by step."""
    clean, noise, both = pairs[:, 0], pairs[:, 1], pairs[:, 2]
    energy = alpha**2 * clean + sigma**2 * noise + 2 * alpha * sigma * both
    with np.errstate(divide="ignore", invalid="ignore"):
        left = 1 - (alpha / sigma) ** 2 * (end - clean)
        signal, amount, rest, own = _following(
            pairs[:-1], following, energy[1:], alpha[1:], sigma[1:]
        )
        turned = np.arctan2(amount, signal) - np.arctan2(sigma[1:], alpha[1:])
        found = {
            "energy": energy / (alpha**2 * end + sigma**2),
            "noise": (alpha * both + sigma * noise) / sigma,
            "eps_energy": noise,
            "eps_excess": noise - left,
            "next_noise": np.append(amount / sigma[1:], np.nan),
            "angle": np.append(turned, np.nan),
            "rest": np.append(rest, np.nan),
            "own": np.append(own, np.nan),
        }
    if not runs:
        found = {name: np.full(len(alpha), np.nan) for name in found}
    return found


def _following(
    pairs: Floats, following: Floats, energy: Floats, alpha: Floats, sigma: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Amounts of predicted x0 and of noise in the next sample, by least squares.

    Beside them, what is left (root mean square), and the share of the change that is its own.

    The change of predicted x0 is fitted beside them, for solvers that remember it; all that is
    left over counts as noise, since stochastic samplers add theirs afresh. A change that the other
    two explain (as of Gaussian data) is left out.
    """
    (clean, noise, both), (x_clean, x_noise, x_change) = pairs.T, following.T[:3]
    clean_change, noise_change, change = following.T[3:]
    matrix = np.stack(
        [
            np.stack([clean, both, clean_change], -1),
            np.stack([both, noise, noise_change], -1),
            np.stack([clean_change, noise_change, change], -1),
        ],
        -2,
    )
    right = np.stack([x_clean, x_noise, x_change], -1)
    due = np.stack([alpha, sigma, np.zeros_like(alpha)], -1)
    good = np.isfinite(matrix).all((1, 2)) & np.isfinite(right).all(1)
    matrix, right = np.where(good[:, None, None], matrix, 0), np.where(good[:, None], right, 0)
    ridge = (RIDGE * np.einsum("kii->ki", matrix) + 1e-300)[:, :, None] * np.eye(3)
    mixed = np.linalg.solve((matrix + ridge)[:, :2, :2], matrix[:, :2, 2:])[..., 0]
    own = 1 - (mixed * matrix[:, :2, 2]).sum(-1) / np.maximum(matrix[:, 2, 2], 1e-300)
    own = np.where(matrix[:, 2, 2] > 0, own, 0)
    told_apart = np.where(own < ALIKE, 0.0, 1.0)
    matrix[:, 2, :2] *= told_apart[:, None]
    matrix[:, :2, 2] *= told_apart[:, None]
    right[:, 2] *= told_apart
    missing = (right - np.einsum("kij,kj->ki", matrix, due))[..., None]
    fitted = due + np.linalg.solve(matrix + ridge, missing)[..., 0]
    explained = 2 * (fitted * right).sum(-1) - np.einsum("ki,kij,kj->k", fitted, matrix, fitted)
    rest = np.maximum(energy - explained, 0)
    amount = np.sqrt(rest + fitted[:, 1] ** 2)
    unknown = np.where(good, 0, np.nan)
    return (
        fitted[:, 0] + unknown,
        amount + unknown,
        np.sqrt(rest) + unknown,
        own + unknown,
    )


def _estimate(value: Floats, others: list[Floats], confidence: float, steps: int) -> Estimate:
    """Student's interval about a jackknife estimate."""
    if len(others) < 2:
        wide = np.where(np.isnan(value), np.nan, np.inf)
        return Estimate(value, -wide, wide)
    from scipy.stats import t

    parts = np.stack(others)
    count = len(parts)
    with np.errstate(invalid="ignore"):
        spread = np.sqrt((count - 1) / count * ((parts - parts.mean(0)) ** 2).sum(0))
    reach = float(t.ppf(1 - (1 - confidence) / (2 * steps), count - 1)) * spread
    return Estimate(value, value - reach, value + reach)
