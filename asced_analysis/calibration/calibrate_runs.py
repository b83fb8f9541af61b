"""``calibrate``: fit, calibrate and report on three disjoint sets of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.choose_level import LEARNING, METHODS, Request, choose_level
from asced_analysis.calibration.conformance import conformance_vectors
from asced_analysis.calibration.drift import run_counts
from asced_analysis.calibration.energies import run_energies
from asced_analysis.calibration.fitting import fit_variant
from asced_analysis.calibration.minimum_runs import check_minimum_runs
from asced_analysis.calibration.splits import FRACTIONS, split_runs
from asced_analysis.compute.source import Source, open_source
from asced_analysis.detection.registry import VARIANTS
from asced_analysis.detection.scoring import with_model
from asced_analysis.detection.variant import Variant
from asced_analysis.thresholds import conformal
from asced_analysis.thresholds.document import Correction, Thresholds
from asced_analysis.thresholds.registries import STRATEGIES
from asced_stores.errors import InputError, TooFewStepsError

LATEST_CORRECTION = 0.48
"""Last share of sampling at which a correction is useful, as the paper has it."""

FEWEST_STEPS = 2
SHORTEST_WINDOW = 3
WINDOW = (0.2, LATEST_CORRECTION)
"""First step and correction step, as shares of sampling: Mutation as the paper has it."""


def calibrate(
    store: Any,
    variant: str = "calibrated",
    *,
    method: str = "conformal",
    false_alarm_rate: float = 0.05,
    confidence: float | None = None,
    window: tuple[float, float] | Literal["phases"] | None = None,
    parameters: Mapping[str, Any] | None = None,
    strategy: str | None = None,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = 0,
    groups: str | None = None,
    normal: Mapping[int, bool] | None = None,
    normal_name: str = "the given label",
    labels: Mapping[int, bool] | None = None,
    costs: tuple[float, float] = (1.0, 1.0),
    outcome: Mapping[str, Any] | None = None,
    teacher: Any = None,
    real: Any = None,
    network: Any = None,
    outcomes: Any = None,
    masks: Any = None,
    better: str = "lower",
    pipeline: Any = None,
    call_options: Mapping[str, Any] | None = None,
) -> Thresholds:
    """Calibrate thresholds on recorded runs.

    Parameters
    ----------
    store : path, TrajectoryStore or xarray.Dataset
        Recorded runs.
    variant : str
        A name of `asced_analysis.detection.VARIANTS`.
    method : str
        `conformal`: split conformal at run level. `risk`: conformal risk control of the flagged
        share of the image (`false_alarm_rate` is that share; variant `calibrated`). `robust`: for
        calibration sets with up to a fifth of broken runs, without a finite-sample guarantee.
        `labels`: cheapest level for `labels` and `costs`. `outcome`: learn from how the recorded
        runs ended, then split conformal (variant `outcome`).
    false_alarm_rate : float
        Share of the population's runs that may be flagged.
    confidence : float, optional
        Keep the rate for this very calibration with this confidence, instead of on average.
    window : (float, float) or "phases", optional
        Shares of sampling at which the window begins and at which the correction edits; the
        window's last step is the one before. `WINDOW` by default. "phases": from the beginning of
        the runs' Mutation phase to its end, or to `LATEST_CORRECTION` where that is earlier and
        leaves a window.
    parameters : mapping, optional
        Overrides of the variant's parameters.
    strategy : str, optional
        Default correction: by default what was measured to repair (docs/truth.md), for `outcome`
        ``renoise`` of the foreground, for variants that point at a place ``ttc``.
    fractions : (float, float, float)
        Shares of the runs for fit, calibrate and report.
    seed : int
        Of the split.
    groups : str, optional
        A coordinate of the runs (`label`, `prompt`, `guidance_scale`): groups with enough runs get
        a level of their own, the others the pooled one, with a warning.
    normal : mapping of run id to bool, optional
        Restricts the promise to runs that a label calls normal.
    normal_name : str
        What the label is called in the guarantee.
    labels : mapping of run id to bool, optional
        For `labels`: which runs are broken; runs without a label are left out.
    costs : (float, float)
        For `labels`: of a false alarm and of a miss.
    outcome : mapping, optional
        For `outcome`: options of `asced_analysis.calibration.outcome.fit_outcome`; `lookahead`, the
        share of sampling by which the model is evaluated once more beyond the window's end
        (0.24 is a good one); `draws` of noise, for self-consistency; `content`, features by name
        whose nearest runs count as like content.
    teacher : str, RealismModel or Teacher, optional
        For `outcome`: who says how runs ended. By default ``self-consistency``, the model's own
        prediction from its re-noised ends; with real images, ``patches``. Also any other kind of
        features (`asced_analysis.realism.judges.choose_judge`).
    real : path, array or RealImages, optional
        Real images for the teacher, who takes one half of them.
    network : callable, optional
        ``network(sample, alpha, sigma)`` to predicted x0, for self-consistency, teacher or
        variant: of loops that no pipeline describes.
    outcomes : path or mapping of run to number or mask, optional
        Scores from elsewhere (CSV or Parquet with columns run and score): they teach instead.
    masks : folder, ``.npz`` or mapping, optional
        Broken places by run, from elsewhere; alone, or beside the scores of `outcomes`.
    better : {"lower", "higher"}
        Which of these scores are good.
    pipeline : DiffusionPipeline, str or Path, optional
        By default the one that the store names.
    call_options : mapping, optional
        Arguments of its calls that the store does not hold, as in `asced_analysis.replay.replay`.

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
    conformal.check_rate(false_alarm_rate)
    if method not in METHODS:
        raise InputError(f"method {method!r} is unknown; expected one of {METHODS}")
    kind, method = _paired(VARIANTS.get(variant), method)
    evaluates = (
        not kind.learnt and kind.extra_evaluations({**kind.parameters(), **(parameters or {})}) > 0
    )
    if not kind.learnt:
        for name, value in (
            ("teacher", teacher),
            ("real", real),
            ("network", None if evaluates else network),
            ("outcomes", outcomes),
            ("masks", masks),
        ):
            if value is not None:
                raise InputError(
                    f"{name} is for learning from outcomes, and {kind.name} learns from none: "
                    "choose method outcome, or leave it out"
                )
    source = open_source(store)
    if source.steps < FEWEST_STEPS:
        found = f"{source.steps} step{'s' * (source.steps != 1)}"
        raise TooFewStepsError(
            f"these runs have {found}; a detector needs at least {FEWEST_STEPS}: record more steps"
        )
    if source.steps == FEWEST_STEPS and strategy not in (None, "none"):
        raise TooFewStepsError(
            f"these runs have {FEWEST_STEPS} steps; to correct with {strategy} after a window "
            f"takes at least {FEWEST_STEPS + 1}: record more steps, or leave the strategy out"
        )
    _check_numbers(source, groups, parameters, costs)
    if confidence is not None:
        conformal.check_confidence(confidence)
    if strategy is None:
        strategy = kind.correction[0]
    STRATEGIES.check(strategy)
    if window == "phases":
        window = phases_window(source)
    steps, correction = window_and_correction(source, window or WINDOW, strategy)
    if correction.strategy == kind.correction[0]:
        correction = replace(correction, parameters=kind.correction[1])
    if method == "labels" and not labels:
        raise InputError("method labels needs labels; give a mapping of run id to broken or not")
    kept = dict.fromkeys(labels, True) if method == "labels" and labels else normal
    split = split_runs(
        prompts_of(source),
        source.runs,
        seeds=source.dataset["seed"].values if "seed" in source.dataset.coords else None,
        prompts_hidden=_prompts_hidden(source),
        fractions=fractions,
        seed=seed,
        eligible=_eligible(source, kept),
    )
    request = Request(
        method,
        false_alarm_rate,
        confidence,
        groups,
        labels,
        costs,
        "all runs" if normal is None else f"runs called normal by {normal_name}",
    )
    check_minimum_runs(
        source, split, method, false_alarm_rate, confidence=confidence, labels=request.labels
    )
    run_means = None
    if kind.learnt:
        import xarray as xr

        from asced_analysis.calibration.outcome import (
            check_learnable,
            fit_outcome,
            lookahead_source,
        )
        from asced_analysis.calibration.teachers import choose_teacher
        from asced_analysis.realism.judges import choose_judge
        from asced_analysis.realism.self_consistency import DRAWS

        options, given = dict(outcome or {}), dict(parameters or {})
        labeller = choose_teacher(
            source,
            split.fit,
            teacher=teacher,
            real=real,
            network=network,
            outcomes=outcomes,
            masks=masks,
            better=better,
            store=None if isinstance(store, (Source, xr.Dataset)) else store,
            pipeline=pipeline,
            call_options=call_options,
            draws=options.pop("draws", DRAWS),
        )
        check_learnable(source, split.fit, labeller)
        ahead = options.pop("lookahead", None)
        if ahead is not None:
            source, given["lookahead"] = lookahead_source(source, steps, ahead, pipeline)
        if isinstance(options.get("content"), str):
            known = source.dataset.isel(run=np.flatnonzero(split.fit))
            options["content"] = choose_judge(options["content"], known, role="teacher")
        thresholds = fit_outcome(
            source,
            split.fit,
            window=steps,
            correction=correction,
            parameters=given,
            teacher=labeller,
            report=split.report,
            **options,
        )
    else:
        if evaluates:
            source = with_model(source, pipeline, network)
        thresholds, run_means = fit_variant(
            source,
            kind,
            split.fit,
            window=steps,
            correction=correction,
            parameters=dict(parameters or {}),
        )
    chosen = choose_level(source, thresholds, split, request)
    thresholds = replace(
        thresholds,
        levels=replace(thresholds.levels, level=chosen.level),
        guarantee=replace(
            chosen.guarantee, notes=(*thresholds.guarantee.notes, *chosen.guarantee.notes)
        ),
        groups=chosen.groups,
        grouped_by=groups if chosen.groups else None,
        fingerprint={**thresholds.fingerprint, "dtype": source.dtype},
        counts=run_counts(
            run_means,
            chosen.scores,
            run_energies(source, thresholds.levels.log_snr, only=split.fit),
        ),
    )
    return replace(thresholds, conformance=conformance_vectors(thresholds))


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


