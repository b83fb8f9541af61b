"""Conformance vectors: small inputs with the masks they must give, for ports in any language.

All inputs are multiples of 1/64 below 16, which float16, float32 and decimal JSON hold exactly, and
no place of the map lies so near the level that rounding could decide.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.detection.registry import VARIANTS
from asced_analysis.detection.streaming import Detector, DetectorState, make_detector
from asced_analysis.thresholds.document import Thresholds
from asced_analysis.thresholds.parts import ConformanceVector
from asced_stores.errors import InputError

SIDE = 16
MARGIN = 1e-2
RANK_MARGIN = 1e-3
ATTEMPTS = 60
LEARNT_ATTEMPTS = 480  # nobody knows which way a learnt score goes
FREE_ATTEMPTS = 120
"""Random inputs for a learnt score; after them, the nearest one is varied."""
MOST_NUMBERS = 200_000


def conformance_vectors(thresholds: Thresholds) -> tuple[ConformanceVector, ...]:
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
    found = Detector.result(*_fed(thresholds, vector))
    return np.asarray(found.mask)[0], float(np.asarray(found.score)[0])


def _fed(thresholds: Thresholds, vector: Any) -> tuple[Detector, DetectorState]:
    """A detector that has seen all steps of a vector."""
    lookahead_x0 = vector.get("lookahead_x0")
    detector = make_detector(
        thresholds,
        alpha=vector["alpha"],
        sigma=vector["sigma"],
        log_snr=vector["log_snr"],
        lookahead=None if lookahead_x0 is None else lambda sample, step: _half(lookahead_x0)[None],
    )
    values = _half(vector["values"])
    state = detector.start((1, *values.shape[1:]))
    more = {name: _half(vector[name])[None] for name in ("eps", "activations") if name in vector}
    for step, value in enumerate(values):
        state = detector.update(state, step, **{vector["signal"]: value[None]}, **more)
    return detector, state


def _half(values: Any) -> npt.NDArray[np.float16]:
    """Numbers of a vector in the recorded precision."""
    return np.asarray(values, dtype=np.float16)


def _search(thresholds: Thresholds, want: bool) -> ConformanceVector | None:
    """Try inputs of rising violence until one is flagged (or not), clear of the level."""
    levels = thresholds.levels
    low, high = levels.log_snr[0], levels.log_snr[-1]
    variant = VARIANTS.get(thresholds.variant)
    beyond = 0.3 if variant.on_grid else 0.0
    count = 7 if beyond else 6
    log_snr = (
        np.round(np.linspace(low - beyond, high + beyond, count), 4)
        if beyond
        else (np.linspace(low, high, count))
    )
    alpha = np.sqrt(1 / (1 + np.exp(-log_snr)))
    sigma = np.sqrt(1 / (1 + np.exp(log_snr)))
    shape: tuple[int, ...] = (1, SIDE, SIDE)
    if variant.learnt or np.ndim(levels.location) == 3:
        # the network's inputs, or places of the map, fit the calibrated size alone
        shape = tuple(thresholds.fingerprint["sample_shape"][-3:])
        if count * int(np.prod(shape)) > MOST_NUMBERS:
            return None
    nearest: tuple[float, Any] = (-np.inf, None)
    for attempt in range(LEARNT_ATTEMPTS if variant.learnt else ATTEMPTS):
        rng = np.random.default_rng(attempt)
        square = attempt % 2 == 0 if variant.learnt else want
        varied = nearest[1] if attempt >= FREE_ATTEMPTS else None
        if varied is None:
            values = _inputs(rng, attempt % ATTEMPTS, (count, *shape), square)
        else:
            values = _varied(rng, varied["values"], attempt)
        vector: Any = {
            "alpha": alpha.tolist(),
            "sigma": sigma.tolist(),
            "log_snr": log_snr.tolist(),
            "signal": "x0",
            "values": values.tolist(),
        }
        free = {}
        if variant.learnt:
            free["eps"] = _exact(rng.normal(size=shape) * 2.0 ** (attempt % 7 - 3))
        else:
            detector = make_detector(thresholds, alpha=alpha, sigma=sigma, log_snr=log_snr)
            vector["signal"] = detector.needs()[0]
        if modules := variant.modules(thresholds.parameters):
            free["activations"] = _exact(rng.normal(size=sum(modules.values())))
        if variant.extra_evaluations(thresholds.parameters):
            spread = 1 / 8 if variant.learnt else 2.0 ** (attempt % 10 - 7)
            free["lookahead_x0"] = _exact(values[-1] + rng.normal(size=shape) * spread)
        for name, made in free.items():
            kept = made if varied is None else _varied(rng, varied[name], attempt)
            vector[name] = kept.tolist()
        try:
            mask, score = run_vector(thresholds, vector)
            clear = _is_clear(thresholds, vector, mask)
        except InputError:
            return None
        nearer = score if want else -score
        if np.isfinite(score) and nearer > nearest[0]:
            nearest = (nearer, vector)
        if bool(mask.any()) is want and clear and np.isfinite(score):
            rows = ["".join("1" if cell else "0" for cell in row) for row in mask]
            vector |= {"mask": rows, "score": score, "flagged": want}
            found: ConformanceVector = vector
            return found
    return None


def _inputs(
    rng: np.random.Generator, violence: int, shape: tuple[int, ...], square: bool
) -> npt.NDArray[np.float64]:
    """A random walk over the steps; where wanted, with a square that goes its own way."""
    values = np.cumsum(rng.normal(size=shape) * 2.0 ** (violence / 6 - 7), axis=0)
    if square:
        ramp = np.arange(shape[0]) * 2.0 ** (violence / 6 - 6)
        values[:, :, 3:13, 2:14] += ramp[:, None, None, None]
    return _exact(values)


def _varied(rng: np.random.Generator, values: Any, attempt: int) -> npt.NDArray[np.float64]:
    """An input changed a little, at some places, for a score nearer to what is wanted."""
    known = np.asarray(values, dtype=np.float64)
    change = rng.normal(size=known.shape) * 2.0 ** (attempt % 6 - 3)
    return _exact(known + change * (rng.random(known.shape) < 0.3))


def _exact(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Values that every precision holds exactly."""
    return np.asarray(np.round(np.clip(values, -15, 15) * 64) / 64)


def _is_clear(thresholds: Thresholds, vector: Any, mask: npt.NDArray[np.bool_]) -> bool:
    """Whether no rounding decides: of the level, and of which places are the worst."""
    for shift in (-MARGIN, MARGIN):
        if not np.array_equal(mask, run_vector(_at(thresholds, shift), vector)[0]):
            return False
    _, state = _fed(thresholds, vector)
    variant = VARIANTS.get(thresholds.variant)
    return variant.is_clear(thresholds, state.stream, state.inner, RANK_MARGIN)


def _at(thresholds: Thresholds, shift: float) -> Thresholds:
    """The thresholds with a shifted level."""
    levels = thresholds.levels
    return replace(thresholds, levels=replace(levels, level=levels.level + shift))
