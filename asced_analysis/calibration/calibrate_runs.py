"""``calibrate``: fit, calibrate and report on three disjoint sets of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.choose_level import LEARNING, METHODS, Request, choose_level
from asced_analysis.calibration.conformance import conformance_vectors
from asced_analysis.calibration.drift import run_counts
from asced_analysis.calibration.energies import run_energies
from asced_analysis.calibration.fitting import fit_variant
from asced_analysis.calibration.minimum_runs import check_minimum_runs
from asced_analysis.calibration.options import CalibrateOptions, TeacherOptions
from asced_analysis.calibration.splits import Split, split_runs
from asced_analysis.compute.source import Source, open_source
from asced_analysis.detection.registry import VARIANTS
from asced_analysis.detection.scoring import with_model
from asced_analysis.detection.variant import Variant
from asced_analysis.detection.window import (
    FEWEST_STEPS,
    LATEST_CORRECTION,
    WINDOW,
    window_and_correction,
)
from asced_analysis.thresholds import conformal
from asced_analysis.thresholds.document import Correction, Thresholds
from asced_analysis.thresholds.registries import NO_CORRECTION, STRATEGIES
from asced_stores.errors import InputError, TooFewStepsError
from asced_stores.options import takes

SHORTEST_WINDOW = 3

_DEFAULTS = CalibrateOptions()


@takes(CalibrateOptions)
def calibrate(
    store: Any, variant: str = "calibrated", options: CalibrateOptions = _DEFAULTS
) -> Thresholds:
    """Calibrate thresholds on recorded runs.

    Parameters
    ----------
    store : path, TrajectoryStore or xarray.Dataset
        Recorded runs.
    variant : str
        A name of `asced_analysis.detection.VARIANTS`; `calibrated` by default.
    options : CalibrateOptions
        Each by keyword.

    Returns
    -------
    Thresholds

    Raises
    ------
    InputError
        Where there are too few runs for the promised rate (naming how many it needs), or an
        argument makes no sense.

    Examples
    --------
    >>> from asced_analysis import calibrate
    >>> thresholds = calibrate("runs.zarr", "calibrated", false_alarm_rate=0.2)
    >>> thresholds.guarantee.promised, thresholds.guarantee.unit
    (0.2, 'run')
    """
    conformal.check_rate(options.false_alarm_rate)
    if options.method not in METHODS:
        raise InputError(f"method {options.method!r} is unknown; expected one of {METHODS}")
    kind, method = _paired(VARIANTS.get(variant), options.method)
    parameters = dict(options.parameters or {})
    evaluates = not kind.learnt and kind.extra_evaluations({**kind.parameters(), **parameters}) > 0
    if not kind.learnt:
        _refuse_teachers(kind, options, evaluates=evaluates)
    source = open_source(store)
    _check_steps(source, options.strategy)
    _check_numbers(source, options)
    strategy = kind.correction[0] if options.strategy is None else options.strategy
    STRATEGIES.check(strategy)
    window = phases_window(source) if options.window == "phases" else options.window
    steps, correction = window_and_correction(source, window or WINDOW, strategy)
    if correction.strategy == kind.correction[0]:
        correction = replace(correction, parameters=kind.correction[1])
    labels, normal = options.labels, options.normal
    if method == "labels" and not labels:
        raise InputError("method labels needs labels; give a mapping of run id to broken or not")
    kept = dict.fromkeys(labels, True) if method == "labels" and labels else normal
    split = split_runs(
        prompts_of(source),
        source.runs,
        seeds=source.dataset["seed"].values if "seed" in source.dataset.coords else None,
        prompts_hidden=_prompts_hidden(source),
        fractions=options.fractions,
        seed=options.seed,
        eligible=_eligible(source, kept),
    )
    request = Request(
        method,
        options.false_alarm_rate,
        options.confidence,
        options.groups,
        labels,
        options.costs,
        "all runs" if normal is None else f"runs called normal by {options.normal_name}",
    )
    check_minimum_runs(
        source,
        split,
        method,
        options.false_alarm_rate,
        confidence=options.confidence,
        labels=labels,
    )
    run_means = None
    if kind.learnt:
        source, thresholds = _learnt(store, source, split, steps, correction, options)
    else:
        if evaluates:
            source = with_model(source, options.pipeline, options.network)
        thresholds, run_means = fit_variant(
            source, kind, split.fit, window=steps, correction=correction, parameters=parameters
        )
    chosen = choose_level(source, thresholds, split, request)
    thresholds = replace(
        thresholds,
        levels=replace(thresholds.levels, level=chosen.level),
        guarantee=replace(
            chosen.guarantee, notes=(*thresholds.guarantee.notes, *chosen.guarantee.notes)
        ),
        groups=chosen.groups,
        grouped_by=options.groups if chosen.groups else None,
        fingerprint={**thresholds.fingerprint, "dtype": source.dtype},
        counts=run_counts(
            run_means,
            chosen.scores,
            run_energies(source, thresholds.levels.log_snr, only=split.fit),
        ),
    )
    return replace(thresholds, conformance=conformance_vectors(thresholds))


def _learnt(
    store: Any,
    source: Source,
    split: Split,
    steps: tuple[int, int],
    correction: Correction,
    options: CalibrateOptions,
) -> tuple[Source, Thresholds]:
    """What is learnt from how runs ended, and the runs with what it looks at."""
    import xarray as xr

    from asced_analysis.calibration.labelling import choose_teacher
    from asced_analysis.calibration.outcome import (
        check_learnable,
        fit_outcome,
        lookahead_source,
    )
    from asced_analysis.realism.judges import choose_judge
    from asced_analysis.realism.self_consistency import DRAWS

    learning, parameters = dict(options.outcome or {}), dict(options.parameters or {})
    labeller = choose_teacher(
        source,
        split.fit,
        **{one.name: getattr(options, one.name) for one in fields(TeacherOptions)},
        store=None if isinstance(store, (Source, xr.Dataset)) else store,
        draws=learning.pop("draws", DRAWS),
    )
    check_learnable(source, split.fit, labeller)
    ahead = learning.pop("lookahead", None)
    if ahead is not None:
        source, parameters["lookahead"] = lookahead_source(source, steps, ahead, options.pipeline)
    if isinstance(learning.get("content"), str):
        known = source.dataset.isel(run=np.flatnonzero(split.fit))
        learning["content"] = choose_judge(learning["content"], known, role="teacher")
    return source, fit_outcome(
        source,
        split.fit,
        window=steps,
        correction=correction,
        parameters=parameters,
        teacher=labeller,
        report=split.report,
        whose=split.whose,
        **learning,
    )


def _refuse_teachers(kind: Variant, options: CalibrateOptions, *, evaluates: bool) -> None:
    """Refuse what teaches, of a variant that learns from no outcomes."""
    for name in ("teacher", "real", "network", "outcomes", "masks"):
        if getattr(options, name) is not None and not (evaluates and name == "network"):
            raise InputError(
                f"{name} is for learning from outcomes, and {kind.name} learns from none: "
                "choose method outcome, or leave it out"
            )


def _check_steps(source: Source, strategy: str | None) -> None:
    """Refuse runs of too few steps to look at, and to correct after."""
    if source.steps < FEWEST_STEPS:
        found = f"{source.steps} step{'s' * (source.steps != 1)}"
        raise TooFewStepsError(
            f"these runs have {found}; a detector needs at least {FEWEST_STEPS}: record more steps"
        )
    if source.steps == FEWEST_STEPS and strategy not in (None, NO_CORRECTION):
        raise TooFewStepsError(
            f"these runs have {FEWEST_STEPS} steps; to correct with {strategy} after a window "
            f"takes at least {FEWEST_STEPS + 1}: record more steps, or leave the strategy out"
        )


def _paired(variant: Variant, method: str) -> tuple[Variant, str]:
    """Learnt variants and the method that learns go together; either one means both.

    Either one beside the other's default, that is.
    """
    if variant.learnt == (method == LEARNING):
        return variant, method
    if variant.learnt and method == METHODS[0]:
        return variant, LEARNING
    learnt = [one for one in map(VARIANTS.get, VARIANTS) if one.learnt]
    if not variant.learnt and variant.name == VARIANTS.names()[0]:
        return learnt[0], method
    raise InputError(
        f"variant {variant.name} with method {method}: the method {LEARNING} learns the variants "
        f"{', '.join(one.name for one in learnt)} and no other; choose both or neither"
    )


def phases_window(source: Source) -> tuple[float, float]:
    """The runs' own Mutation phase, ended in time for a correction, as shares of sampling."""
    from asced_analysis.phases.segmentation import segment_phases

    population = segment_phases(source.dataset, run_replicates=1).population
    spans = population.spans("step", 0, source.steps)
    found = {name: (left / source.steps, right / source.steps) for name, left, right in spans}
    start, last = found.get("Mutation", (1.0, 1.0))
    end = min(last, LATEST_CORRECTION)
    if (end - start) * source.steps < SHORTEST_WINDOW:  # Mutation begins late: then to its own end
        end = last
    if not start < end < 1:
        raise InputError("no phases can be told apart in these runs; give the window yourself")
    return start, end


