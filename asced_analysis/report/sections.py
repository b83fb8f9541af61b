"""The sections of a report, each a pure function of results that were computed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.plots.images import is_latent
from asced_analysis.plots.outlines import outlined_place
from asced_analysis.realism.claims import teacher_rows
from asced_analysis.report.page import Case, Picture, Section, Table
from asced_analysis.report.pictures import as_rgb, figure_uri, png_uri, upscaled, with_outline
from asced_analysis.thresholds.wording import guarantee_in_words, percent, promise_rows

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from asced_analysis.evaluation import Evaluation
    from asced_analysis.phases.segmentation import Phases
    from asced_analysis.thresholds.document import Thresholds

PICTURE_SIZE = 160
FEW = 6
"""Numbers of one parameter that are printed."""


def figure_of(axes: Any) -> Figure:
    """The figure that holds some axes."""
    figure: Figure = axes.get_figure()
    return figure


def interval_text(interval: Sequence[float] | None, form: str = "{:.1f}") -> str:
    """An interval in brackets, or nothing."""
    if interval is None:
        return ""
    return "[" + ", ".join(form.format(value) for value in interval) + "]"


SPLIT = (
    " Two change points split it into Profiling (layout), Mutation (where abnormal dynamics "
    "appear) and Refinement (detail)."
)


def phases_in_words(phases: Phases) -> str:
    """Where the boundaries lie, as one sentence."""
    begins = [
        f"{name} begins at step {boundary.step:.1f} {interval_text(boundary.step_interval)} "
        f"(log-SNR {boundary.log_snr:.1f})"
        for name, boundary in zip(("Mutation", "Refinement"), phases.population, strict=True)
        if boundary.step == boundary.step
    ]
    return f"{' and '.join(begins)}. {phases.verdict()}" if begins else phases.verdict()


def _shaded(phases: Phases | None) -> str:
    """What a picture's words say of phases, where some were found."""
    boundaries = () if phases is None else phases.population
    found = any(boundary.step == boundary.step for boundary in boundaries)
    return ", with the phases shaded" if found else ""


def phases_section(phases: Phases) -> Section:
    """Boundaries of the three phases with their intervals, and the activity curve."""
    from asced_analysis import plots

    names = ("Profiling | Mutation", "Mutation | Refinement")
    rows = tuple(
        (
            name,
            f"{boundary.step:.1f} {interval_text(boundary.step_interval)}",
            f"{boundary.normalised_time:.2f} "
            f"{interval_text(boundary.normalised_time_interval, '{:.2f}')}",
            f"{boundary.log_snr:.2f} {interval_text(boundary.log_snr_interval, '{:.2f}')}",
        )
        for name, boundary in zip(names, phases.population, strict=True)
        if boundary.step == boundary.step
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
            f"lies more than {phases.cutoff:g} robust units out; the curve is the mean over runs."
            + (SPLIT if rows else ""),
        ),
        (
            Picture(
                figure_uri(figure_of(plots.phase_curve(phases))),
                f"Activity by step{_shaded(phases)}. {phases_in_words(phases)}",
                f"Mean activity by step{_shaded(phases)}.",
            ),
        ),
        (table,) if rows else (),
    )


def dynamics_section(statistics: xr.Dataset, phases: Phases | None) -> Section:
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
                f"Median and quantile bands of the score dynamics by step{_shaded(phases)}.",
            ),
        ),
    )


def thresholds_section(thresholds: Thresholds, detected: xr.Dataset | None = None) -> Section:
    """The level, what it promises and to whom, and how the runs' scores lie about it."""
    from asced_analysis import plots

    guarantee = thresholds.guarantee
    split = f"{guarantee.fit}, {guarantee.calibrate}, {guarantee.report}"
    rows = [*promise_rows(thresholds), (f"{guarantee.unit}s to fit, calibrate, report", split)]
    if thresholds.teacher is not None:
        rows += [(name.strip(), value) for name, value in teacher_rows(thresholds.teacher)]
    figures = []
    if detected is not None and np.isfinite(detected["score"].values).any():
        flagged = int(np.count_nonzero(detected["flagged"].values))
        figures.append(
            Picture(
                figure_uri(figure_of(plots.scores(detected, thresholds))),
                f"Histogram of the scores of {detected.sizes['run']:,} runs; {flagged:,} of them "
                f"lie above the level {thresholds.levels.level:.3g} and are flagged.",
                "Scores of all runs about the level. It was set on a part of them that chose "
                "nothing else, so this histogram looks a little better than new runs will.",
            )
        )
    return Section(
        "Calibration and its guarantee",
        guarantee_in_words(thresholds),
        tuple(figures),
        (Table("What is promised, and what was measured", tuple(rows)),),
    )


