"""Fit a variant to a population: thresholds whose level is still to be found."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.population import Population, fit_population
from asced_analysis.compute.source import Source
from asced_analysis.detection import VARIANTS, calibrated, paper, released, run_scores
from asced_analysis.detection.log_snr_grid import GridSignal, make_grid
from asced_analysis.detection.streaming import make_stream
from asced_analysis.thresholds.document import (
    Cleanup,
    Correction,
    Guarantee,
    Levels,
    Thresholds,
    Window,
    fingerprint_of,
)
from asced_stores.errors import InputError

Floats = npt.NDArray[np.float64]

OPENING = Cleanup("opening", min_width=0.12)
COMPONENTS = Cleanup("components", min_area=100 / 256**2, min_width=5 / 256)
NO_CLEANUP = Cleanup("none")
UNCALIBRATED = Guarantee("none", 0.5, False, None, "run", "none", 0, 0, 0, None, None, None)


def default_parameters(variant: str, given: dict[str, Any]) -> tuple[dict[str, Any], Cleanup]:
    """Parameters of a variant as thresholds hold them (sizes as fractions), and its clean-up.

    Raises
    ------
    InputError
        Where the variant or a parameter is unknown.
    """
    given = dict(given)
    defaults: dict[str, Any]
    cleanup = NO_CLEANUP
    if variant == "calibrated":
        defaults, cleanup = asdict(calibrated.Parameters()), OPENING
        defaults.pop("min_width")
    elif variant == "released":
        defaults, cleanup = (
            {"blur": released.Parameters().blur / released.REFERENCE_SIDE},
            COMPONENTS,
        )
    elif variant == "paper":
        defaults = {
            k: v for k, v in asdict(paper.Parameters()).items() if k in ("bank_mean", "mad_center")
        }
    elif variant in ("trajectory_variance", "final_variance", "score_norm"):
        defaults = asdict(run_scores.Parameters())
    elif variant == "diffpath":
        defaults = {}
    else:
        raise InputError(f"variant {variant!r} is unknown; expected one of {VARIANTS}")
    sizes = {name: given.pop(name) for name in ("min_area", "min_width") if name in given}
    if sizes:
        kind = cleanup.kind if cleanup.kind != "none" else "components"
        cleanup = Cleanup(
            kind, **{"min_area": cleanup.min_area, "min_width": cleanup.min_width, **sizes}
        )
    unknown = set(given) - set(defaults)
    if unknown:
        raise InputError(
            f"variant {variant} has no parameter {sorted(unknown)}; it has {sorted(defaults)}"
        )
    return {**defaults, **given}, cleanup


def as_fractions(given: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Sizes of 1 and more are pixels of the recorded image: express them as fractions of it."""
    height, width = shape[-2:]
    whole = {"min_area": height * width, "min_width": min(height, width)}
    return {
        name: value / whole[name] if name in whole and value >= 1 else value
        for name, value in given.items()
    }


def fit_variant(
    source: Source,
    variant: str,
    fit: npt.NDArray[np.bool_],
    *,
    window: tuple[int, int],
    correction: Correction,
    parameters: dict[str, Any],
) -> tuple[Thresholds, Population | None]:
    """Thresholds with everything but their level and guarantee.

    Parameters
    ----------
    source : Source
    variant : str
    fit : array of bool, shape (run,)
        The fit set.
    window : (int, int)
        First and last step, both included.
    correction : Correction
    parameters : dict
        Overrides of the variant's defaults.

    Returns
    -------
    Thresholds, Population or None
        The population only where the variant stands on a grid.
    """
    given, cleanup = default_parameters(variant, as_fractions(parameters, source.sample_shape))
    first, last = window
    steps = source.steps
    grid = (source.log_snr[first], source.log_snr[last])
    thresholds = Thresholds(
        variant=variant,
        parameters=given,
        levels=Levels(grid, (0.0,), (1.0,), 0.0),
        window=Window(grid, (first / steps, last / steps), (int(first), int(last)), steps),
        cleanup=cleanup,
        correction=correction,
        guarantee=UNCALIBRATED,
        fingerprint={
            **fingerprint_of(source.dataset.attrs, source.sample_shape),
            "steps": steps,
        },
    )
    if variant == "calibrated":
        return _fit_grid(source, thresholds, fit, window)
    if variant in ("released", "paper"):
        return thresholds, None  # they compare every image with itself: nothing to fit
    return _with_levels(thresholds, **_fit_run_numbers(source, thresholds, fit)), None


def _fit_grid(
    source: Source, thresholds: Thresholds, fit: npt.NDArray[np.bool_], window: tuple[int, int]
) -> tuple[Thresholds, Population]:
    """Location and scale on the log-SNR grid."""
    parameters = calibrated.Parameters(**thresholds.parameters)
    signal = GridSignal(
        parameters.signal,
        make_grid(source.log_snr, *window),
        source.alpha,
        source.sigma,
        source.log_snr,
    )
    batches = source.batches(signal.needs(), steps=(signal.first_step, signal.last_step), only=fit)
    population = fit_population(batches, signal, parameters)
    rounded = (np.round(population.location, 5).tolist(), np.round(population.scale, 5).tolist())
    return _with_levels(
        thresholds, log_snr=signal.grid, location=_tuple(rounded[0]), scale=_tuple(rounded[1])
    ), population


def _fit_run_numbers(
    source: Source, thresholds: Thresholds, fit: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """Location and scale (or whitening) of a baseline's numbers."""
    if thresholds.variant == "diffpath":
        unit = tuple(tuple(float(i == j) for j in range(6)) for i in range(6))
        raw = _with_levels(thresholds, location=(0.0,) * 6, scale=(1.0,) * 6, whitening=unit)
    else:
        raw = thresholds
    numbers = []
    shape = (1, *source.sample_shape[-3:])
    stream = make_stream(raw, shape, alpha=source.alpha, sigma=source.sigma, log_snr=source.log_snr)
    batches = source.batches(stream.needs(), steps=(stream.first_step, stream.last_step), only=fit)
    for batch in batches:
        state = stream.start(shape)
        for offset in range(stream.last_step - stream.first_step + 1):
            given = {name: values[:, offset] for name, values in batch.arrays.items()}
            state = stream.update(state, batch.first_step + offset, **given)
        numbers.append(np.asarray(stream.raw(state), dtype=np.float64))  # type: ignore[attr-defined]
    values = np.concatenate(numbers)
    if thresholds.variant != "diffpath":
        location = float(np.median(values))
        scale = 1.4826 * float(np.median(np.abs(values - location)))
        return {"location": (location,), "scale": (max(scale, 1e-12),)}
    covariance = np.cov(values, rowvar=False) + 1e-12 * np.eye(6)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    return {
        "location": tuple(values.mean(axis=0).tolist()),
        "scale": tuple(np.maximum(values.std(axis=0), 1e-12).tolist()),
        "whitening": _tuple(whitening.tolist()),
    }


def _with_levels(thresholds: Thresholds, **changes: Any) -> Thresholds:
    """Thresholds with some of their levels replaced."""
    from dataclasses import replace

    return replace(thresholds, levels=replace(thresholds.levels, **changes))


def _tuple(values: Any) -> Any:
    """Nested lists as nested tuples."""
    return tuple(_tuple(value) for value in values) if isinstance(values, list) else values