def prompts_of(source: Source) -> list[Any] | None:
    """Prompts by run, where they were recorded."""
    if "prompt" not in source.dataset.coords:
        return None
    return list(source.dataset["prompt"].values)


def _check_numbers(source: Source, options: CalibrateOptions) -> None:
    """Refuse what makes no sense before anything is read."""
    by_run = sorted(
        str(name) for name, values in source.dataset.coords.items() if values.dims == ("run",)
    )
    if options.groups is not None and options.groups not in by_run:
        raise InputError(
            f"the runs have no coordinate {options.groups!r} to group by; they have "
            f"{', '.join(by_run)}"
        )
    for name, value in (options.parameters or {}).items():
        if isinstance(value, float) and not np.isfinite(value):
            raise InputError(f"parameter {name} is {value}; expected a finite number")
    if not all(np.isfinite(cost) and cost > 0 for cost in options.costs):
        raise InputError(f"costs are {options.costs}; expected two positive numbers")
    if options.confidence is not None:
        conformal.check_confidence(options.confidence)


def _prompts_hidden(source: Source) -> bool:
    """Whether the runs had prompts that the store does not hold: left out, or as embeddings."""
    attributes = source.dataset.attrs
    if {"prompt", "prompt_embeds"} & set(attributes.get("call_missing") or ()):
        return True
    labels = source.dataset.coords.get("label")
    labelled = labels is not None and bool((np.asarray(labels.values) >= 0).any())
    return "prompts_sha256" in attributes and not labelled


def _eligible(source: Source, normal: Mapping[int, bool] | None) -> npt.NDArray[np.bool_] | None:
    """Runs of the promise's population."""
    if normal is None:
        return None
    return np.array([bool(normal.get(int(run), False)) for run in source.dataset["run"].values])