def case_study_section(ds: xr.Dataset, corrected: xr.Dataset, run: int) -> Section:
    """One run from noise to its corrected version."""
    from asced_analysis import plots

    place = outlined_place(corrected.attrs)
    colours = ", in false colours" if "x0" in ds and is_latent(ds["x0"]) else ""
    where = f"the revisions inside and outside the {place}"
    if bool(corrected["mask"].sel(run=run).all()):
        where = "how much it revised, and when all of it was renewed"
    return Section(
        "One run, from noise to its corrected version",
        (),
        (
            Picture(
                figure_uri(plots.case_study(ds, corrected, run=run)),
                f"Run {run}: what the model expects{colours}, and what it revises at some steps; "
                f"by step {where}; the image as sampled, the {place}, the corrected version.",
                f"Run {run}, the most abnormal one. Above, the image that the model expects at a "
                f"step{colours}, and what it revised there; below, {where}, and the end with and "
                "without the correction.",
            ),
        ),
    )


def place_in_words(mask: NDArray[np.bool_]) -> str:
    """Where in the image a mask lies, for those who do not see it."""
    if not mask.any():
        return "nothing is outlined"
    flat = mask.any(0) if mask.ndim == 3 else mask
    rows, columns = np.nonzero(flat)
    vertical = ("top", "middle", "bottom")[min(2, int(3 * rows.mean() / flat.shape[0]))]
    across = ("left", "centre", "right")[min(2, int(3 * columns.mean() / flat.shape[1]))]
    return f"{percent(float(mask.mean()))} of the image, {vertical} {across}"


def case(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    corrected: NDArray[np.uint8] | None,
    *,
    run: int,
    details: Mapping[str, Any],
    outlined: str = "flagged region",
) -> Case:
    """One flagged run: as drawn, with its mask, corrected."""
    pictures = [
        Picture(_plain(image), f"run {run} as sampled", "as sampled"),
        Picture(
            png_uri(with_outline(image, mask, size=PICTURE_SIZE)),
            f"run {run} with the {outlined} outlined: {place_in_words(mask)}",
            outlined,
        ),
    ]
    if corrected is not None:
        pictures.append(Picture(_plain(corrected), f"run {run} corrected", "corrected version"))
    words = "; ".join(
        f"{name} {value}" for name, value in details.items() if value not in ("", None)
    )
    return Case(f"run {run}", tuple(pictures), words)


DEFINITIONS = (
    (
        "score dynamics",
        "difference between adjacent steps of the weighted score W = -(sigma / alpha) eps, the way "
        "from the sample to the image that the model expects (ASCED, CVPR 2025, arXiv:2503.16218)",
    ),
    (
        "innovation",
        "the part of it that the model decided, -(sigma / alpha) times the change of eps; the rest "
        "is the schedule acting on old noise",
    ),
    (
        "phases",
        "two change points of the mean activity curve, by least squares; intervals by resampling "
        "runs, p-value by turning curves",
    ),
    (
        "calibration",
        "runs are split into three; one part fits, one sets the level as an order statistic "
        "(split conformal), one measures the rate",
    ),
    (
        "controls",
        "the same correction of the same runs in masks of equal area at the wrong place, and "
        "everywhere",
    ),
)
RECORDED = (
    "pipeline",
    "pipeline_class",
    "model_fingerprint",
    "scheduler_class",
    "prediction_type",
    "steps",
    "seed",
    "model_dtype",
    "device",
    "threads",
    "format",
    "format_version",
)


def provenance_section(
    attributes: Mapping[str, Any],
    thresholds: Thresholds | None = None,
    corrected: Mapping[str, Any] | None = None,
    evaluation: Evaluation | None = None,
) -> Section:
    """What the words mean, and what runs, thresholds and replay were made with."""
    rows = [(key.replace("_", " "), str(attributes[key])) for key in RECORDED if key in attributes]
    versions = attributes.get("versions", {})
    if isinstance(versions, Mapping):
        rows.append(("versions", ", ".join(f"{name} {value}" for name, value in versions.items())))
    words: tuple[tuple[str, str], ...] = DEFINITIONS
    if evaluation is not None:
        claims = evaluation.claims
        words = (*words, (claims.distance, f"{claims.meaning}"))
    tables = [Table("What the words mean", words), Table("Recorded with", tuple(rows))]
    made = []
    if thresholds is not None:
        made.append(("detector", f"{thresholds.variant}: {_setting(thresholds.parameters)}"))
    if corrected is not None:
        made += [
            (name.replace("_", " "), _setting(corrected[name]))
            for name in ("strategy", "strategy_parameters", "correction_step", "start", "control")
            if corrected.get(name) is not None
        ]
        differs = corrected.get("replay_conditions")
        made.append(("replay differs from the recording in", "; ".join(differs or ()) or "nothing"))
    if evaluation is not None:
        judge = evaluation.judge
        made.append(("judge", f"{judge.name}: {judge.reference}"))
    if made:
        tables.append(Table("Detected, corrected and judged with", tuple(made)))
    return Section("Method and provenance", (), tables=tuple(tables))


def _setting(value: Any) -> str:
    """A parameter, or several by name; of many numbers how many they are."""
    if isinstance(value, Mapping):
        given = {name: one for name, one in value.items() if one not in (None, [], "")}
        return ", ".join(f"{name.replace('_', ' ')} {_setting(one)}" for name, one in given.items())
    if isinstance(value, list):
        return f"of {len(value)} numbers" if len(value) > FEW else ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(image: NDArray[np.uint8]) -> str:
    return png_uri(np.asarray(upscaled(as_rgb(image), PICTURE_SIZE), np.uint8))
