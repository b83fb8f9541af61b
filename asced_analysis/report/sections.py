"""The sections of a report, each a pure function of results that were computed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.report.page import Case, Picture, Section, Table
from asced_analysis.report.pictures import as_rgb, figure_uri, png_uri, upscaled, with_outline

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from asced_analysis.evaluation import Evaluation
    from asced_analysis.phases import Phases
    from asced_analysis.thresholds import Thresholds

PICTURE_SIZE = 160


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{100 * share:.{digits}f} %"


def figure_of(axes: Any) -> Figure:
    """The figure that holds some axes."""
    figure: Figure = axes.get_figure()
    return figure


def interval_text(interval: Sequence[float] | None, form: str = "{:.1f}") -> str:
    """An interval in brackets, or nothing."""
    if interval is None:
        return ""
    return "[" + ", ".join(form.format(value) for value in interval) + "]"


def phases_in_words(phases: Phases) -> str:
    """Where the boundaries lie, as one sentence."""
    mutation, refinement = phases.population
    if mutation.step != mutation.step:
        return "No phases were found: activity does not rise and fall again."
    return (
        f"Mutation begins at step {mutation.step:.1f} {interval_text(mutation.step_interval)} and "
        f"Refinement at step {refinement.step:.1f} {interval_text(refinement.step_interval)} "
        f"(log-SNR {mutation.log_snr:.1f} and {refinement.log_snr:.1f}); "
        f"the test against no phases at all gives p = {phases.p_value:.2g}."
    )


def phases_section(phases: Phases) -> Section:
    """Boundaries of the three phases with their intervals, and the activity curve."""
    from asced_analysis import plots

    names = ("Profiling | Mutation", "Mutation | Refinement")
    found = phases.population.mutation.step == phases.population.mutation.step
    rows = tuple(
        (
            name,
            f"{boundary.step:.1f} {interval_text(boundary.step_interval)}",
            f"{boundary.normalised_time:.2f} "
            f"{interval_text(boundary.normalised_time_interval, '{:.2f}')}",
            f"{boundary.log_snr:.2f} {interval_text(boundary.log_snr_interval, '{:.2f}')}",
        )
        for name, boundary in zip(names, phases.population, strict=True)
    )
    table = Table(
        f"Boundaries with {100 * phases.confidence:g} % bootstrap intervals",
        rows,
        ("boundary", "step", "time (0 noise, 1 image)", "log-SNR"),
    )
    return Section(
        "Phases",
        (
            "Activity is the share of an image's pixels whose innovation, per unit of log-SNR, "
            f"lies more than {phases.cutoff:g} robust units out; the curve is the mean over runs. "
            "Two change points split it into Profiling (layout), Mutation (where abnormal "
            "dynamics appear) and Refinement (detail).",
        ),
        (
            Picture(
                figure_uri(figure_of(plots.phase_curve(phases))),
                f"Activity by step with the phases shaded. {phases_in_words(phases)}",
                "Mean activity by step, with the phases.",
            ),
        ),
        (table,) if found else (),
    )


def dynamics_section(statistics: xr.Dataset, phases: Phases) -> Section:
    """Quantiles of the score dynamics by step."""
    from asced_analysis import plots

    return Section(
        "Score dynamics",
        (
            "The weighted score is the pull of the model on each pixel; its dynamics are the "
            "differences between adjacent steps. Quantiles are over all pixels of all runs.",
        ),
        (
            Picture(
                figure_uri(figure_of(plots.dynamics_curves(statistics, phases))),
                "Median and quantile bands of the score dynamics by step",
                "Median and quantile bands of the score dynamics by step, with the phases.",
            ),
        ),
    )


def evaluation_section(evaluation: Evaluation) -> Section:
    """What the correction did, beside the controls."""
    rows = tuple((name.strip(), figures) for name, figures in evaluation.table())
    return Section(
        "Before and after",
        (
            "Local distance is how far small regions of an image lie from the nearest ones of real "
            "images, in the features of a judge that took no part in calibration: lower is more "
            "realistic, so a negative change is a repair. Intervals resample runs.",
            "The controls repeat the same correction of the same runs in masks of equal area at "
            "the wrong place, or everywhere. The worth of the mask is its effect minus that of the "
            "best control: what the place of the mask alone has earned.",
        ),
        tables=(Table("With 95 % bootstrap intervals", rows, ("figure", "value")),),
    )


def thresholds_section(thresholds: Thresholds) -> Section:
    """The level, what it promises and to whom."""
    guarantee, window = thresholds.guarantee, thresholds.window
    measured = (
        "not measured"
        if guarantee.measured is None
        else f"{percent(guarantee.measured)} {interval_text(guarantee.interval, '{:.3f}')}"
    )
    rows = [
        ("variant", thresholds.variant),
        ("level", f"{thresholds.levels.level:.4g} robust units"),
        ("window", f"steps {window.steps[0]} to {window.steps[1]} of {window.of_steps}"),
        ("method", guarantee.method),
        ("promised false-alarm rate", percent(guarantee.promised)),
        ("measured on held-out runs, 95 % interval", measured),
        ("population", guarantee.population),
        (
            f"{guarantee.unit}s to fit, calibrate, report",
            f"{guarantee.fit}, {guarantee.calibrate}, {guarantee.report}",
        ),
        ("holds at every sample size", "yes" if guarantee.finite_sample else "no"),
        (
            "correction",
            f"{thresholds.correction.strategy} at time {thresholds.correction.normalised_time:.2f}",
        ),
    ]
    return Section(
        "Thresholds",
        tuple(guarantee.notes),
        tables=(Table("What is promised, and what was measured", tuple(rows)),),
    )


def gallery_section(cases: Sequence[Case], flagged: int) -> Section:
    """Flagged runs with their masks, each beside its corrected twin."""
    text = (
        f"{len(cases)} of {flagged} flagged runs, the most abnormal first. The outline is the "
        "mask that the detector drew before the image was finished."
        if cases
        else "No run was flagged."
    )
    return Section("Flagged runs", (text,), cases=tuple(cases))


def case(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    twin: NDArray[np.uint8] | None,
    *,
    run: int,
    details: Mapping[str, Any],
) -> Case:
    """One flagged run: as drawn, with its mask, corrected."""
    pictures = [
        Picture(_plain(image), f"run {run} as sampled", "as sampled"),
        Picture(
            png_uri(with_outline(image, mask, size=PICTURE_SIZE)),
            f"run {run} with the flagged region outlined",
            "flagged region",
        ),
    ]
    if twin is not None:
        pictures.append(Picture(_plain(twin), f"run {run} corrected", "corrected twin"))
    words = "; ".join(
        f"{name} {value}" for name, value in details.items() if value not in ("", None)
    )
    return Case(f"run {run}", tuple(pictures), words)


def provenance_section(attributes: Mapping[str, Any]) -> Section:
    """What the runs were made with."""
    keys = (
        "pipeline",
        "model_fingerprint",
        "scheduler_class",
        "prediction_type",
        "steps",
        "device",
        "threads",
        "format",
        "format_version",
    )
    rows = [(key.replace("_", " "), str(attributes[key])) for key in keys if key in attributes]
    versions = attributes.get("versions", {})
    if isinstance(versions, Mapping):
        rows.append(("versions", ", ".join(f"{name} {value}" for name, value in versions.items())))
    return Section(
        "Method and provenance",
        (
            "Definitions: score dynamics after ASCED (CVPR 2025, arXiv:2503.16218); phases, "
            "calibration and judging as this toolkit's documentation describes. Thresholds are "
            "calibrated by split conformal control; effects are judged by a network that took no "
            "part in calibration.",
        ),
        tables=(Table("Recorded with", tuple(rows)),),
    )


def _plain(image: NDArray[np.uint8]) -> str:
    return png_uri(np.asarray(upscaled(as_rgb(image), PICTURE_SIZE), np.uint8))
