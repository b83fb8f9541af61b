"""Why trajectories leave their schedule, in plain words: what the network's answers look like."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asced_analysis.audit.levels import Levels

Floats = npt.NDArray[np.float64]

EARLY = -2.5
"""Log-SNR below which the sample is all but noise, and predicted x0 no more than an average."""

ALIKE, UNLIKE = 0.8, 0.5
"""Correlation of a network's output with the sample there: of what predicts noise, and what not."""

NOISE = ("epsilon", "flow_prediction")
CLEAN = ("sample", "v_prediction")


def output_likeness(pairs: Floats, levels: Levels, recorded: str) -> float | None:
    """Correlation of what the network said with the sample, over the first, noisiest steps.

    Parameters
    ----------
    pairs : array, shape (step, 3)
        Means over runs, see `asced_analysis.audit.moments.PAIRS`.
    levels : Levels
    recorded : str
        Prediction type as what the output was read.

    Returns
    -------
    float or None
        None where there is no such step, or no such type.
    """
    if recorded not in NOISE + CLEAN:
        return None
    early = np.flatnonzero(
        (levels.log_snr < EARLY) & (levels.alpha > 0) & np.isfinite(pairs).all(1)
    )[:3]
    if not early.size:
        return None
    alpha, sigma = levels.alpha[early], levels.sigma[early]
    size = np.hypot(alpha, sigma)
    clean, noise = {
        "epsilon": (0 * alpha, 1 + 0 * alpha),
        "sample": (1 + 0 * alpha, 0 * alpha),
        "v_prediction": (-sigma / size, alpha / size),
        "flow_prediction": (-1 + 0 * alpha, 1 + 0 * alpha),
    }[recorded]
    x0x0, epseps, both = pairs[early].T

    def product(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> Floats:
        return np.asarray(
            one[0] * other[0] * x0x0
            + one[1] * other[1] * epseps
            + (one[0] * other[1] + one[1] * other[0]) * both
        )

    said, sample = (clean, noise), (alpha, sigma)
    energies = product(said, said) * product(sample, sample)
    return float(np.mean(product(said, sample) / np.sqrt(np.maximum(energies, 1e-300))))


def cause_of_departure(
    pairs: Floats, levels: Levels, recorded: str, *, guidance: float, step: int, more: bool
) -> str:
    """The likely cause where start, timesteps and the sampler's steps are as they should be.

    Parameters
    ----------
    pairs, levels, recorded
        As in `output_likeness`.
    guidance : float
        Greatest guidance scale of the runs; 1 where there is none.
    step : int
        First that is off.
    more : bool
        Whether there is too much energy, rather than too little.
    """
    alike = output_likeness(pairs, levels, recorded)
    if alike is not None and recorded in CLEAN and alike > ALIKE:
        return (
            f"the network's output looks like noise (correlation {alike:.2f} with the noisy "
            f"sample), but is read as {recorded}: the scheduler's prediction_type is wrong; it "
            "is probably epsilon (or flow)"
        )
    unscaled = (
        levels.kind == "sigma space"
        and levels.sigma[0] > 2
        and recorded in ("epsilon", "sample", "v_prediction")
    )
    loud = bool(pairs[0, 1] > 1.5) if len(pairs) else False
    if alike is not None and recorded in NOISE and alike < UNLIKE and not (unscaled and loud):
        return (
            f"the network's output does not look like noise (correlation {alike:.2f} with the "
            f"noisy sample), but is read as {recorded}: the scheduler's prediction_type is wrong; "
            "it is probably v_prediction or sample"
        )
    if guidance > 1 and more and step > 0:
        return (
            f"guidance at scale {guidance:g} adds energy that no level has: colours saturate and "
            "contrast grows. Lower it, use guidance_rescale, or guide over fewer steps"
        )
    if unscaled:
        return (
            "the network is not given what it was trained on: in sigma space its input is x / "
            "sqrt(sigma^2 + 1), so scale_model_input may have been forgotten; or the scheduler's "
            "prediction_type or betas are another model's"
        )
    return (
        "the network's answers do not fit their levels: the scheduler's prediction_type or noise "
        "schedule is another model's, its weights are not loaded or not trained, its input is "
        "scaled wrongly, or the steps are too few for this solver"
    )
