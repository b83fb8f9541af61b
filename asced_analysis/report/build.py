"""Gather what a report shows, run by run where it can be, and write it as one file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from asced_analysis.report.page import Case, Key, Page, Section, render_html, render_markdown
from asced_analysis.report.sections import (
    case,
    dynamics_section,
    evaluation_section,
    gallery_section,
    percent,
    phases_in_words,
    phases_section,
    provenance_section,
    thresholds_section,
)
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from asced_analysis.evaluation import Evaluation
    from asced_analysis.phases import Phases
    from asced_analysis.replay.recording import Recording
    from asced_analysis.thresholds import Thresholds

GALLERY = 24
DETAILS = ("seed", "prompt", "label", "guidance_scale")


def write_report(
    runs: str | PathLike[str],
    out: str | PathLike[str],
    *,
    thresholds: Thresholds | str | PathLike[str] | None = None,
    replay: str | PathLike[str] | None = None,
    evaluation: Evaluation | str | PathLike[str] | None = None,
    phases: Phases | None = None,
    statistics: xr.Dataset | None = None,
    pipeline: Any = None,
    format: Literal["html", "md"] = "html",
    gallery: int = GALLERY,
    overwrite: bool = False,
) -> Path:
    """Write one self-contained page about runs, thresholds and a replay.

    Parameters
    ----------
    runs : path
        The recording.
    out : path
        File to write, whole or not at all.
    thresholds : Thresholds or path, optional
        Shown with their guarantee; without a replay, they also choose the gallery.
    replay : path, optional
        What `replay` made of the recording.
    evaluation : Evaluation or path, optional
        By default computed when there is a replay.
    phases, statistics : optional
        Results already at hand; by default computed.
    pipeline : DiffusionPipeline, str or Path, optional
        For the controls of the evaluation; by default the one the recording names.
    format : {"html", "md"}
        Pictures are embedded in both.
    gallery : int
        Largest number of flagged runs shown.
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputError
        When the file exists, or the inputs do not belong together.
    """
    from asced_analysis import open_runs, segment_phases, step_statistics
    from asced_analysis.evaluation import Evaluation, evaluate
    from asced_analysis.evaluation.belonging import replayed_runs
    from asced_analysis.replay.recording import Recording
    from asced_analysis.thresholds import Thresholds
    from asced_stores import TrajectoryStore

    target = Path(out)
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; choose another name or pass --overwrite")
    if evaluation is not None and replay is None:
        raise InputError("an evaluation belongs to a replay: give the replay as well (--replay)")
    ds = open_runs(str(runs))
    limits = None
    if thresholds is not None:
        limits = thresholds if isinstance(thresholds, Thresholds) else Thresholds.load(thresholds)
        _check_thresholds(ds, limits)
    if evaluation is not None and not isinstance(evaluation, Evaluation):
        evaluation = Evaluation.load(evaluation)
    twins = None
    if replay is not None:
        recording = Recording(str(runs))
        twins = replayed_runs(recording, TrajectoryStore.open(str(replay)))
        if evaluation is None:
            evaluation = evaluate(str(runs), str(replay), pipeline=pipeline)
        else:
            _check_evaluation(evaluation, recording, twins)
    page = build_page(
        ds,
        name=Path(str(runs)).name,
        phases=phases or segment_phases(ds),
        statistics=step_statistics(ds) if statistics is None else statistics,
        thresholds=limits,
        twins=twins,
        evaluation=evaluation,
        gallery=gallery,
    )
    text = render_html(page) if format == "html" else render_markdown(page)
    part = target.with_name(f".{target.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(target)
    return target


def build_page(
    ds: xr.Dataset,
    *,
    name: str,
    phases: Phases,
    statistics: xr.Dataset,
    thresholds: Thresholds | None = None,
    twins: xr.Dataset | None = None,
    evaluation: Evaluation | None = None,
    gallery: int = GALLERY,
) -> Page:
    """Put a report together from results.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them; only the gallery's images are read.
    name : str
        What the recording is called.
    phases, statistics, thresholds, evaluation
        Results of this package.
    twins : xarray.Dataset, optional
        The replay's runs, with ``mask``, ``flagged`` and ``score``.
    gallery : int
        Largest number of flagged runs shown.

    Returns
    -------
    Page
    """
    sections: list[Section] = []
    keys = [Key(f"{ds.sizes['run']:,}", "complete runs"), Key(str(ds.sizes["step"]), "steps each")]
    summary = [
        f"{ds.sizes['run']:,} runs of {ds.attrs.get('pipeline', 'a pipeline')} were recorded in "
        f"{ds.sizes['step']} steps with {ds.attrs.get('scheduler_class', 'a custom loop')}.",
        phases_in_words(phases),
    ]
    if thresholds is not None:
        guarantee = thresholds.guarantee
        keys.append(Key(percent(guarantee.promised), "promised false-alarm rate"))
        measured = ""
        if guarantee.measured is not None and guarantee.interval is not None:
            low, high = (percent(limit) for limit in guarantee.interval)
            measured = (
                f"; of {guarantee.report} held-out {guarantee.unit}s, "
                f"{percent(guarantee.measured)} were flagged (95 % interval {low} to {high})"
            )
        summary.append(
            f"Thresholds ({thresholds.variant}) promise to flag at most "
            f"{percent(guarantee.promised)} of {guarantee.population}, on average over "
            f"calibrations{measured}."
        )
    flagged = None
    if twins is not None:
        flagged = twins
    elif thresholds is not None:
        from asced_analysis.detection.apply import detect

        flagged = detect(ds, thresholds)
    cases: list[Case] = []
    count = 0
    if flagged is not None:
        cases, count = _cases(ds, flagged, twins, evaluation, gallery)
        keys.append(Key(str(count), "flagged runs"))
    if evaluation is not None:
        keys.append(_repaired(evaluation))
        summary.append(_effect_in_words(evaluation))
    if flagged is not None:
        sections.append(gallery_section(cases, count))
    if evaluation is not None:
        sections.append(evaluation_section(evaluation))
    sections += [phases_section(phases), dynamics_section(statistics, phases)]
    if thresholds is not None:
        sections.append(thresholds_section(thresholds))
    sections.append(provenance_section(ds.attrs))
    return Page(
        title=f"Score dynamics of {name}",
        subtitle="What the trajectories of these runs show, what was flagged, and what a "
        "correction did.",
        keys=tuple(keys),
        summary=tuple(summary),
        sections=tuple(sections),
        footer=f"Written by asced-analysis {version('asced-analysis')}.",
    )


def _check_thresholds(ds: xr.Dataset, thresholds: Thresholds) -> None:
    """Refuse thresholds that were calibrated on another model than the one of these runs."""
    from asced_analysis.thresholds import fingerprint_of

    variable = next((ds[name] for name in ("sample", "x0", "eps") if name in ds), None)
    sizes = {} if variable is None else dict(variable.sizes)
    shape = [sizes[d] for d in ("frame", "channel", "y", "x") if d in sizes]
    here = fingerprint_of(ds.attrs, shape) | {"steps": int(ds.sizes["step"])}
    thresholds.check_fingerprint(here if shape else here | {"sample_shape": None})


def _check_evaluation(evaluation: Evaluation, recording: Recording, twins: xr.Dataset) -> None:
    """Refuse an evaluation of another replay, as far as its figures tell."""
    data = evaluation.data
    expected = {
        "replay_of": recording.store.fingerprint,
        "runs": int(twins.sizes["run"]),
        "flagged": int(twins["flagged"].sum()),
    }
    for name, value in expected.items():
        if data.get(name) != value:
            raise InputError(
                f"the evaluation is one of another replay: its {name} is {data.get(name)} where "
                f"this replay has {value}; make one with `asced evaluate`, or leave it out"
            )


def _cases(
    ds: xr.Dataset,
    flagged: xr.Dataset,
    twins: xr.Dataset | None,
    evaluation: Evaluation | None,
    gallery: int,
) -> tuple[list[Case], int]:
    """The gallery's cases, most abnormal first, and how many runs were flagged in all."""
    chosen = np.flatnonzero(flagged["flagged"].values)
    scores = np.asarray(flagged["score"].values, np.float64)[chosen]
    order = chosen[np.argsort(-scores, kind="stable")][:gallery]
    by_run: dict[int, Mapping[str, Any]] = {}
    if evaluation is not None:
        by_run = {int(entry["run"]): entry for entry in evaluation.data["by_run"]}
    cases = []
    for index in order:
        row = flagged.isel(run=int(index))
        run = int(row["run"])
        source = ds.sel(run=run)
        details: dict[str, Any] = {
            key: source[key].item() for key in DETAILS if key in source.coords
        }
        details = {k: v for k, v in details.items() if v == v and v not in ("", -1)}
        details["score"] = f"{float(row['score']):.3g}"
        details["mask"] = percent(float(row["mask"].mean()))
        if run in by_run:
            entry = by_run[run]
            details["local distance"] = (
                f"{entry['local_realism_before']:.3g} before, "
                f"{entry['local_realism_after']:.3g} after"
            )
        twin = None if twins is None else twins["image"].sel(run=run).values
        mask = np.asarray(row["mask"].values, np.bool_)
        cases.append(case(source["image"].values, mask, twin, run=run, details=details))
    return cases, len(chosen)