def window_and_correction(
    source: Source, window: tuple[float, float], strategy: str
) -> tuple[tuple[int, int], Correction]:
    """Steps of the window, and where the correction edits: the step right after it.

    Two steps are looked at together, and nothing is corrected: no step is left for it.
    """
    start, edit = window
    steps = source.steps
    if not 0 <= start < edit < 1:
        raise InputError(f"the window is {window}; expected two rising shares of sampling")
    if steps == FEWEST_STEPS:
        return (0, 1), Correction("none", float(source.log_snr[1]), 0.5)
    edit_step = min(max(round(edit * steps), 2), steps - 1)
    first = min(round(start * steps), edit_step - 2)
    while not np.isfinite(source.log_snr[first]) and first < edit_step - 2:
        first += 1
    return (first, edit_step - 1), Correction(
        strategy, float(source.log_snr[edit_step]), edit_step / steps
    )


def prompts_of(source: Source) -> list[Any] | None:
    """Prompts by run, where they were recorded."""
    if "prompt" not in source.dataset.coords:
        return None
    return list(source.dataset["prompt"].values)


def _check_numbers(
    source: Source,
    groups: str | None,
    parameters: Mapping[str, Any] | None,
    costs: tuple[float, float],
) -> None:
    """Refuse what makes no sense before anything is read."""
    by_run = sorted(
        str(name) for name, values in source.dataset.coords.items() if values.dims == ("run",)
    )
    if groups is not None and groups not in by_run:
        raise InputError(
            f"the runs have no coordinate {groups!r} to group by; they have {', '.join(by_run)}"
        )
    for name, value in (parameters or {}).items():
        if isinstance(value, float) and not np.isfinite(value):
            raise InputError(f"parameter {name} is {value}; expected a finite number")
    if not all(np.isfinite(cost) and cost > 0 for cost in costs):
        raise InputError(f"costs are {costs}; expected two positive numbers")


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
