"""Fit a variant to a population: thresholds whose level is still to be found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.compute.source import Source
from asced_analysis.detection.variant import NO_CLEANUP, Variant
from asced_analysis.thresholds.document import (
    Cleanup,
    Correction,
    Guarantee,
    Levels,
    Thresholds,
    Window,
    fingerprint_of,
)
from asced_analysis.thresholds.typed_json import MismatchError, check_fields
from asced_stores.errors import InputError

Floats = npt.NDArray[np.float64]

UNCALIBRATED = Guarantee("none", 0.5, False, None, "run", "none", 0, 0, 0, None, None, None)


def default_parameters(variant: Variant, given: dict[str, Any]) -> tuple[dict[str, Any], Cleanup]:
    """Parameters of a variant as thresholds hold them (sizes as fractions), and its clean-up.

    Raises
    ------
    InputError
        Where a parameter is unknown, or a value is none that it takes.
    """
    given, defaults, cleanup = dict(given), variant.parameters(), variant.cleanup
    sizes = {name: given.pop(name) for name in ("min_area", "min_width") if name in given}
    if sizes:
        kind = "components" if cleanup == NO_CLEANUP else cleanup.kind
        cleanup = replace(cleanup, kind=kind, **sizes)
    unknown = set(given) - set(defaults)
    if unknown:
        raise InputError(
            f"variant {variant.name} has no parameter {sorted(unknown)}; it has {sorted(defaults)}"
        )
    try:
        check_fields(given, variant.parameters_type)
    except MismatchError as error:
        raise InputError(f"parameters of the variant {variant.name}: {error}") from None
    return {**defaults, **given}, cleanup


def as_fractions(given: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Sizes of 1 and more are pixels of the recorded image: express them as fractions of it."""
    height, width = shape[-2:]
    whole = {"min_area": height * width, "min_width": min(height, width)}
    for name in whole.keys() & given.keys():
        if not isinstance(given[name], (int, float)) or not given[name] >= 0:
            raise InputError(f"{name} is {given[name]!r}; expected a share, or pixels from 1 on")
    return {
        name: value / whole[name] if name in whole and value >= 1 else value
        for name, value in given.items()
    }


def fit_variant(
    source: Source,
    variant: Variant,
    fit: npt.NDArray[np.bool_],
    *,
    window: tuple[int, int],
    correction: Correction,
    parameters: dict[str, Any],
) -> tuple[Thresholds, Floats | None]:
    """Thresholds with everything but their level and guarantee.

    Parameters
    ----------
    source : Source
    variant : Variant
    fit : array of bool, shape (run,)
        The fit set.
    window : (int, int)
        First and last step, both included.
    correction : Correction
    parameters : dict
        Overrides of the variant's defaults.

    Returns
    -------
    Thresholds
    array, shape (run, cell), or None
        Each run's means for the drift check, where the variant stands on a grid.
    """
    plain = {n: v.item() if isinstance(v, np.generic) else v for n, v in parameters.items()}
    given, cleanup = default_parameters(variant, as_fractions(plain, source.sample_shape))
    first, last = window
    steps = source.steps
    grid = (source.log_snr[first], source.log_snr[last])
    thresholds = Thresholds(
        variant=variant.name,
        parameters=given,
        levels=Levels(grid, (0.0,), (1.0,), 0.0),
        window=Window(grid, (first / steps, last / steps), (int(first), int(last)), steps),
        cleanup=cleanup,
        correction=correction,
        guarantee=UNCALIBRATED,
        fingerprint=fingerprint_of(source.dataset.attrs, source.sample_shape, steps=steps),
    )
    return variant.fit(thresholds, source, fit)
