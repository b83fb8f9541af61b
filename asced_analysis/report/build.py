"""Gather what a report shows, run by run where it can be, and write it as one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asced_analysis.plots.images import end_pictures
from asced_analysis.plots.outlines import outlined_place
from asced_analysis.report.corrections import (
    evaluation_section,
    gallery_section,
    remedies_section,
)
from asced_analysis.report.options import GALLERY, ReportOptions
from asced_analysis.report.page import Case, Page, Section, render_html, render_markdown
from asced_analysis.report.sections import (
    case,
    case_study_section,
    dynamics_section,
    phases_section,
    provenance_section,
    thresholds_section,
)
from asced_analysis.report.summary import in_plain_words
from asced_analysis.thresholds.wording import percent
from asced_stores.errors import InputError, TooFewStepsError
from asced_stores.files import check_out, write_whole
from asced_stores.options import takes

if TYPE_CHECKING:
    import xarray as xr

    from asced_analysis.evaluation import Evaluation, Remedies
    from asced_analysis.phases.segmentation import Phases
    from asced_analysis.replay.recording import Recording
    from asced_analysis.thresholds.document import Thresholds

DETAILS = ("seed", "prompt", "label", "guidance_scale")


@takes(ReportOptions)
def write_report(
    runs: str | PathLike[str], out: str | PathLike[str], options: ReportOptions
) -> Path:
    """Write one self-contained page about runs, thresholds and a replay.

    Parameters
    ----------
    runs : path
        The recording.
    out : path
        File to write, whole or not at all: ``.html``, or ``.md`` for Markdown. Pictures are
        embedded in both.
    options : ReportOptions
        Each by keyword.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputError
        When the file exists, or the inputs do not belong together.

    Examples
    --------
    >>> from asced_analysis.report import write_report
    >>> write_report("runs.zarr", "report.html", thresholds="thresholds.json").name
    'report.html'
    """
    from asced_analysis import open_runs, segment_phases, step_statistics
    from asced_analysis.evaluation import Evaluation, Remedies, evaluate
    from asced_analysis.evaluation.matching import replayed_runs
    from asced_analysis.realism.judges import real_images_of
    from asced_analysis.replay.recording import Recording
    from asced_analysis.thresholds.document import Thresholds
    from asced_stores import TrajectoryStore

    target = check_out(out, overwrite=options.overwrite, suffixes=(".html", ".md"))
    replay, judge = options.replay, options.judge
    evaluation = _loaded(options.evaluation, Evaluation)
    of_replay = bool(options.compare) or bool(evaluation and evaluation.replay_of is not None)
    if of_replay and replay is None:
        raise InputError("an evaluation belongs to a replay: give the replay as well (--replay)")
    judged = judge is not None or options.real is not None
    if judged and (evaluation is not None or replay is None):
        raise InputError(
            "a judge and real images are for the evaluation of a replay that is made here: give a "
            "replay, and no evaluation"
        )
    ds = open_runs(str(runs))
    real = real_images_of(options.real, ds)
    thresholds = _loaded(options.thresholds, Thresholds)
    if thresholds is not None:
        _check_thresholds(ds, thresholds)
    remedies = _loaded(options.remedies, Remedies)
    others = [_loaded(one, Evaluation) for one in options.compare]
    corrected = None
    if replay is not None:
        recording = Recording(str(runs))
        corrected = replayed_runs(recording, TrajectoryStore.open(str(replay)))
        if evaluation is None:
            evaluation = evaluate(
                str(runs), str(replay), judge=judge, real=real, pipeline=options.pipeline
            )
        else:
            _check_evaluation(evaluation, recording, corrected)
        for one in others:
            _check_evaluation(one, recording, corrected)
    phases, statistics = options.phases, options.statistics
    page = build_page(
        ds,
        name=Path(str(runs)).name,
        phases=phases or _if_enough_steps(segment_phases, ds),
        statistics=_if_enough_steps(step_statistics, ds) if statistics is None else statistics,
        thresholds=thresholds,
        corrected=corrected,
        evaluation=evaluation,
        compare=others,
        remedies=remedies,
        gallery=options.gallery,
        pipeline=options.pipeline,
    )
    text = render_markdown(page) if target.suffix == ".md" else render_html(page)
    return write_whole(target, text, overwrite=options.overwrite)


def build_page(
    ds: xr.Dataset,
    *,
    name: str,
    phases: Phases | None,
    statistics: xr.Dataset | None,
    thresholds: Thresholds | None = None,
    corrected: xr.Dataset | None = None,
    evaluation: Evaluation | None = None,
    compare: Sequence[Evaluation] = (),
    remedies: Remedies | None = None,
    gallery: int = GALLERY,
    pipeline: Any = None,
) -> Page:
    """Put a report together from results.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them; only the gallery's images are read.
    name : str
        What the recording is called.
    phases, statistics, thresholds, evaluation, remedies
        Results of this package; without phases or statistics, their sections are left out.
    compare : sequence of Evaluation
        Of other corrections of the same runs.
    corrected : xarray.Dataset, optional
        The replay's runs, with ``mask``, ``flagged`` and ``score``.
    gallery : int
        Largest number of flagged runs shown.
    pipeline : DiffusionPipeline, str or Path, optional
        For thresholds with a lookahead; by default the one that the store names.

    Returns
    -------
    Page

    Examples
    --------
    >>> import asced_analysis as aa
    >>> from asced_analysis.report import build_page
    >>> ds = aa.open_runs("runs.zarr")
    >>> phases = aa.segment_phases(ds, replicates=99, run_replicates=0)
    >>> page = build_page(ds, name="runs", phases=phases, statistics=aa.step_statistics(ds))
    >>> [section.title for section in page.sections]
    ['Phases', 'Score dynamics', 'Method and provenance']
    """
    from asced_analysis.detection.apply import detect, own_levels_above

    flagged = None
    if corrected is not None:
        flagged = corrected
    elif thresholds is not None:
        flagged = detect(ds, thresholds, pipeline=pipeline)
        # Two numbers a run; masks stay where they are until the gallery's are chosen.
        flagged = flagged.assign(flagged[["score", "flagged"]].compute())
    cases: list[Case] = []
    count = 0
    first = None
    if flagged is not None:
        above = None
        if thresholds is not None:
            by = thresholds.grouped_by
            if thresholds.groups and by in ds.coords and by not in flagged.coords:
                # put on the recording by hand, so that a replay's store lacks it
                own = ds[by].sel(run=flagged["run"]).values
                flagged = flagged.assign_coords({by: ("run", own)})
            above = own_levels_above(flagged, thresholds)
        cases, count, first = _cases(ds, flagged, above, corrected, evaluation, gallery)
    sections: list[Section] = []
    if corrected is not None and first is not None:
        sections.append(case_study_section(ds, corrected, first))
    if phases is not None:
        sections.append(phases_section(phases))
    if statistics is not None:
        sections.append(dynamics_section(statistics, phases))
    if thresholds is not None:
        sections.append(thresholds_section(thresholds, flagged))
    if evaluation is not None:
        sections.append(evaluation_section(evaluation, compare))
    if remedies is not None:
        sections.append(remedies_section(remedies))
    attributes = None if corrected is None else corrected.attrs
    if flagged is not None:
        sections.append(gallery_section(cases, count, outlined_place(attributes)))
    sections.append(provenance_section(ds.attrs, thresholds, attributes, evaluation))
    keys, summary = in_plain_words(
        ds, phases, thresholds, None if flagged is None else count, evaluation
    )
    return Page(
        title=f"Score dynamics of {name}",
        subtitle="What the trajectories of these runs show, what was flagged, and what a "
        "correction did.",
        keys=keys,
        summary=summary,
        sections=tuple(sections),
        footer=f"Written by asced-analysis {version('asced-analysis')}.",
    )


def _loaded(given: Any, kind: Any) -> Any:
    """A result, or that of a file; None stays None."""
    return given if given is None or isinstance(given, kind) else kind.load(str(given))


def _if_enough_steps(analysis: Callable[[xr.Dataset], Any], ds: xr.Dataset) -> Any:
    """A result, or None where the runs have too few steps for it."""
    try:
        return analysis(ds)
    except TooFewStepsError:
        return None


def _check_thresholds(ds: xr.Dataset, thresholds: Thresholds) -> None:
    """Refuse thresholds that were calibrated on another model than the one of these runs."""
    from asced_analysis.thresholds.document import fingerprint_of

    variable = next((ds[name] for name in ("sample", "x0", "eps") if name in ds), None)
    sizes = {} if variable is None else dict(variable.sizes)
    shape = [sizes[d] for d in ("frame", "channel", "y", "x") if d in sizes]
    here = fingerprint_of(ds.attrs, shape) | {"steps": int(ds.sizes["step"])}
    thresholds.check_fingerprint(here if shape else here | {"sample_shape": None})


def _check_evaluation(evaluation: Evaluation, recording: Recording, corrected: xr.Dataset) -> None:
    """Refuse an evaluation of another replay, as far as its figures tell."""
    expected = {
        "replay_of": recording.store.fingerprint,
        "runs": int(corrected.sizes["run"]),
        "flagged": int(corrected["flagged"].sum()),
    }
    for name, value in expected.items():
        if (found := getattr(evaluation, name)) != value:
            raise InputError(
                f"the evaluation is one of another replay: its {name} is {found} where "
                f"this replay has {value}; make one with `asced evaluate`, or leave it out"
            )


def _cases(
    ds: xr.Dataset,
    flagged: xr.Dataset,
    above: npt.NDArray[np.float64] | None,
    corrected: xr.Dataset | None,
    evaluation: Evaluation | None,
    gallery: int,
) -> tuple[list[Case], int, int | None]:
    """The gallery's cases, how many runs were flagged in all, and the most abnormal one."""
    chosen = np.flatnonzero(flagged["flagged"].values)
    scores = np.asarray(flagged["score"].values, np.float64)
    compared = scores if above is None else scores - above
    order = chosen[np.argsort(-compared[chosen], kind="stable")]
    first = int(flagged["run"].values[order[0]]) if len(order) else None
    order = order[:gallery]
    masks = np.asarray(flagged["mask"].isel(run=order).values, np.bool_)
    outlined = outlined_place(None if corrected is None else corrected.attrs)
    by_run = {} if evaluation is None else {one.run: one for one in evaluation.by_run}
    cases = []
    for index, mask in zip(order, masks, strict=True):
        row = flagged.isel(run=int(index))
        run = int(row["run"])
        source = ds.sel(run=run)
        details: dict[str, Any] = {
            key: source[key].item() for key in DETAILS if key in source.coords
        }
        details = {k: v for k, v in details.items() if v == v and v not in ("", -1)}
        details["score"] = f"{scores[index]:.3g}"
        details[outlined] = percent(float(mask.mean()))
        if evaluation is not None and run in by_run:
            entry = by_run[run]
            details[evaluation.claims.distance] = (
                f"{entry.local_realism_before:.3g} before, {entry.local_realism_after:.3g} after"
            )
        pair = [source] if corrected is None else [source, corrected.sel(run=run)]
        image, *others = end_pictures(*pair)
        repaired = others[0] if others else None
        cases.append(case(image, mask, repaired, run=run, details=details, outlined=outlined))
    return cases, len(chosen), first
