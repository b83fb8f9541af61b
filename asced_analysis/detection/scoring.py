"""Scores of recorded runs by the very detector that runs in the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asced_analysis.compute.source import Batch, Source
from asced_analysis.detection.feeding import feed_stream
from asced_analysis.detection.registry import LOOKAHEADS, VARIANTS, modules_of, needs_network
from asced_analysis.detection.streaming import Detection, Detector, DetectorState, make_detector
from asced_analysis.realism.self_consistency import network_at
from asced_analysis.thresholds.document import Thresholds
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

Floats = npt.NDArray[np.float64]


def detector_for(source: Source, thresholds: Thresholds, *, level: float | None = None) -> Detector:
    """The detector bound to the recorded runs' sampler.

    Thresholds with a lookahead get the pipeline that the store names, unless the
    source brings a lookahead.
    """
    source = with_lookahead(source, thresholds)
    detector = make_detector(
        thresholds,
        alpha=source.alpha,
        sigma=source.sigma,
        log_snr=source.log_snr,
        level=level,
        lookahead=source.lookahead,
    )
    check_recorded(source.dataset, detector.needs(), thresholds)
    return detector


def check_recorded(runs: xr.Dataset, names: Sequence[str], thresholds: Thresholds) -> None:
    """Refuse runs that lack what a detector looks at.

    Parameters
    ----------
    runs : xarray.Dataset
    names : sequence of str
        What the detector needs.
    thresholds : Thresholds

    Raises
    ------
    InputError
    """
    missing = [name for name in names if name not in runs]
    recorded = [one["module"] for one in runs.attrs.get("activations", ())]
    wanted = list(modules_of(thresholds))
    if missing or (wanted and wanted != recorded):
        advice = f" with activations={wanted}" if wanted else ""
        raise InputError(
            f"thresholds of the variant {thresholds.variant} look at "
            f"{', '.join(wanted or names)}, which these runs do not hold"
            f"{f' (they hold {recorded})' if recorded else ''}: record them{advice}"
        )


def with_lookahead(
    source: Source, thresholds: Thresholds, pipeline: Any = None, network: Any = None
) -> Source:
    """The source with a lookahead, where the thresholds evaluate the model once more.

    Parameters
    ----------
    source : Source
    thresholds : Thresholds
    pipeline : DiffusionPipeline, str or Path, optional
        By default the one that the store names; a source that brings a lookahead keeps it.
    network : callable, optional
        ``network(sample, alpha, sigma)`` to predicted x0, of loops that no pipeline describes.
    """
    if source.lookahead is not None or not needs_network(thresholds):
        return source
    return with_model(source, pipeline, network)


def with_model(source: Source, pipeline: Any = None, network: Any = None) -> Source:
    """The source with a lookahead: a network of one's own, or the pipeline's."""
    if network is None:
        return replace(source, lookahead=LOOKAHEADS.get("lookahead")(source, pipeline))

    def ask(sample: Any, step: int) -> Any:
        return network_at(network, source.alpha[step], source.sigma[step])(sample)

    return replace(source, lookahead=ask)


def detections(
    source: Source,
    detector: Detector,
    *,
    only: npt.NDArray[np.bool_] | None = None,
) -> Iterator[tuple[Batch, Detection]]:
    """Detect batch by batch.

    Parameters
    ----------
    source : Source
    detector : Detector
    only : array of bool, shape (run,), optional

    Yields
    ------
    Batch, Detection
        NumPy arrays; for video one row a frame.
    """
    batches = source.batches(
        detector.needs(), steps=(detector.first_step, detector.last_step), only=only
    )
    for batch in batches:
        yield batch, detect_rows(detector, batch.arrays)


def detect_rows(
    detector: Detector, arrays: Mapping[str, Any], levels: npt.NDArray[Any] | None = None
) -> Detection:
    """Run the streaming detector over rows of the window's steps.

    Parameters
    ----------
    detector : Detector
    arrays : mapping of str to array, shape (row, step, channel, y, x)
        From the detector's first step to its last, in memory or read step by step.
    levels : array, shape (row,), optional
        Of each row, where groups have levels of their own.
    """
    fed = watched(detector, arrays, detector.first_step)
    parts = [
        failed_flagged(detector.result(state, None if levels is None else levels[rows]))
        for rows, state in fed
    ]
    if len(parts) == 1:
        return parts[0]
    columns = ([getattr(one, name) for one in parts] for name in ("mask", "score", "flagged"))
    return Detection(*(np.concatenate([np.asarray(part) for part in one]) for one in columns))


def watched(
    detector: Detector, arrays: Mapping[str, Any], first_step: int
) -> Iterator[tuple[slice, DetectorState]]:
    """Rows, and what the detector knows of them after the last step.

    Parameters
    ----------
    detector : Detector
    arrays, first_step
        As in `feeding.feed`.
    """
    images = next(values for name, values in arrays.items() if name != "activations")
    stream = detector.start((len(images), *images.shape[2:])).stream
    fed = feed_stream(stream, arrays, first_step, whole=detector.lookahead is not None)
    for rows, inner in fed:
        yield rows, DetectorState(stream, inner)


def failed_flagged(found: Detection) -> Detection:
    """Flag runs whose score is NaN: numbers that are not finite are no sign of a good run.

    Parameters
    ----------
    found : Detection
        Of NumPy arrays.
    """
    score = np.asarray(found.score, np.float64)
    failed = np.isnan(score)
    if not failed.any():
        return found
    flagged = np.asarray(found.flagged) | failed
    return replace(found, score=np.where(failed, np.inf, score), flagged=flagged)


def scores_of(
    source: Source, thresholds: Thresholds, only: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.intp], Floats]:
    """Rows and scores of some runs; a video's score is that of its worst frame."""
    rows: list[Any] = [np.zeros(0, dtype=np.intp)]
    scores: list[Any] = [np.zeros(0)]
    for batch, found in detections(source, detector_for(source, thresholds), only=only):
        rows.append(batch.rows)
        scores.append(np.asarray(found.score, np.float64).reshape(-1, batch.frames).max(axis=1))
    return np.concatenate(rows), np.concatenate(scores)


def statistics_of(
    source: Source, thresholds: Thresholds, only: npt.NDArray[np.bool_]
) -> Iterator[npt.NDArray[Any]]:
    """Cleaned-up statistic maps, batch by batch, shape (run, map y, map x).

    Raises
    ------
    InputError
        Where the variant's clean-up isn't an opening, so that no map holds all levels' masks.
    """
    if not VARIANTS.get(thresholds.variant).opened_maps:
        able = [name for name in VARIANTS if VARIANTS.get(name).opened_maps]
        raise InputError(
            f"risk control of the flagged share needs a variant whose masks are cuts of one map "
            f"({', '.join(able)}), not {thresholds.variant}"
        )
    detector = detector_for(source, thresholds)
    batches = source.batches(
        detector.needs(), steps=(detector.first_step, detector.last_step), only=only
    )
    for batch in batches:
        fed = watched(detector, batch.arrays, batch.first_step)
        parts = [np.asarray(state.stream.statistic(state.inner)) for _, state in fed]
        statistic = np.concatenate(parts)
        yield statistic.reshape(-1, batch.frames * statistic.shape[-2], statistic.shape[-1])
