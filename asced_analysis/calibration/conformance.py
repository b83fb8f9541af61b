"""Conformance vectors: small inputs with the masks they must give, for ports in any language.

All inputs are multiples of 1/64 below 16, which float16, float32 and decimal JSON hold exactly, and
no place of the map lies so near the level that rounding could decide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.detection.streaming import make_detector
from asced_analysis.thresholds import Thresholds
from asced_stores.errors import InputError

SIDE = 16
MARGIN = 1e-2


def conformance_vectors(thresholds: Thresholds) -> tuple[dict[str, Any], ...]:
    """A quiet input and a flagged one.

    Parameters
    ----------
    thresholds : Thresholds
        With their final level.
    """
    vectors = []
    for want in (False, True):
        vector = _search(thresholds, want)
        if vector is not None:
            vectors.append(vector)
    return tuple(vectors)


def run_vector(thresholds: Thresholds, vector: Any) -> tuple[npt.NDArray[np.bool_], float]:
    """Mask and score that this toolkit gives for a vector."""
    detector = make_detector(
        thresholds, alpha=vector["alpha"], sigma=vector["sigma"], log_snr=vector["log_snr"]
    )
    values = np.asarray(vector["values"], dtype=np.float16)
    state = detector.start((1, *values.shape[1:]))
    for step, value in enumerate(values):
        state = detector.update(state, step, **{vector["signal"]: value[None]})
    found = detector.result(state)
    return np.asarray(found.mask)[0], float(np.asarray(found.score)[0])


def _search(thresholds: Thresholds, want: bool) -> dict[str, Any] | None:
    """Try inputs of rising violence until one is flagged (or not), clear of the level."""
    levels = thresholds.levels
    low, high = levels.log_snr[0], levels.log_snr[-1]
    log_snr = np.round(np.linspace(low - 0.3, high + 0.3, 7), 4)
    log_snr = log_snr if thresholds.variant == "calibrated" else np.linspace(low, high, 6)
    alpha = np.sqrt(1 / (1 + np.exp(-log_snr)))
    sigma = np.sqrt(1 / (1 + np.exp(log_snr)))
    shape = (1, SIDE, SIDE)
    if np.ndim(levels.location) == 3:  # by position: only the calibrated size fits
        shape = tuple(thresholds.fingerprint["sample_shape"][-3:])
    for attempt in range(60):
        rng = np.random.default_rng(attempt)
        detector = make_detector(thresholds, alpha=alpha, sigma=sigma, log_snr=log_snr)
        signal = detector.needs()[0]
        drift = 2.0 ** (attempt / 6 - 7)
        values = np.cumsum(rng.normal(size=(log_snr.size, *shape)) * drift, axis=0)
        if want:  # a square that goes its own way at every step
            ramp = np.arange(log_snr.size) * 2.0 ** (attempt / 6 - 6)
            values[:, :, 3:13, 2:14] += ramp[:, None, None, None]
        values = np.round(np.clip(values, -15, 15) * 64) / 64
        vector = {
            "alpha": alpha.tolist(),
            "sigma": sigma.tolist(),
            "log_snr": log_snr.tolist(),
            "signal": signal,
            "values": values.tolist(),
        }
        try:
            mask, score = run_vector(thresholds, vector)
            clear = all(
                np.array_equal(mask, run_vector(_at(thresholds, shift), vector)[0])
                for shift in (-MARGIN, MARGIN)
            )
        except InputError:
            return None
        if bool(mask.any()) is want and clear and np.isfinite(score):
            rows = ["".join("1" if cell else "0" for cell in row) for row in mask]
            return {**vector, "mask": rows, "score": score, "flagged": want}
    return None


def _at(thresholds: Thresholds, shift: float) -> Thresholds:
    """The thresholds with a shifted level."""
    from dataclasses import replace

    levels = thresholds.levels
    return replace(thresholds, levels=replace(levels, level=levels.level + shift))