def _repaired(evaluation: Evaluation) -> Key:
    improved = evaluation.data["flagged_runs"]["effect"]["improved"]["value"]
    return Key("-" if improved is None else percent(improved, 0), "of flagged runs improved")


def _effect_in_words(evaluation: Evaluation) -> str:
    """What the correction did to the flagged runs, and whether the mask earned it."""
    data = evaluation.data
    effect = data["flagged_runs"]["effect"]["all"]
    if effect["value"] is None:
        return "No run was flagged, so nothing was corrected."
    text = (
        f"Correction by {data['strategy']} at step {data['correction_step']} changed the flagged "
        f"runs' local distance to real images by {effect['value']:.3g}"
    )
    if effect["low"] is not None:
        text += f" ({effect['low']:.3g} to {effect['high']:.3g}; negative is better)"
    worth = data["worth_of_mask"]
    if worth:
        figure = worth["all"]
        if figure["low"] is None or figure["low"] <= 0 <= figure["high"]:
            text += "; against the best control the mask's place made no clear difference"
        elif figure["value"] < 0:
            text += f"; the mask's place earned {figure['value']:.3g} over the best control"
        else:
            text += f"; the best control did better by {figure['value']:.3g}"
    others = data["other_runs"]
    return f"{text}. {others['changed']} of {others['runs']} other runs changed."
