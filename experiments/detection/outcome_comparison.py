"""What dynamics, a snapshot, both, and a lookahead know of a run's end, on held-out runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.examples import gather
from asced_analysis.calibration.labelling import choose_teacher
from asced_analysis.calibration.outcome import lookahead_source, untrained_stream
from asced_analysis.calibration.outcome_training import HIDDEN, LAYERS, Examples, learn, maps_of
from asced_analysis.calibration.teachers import RealismTeacher
from asced_analysis.compute.source import Source, open_source
from asced_analysis.detection import outcome
from asced_analysis.detection.outcome_network import layout_statistics, run_statistics
from asced_analysis.realism.local import RealismModel

Floats = npt.NDArray[np.float32]

MOST_HELD_OUT = 2048


def final_distances(
    source: Source, rows: npt.NDArray[np.intp], model: RealismModel, shape: tuple[int, ...]
) -> Floats:
    """Log local distance of some runs' final images, shape (run, *shape)."""
    return RealismTeacher(replace(model, runs=None)).outcomes(source, rows, shape)[0]


def compare_inputs(
    runs: Any,
    *,
    window: tuple[float, float] = (0.12, 0.48),
    train_runs: Sequence[int] | None = None,
    lookahead: float | None = None,
    pipeline: Any = None,
    teacher: Any = None,
    judge: Any = None,
    epochs: int = 40,
    seed: int = 0,
    hidden: int = HIDDEN,
    depth: int = LAYERS,
) -> list[dict[str, Any]]:
    """What each kind of input knows of the end, on held-out runs.

    Parameters
    ----------
    runs : path, TrajectoryStore or xarray.Dataset
    window : (float, float)
        Shares of sampling: first step, and the step before which all must be known.
    train_runs : sequence of int, optional
        Numbers of runs to learn from; by default all but the held-out fifth (at most 2,048).
    lookahead : float, optional
        Share of sampling to look ahead by one more evaluation, as a further kind of input.
    pipeline
        To ask; by default the one that the store names.
    teacher, judge : RealismModel, optional
        Who teaches, and whose local realism is the truth as well.
    epochs, seed, hidden, depth
        As in `learn`.

    Returns
    -------
    list of dict
        One for each number of runs, each of `dynamics`, `snapshot`, `both` and
        `both and lookahead`, and each `truth` (the name of its realism model): ``run_auroc`` (worst
        quarter of the runs), ``run_auroc_matched`` (worst quarter within strata of brightness and
        busyness of the final image, so that "bright, busy images break" earns nothing),
        ``place_correlation`` (Spearman, over places of the foreground),
        ``place_correlation_within`` (the mean over images of the same within an image), ``border``
        and ``truth_border`` (`border_share` of the predicted maps and of the truth), and the number
        of held-out ``runs``. Inputs `the final image` are the teacher's own map of it, as a
        yardstick.
    """
    from asced_analysis.detection.window import window_and_correction

    source = open_source(runs)
    steps, _ = window_and_correction(source, window, "ttc")
    parameters: dict[str, Any] = {}
    if lookahead is not None:
        source, parameters["lookahead"] = lookahead_source(source, steps, lookahead, pipeline)
    order = np.random.default_rng(seed).permutation(source.runs)
    held = _chosen(source, order[: min(MOST_HELD_OUT, max(1, round(0.2 * source.runs)))])
    sizes = sorted(train_runs or [int((~held).sum())])
    free = order[~held[order]]
    fit = _chosen(source, free[: sizes[-1]])
    model = choose_teacher(source, fit, teacher=teacher, pipeline=pipeline)
    stream = untrained_stream(source, fit, window=steps, parameters=parameters)
    known = gather(source, stream, fit, model, most_runs=sizes[-1])
    test = gather(source, stream, held, model, most_runs=source.runs)
    truths = {model.name: test.target}
    rows = []
    if judge is not None:
        truths[judge.name] = final_distances(source, test.rows, judge, test.target.shape[1:])
        score = np.exp(test.target).mean(axis=(1, 2))
        found = _measure(test.target, score, truths[judge.name], test.final)
        rows.append({"inputs": "the final image", "train_runs": 0, "truth": judge.name, **found})
    for size in sizes:
        some = np.isin(known.rows, free[:size])
        for name, columns, shown in _kinds(
            len(stream.location), known.channels.shape[1], lookahead
        ):
            learner = _columns(known, columns, shown, some)
            learnt = learn(stream, learner, epochs=epochs, seed=seed, hidden=hidden, depth=depth)
            predicted, score = _predict(_columns(test, columns, shown, slice(None)), learnt)
            for truth, target in truths.items():
                found = _measure(predicted, score, target, test.final)
                rows.append({"inputs": name, "train_runs": size, "truth": truth, **found})
    return rows


def _chosen(source: Source, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Rows as a mask over the runs."""
    mask = np.zeros(source.runs, dtype=bool)
    mask[rows] = True
    return mask


def _kinds(
    cells: int, channels: int, lookahead: float | None
) -> Iterator[tuple[str, list[int], list[int]]]:
    """Names of the kinds of input, their channels, and those whose layout the score looks at.

    Cells come first, a lookahead last.
    """
    last = channels if lookahead is None else channels - _lookahead_channels(channels - cells)
    picture = [*range(cells, cells + (last - cells) // 2)]
    yield "dynamics", [*range(cells)], [*range(cells)]
    yield "snapshot", [*range(cells, last)], picture
    yield "both", [*range(last)], picture
    if lookahead is not None:
        yield "both and lookahead", [*range(channels)], picture


def _lookahead_channels(others: int) -> int:
    """Channels of a lookahead: beside two pictures of the snapshot, two of its own and one more."""
    return (others - 1) // 2 + 1


def _columns(examples: Examples, columns: list[int], shown: list[int], some: Any) -> Examples:
    """Some runs with some channels, the layout of some and the run statistics of these."""
    channels = np.ascontiguousarray(examples.channels[some][:, columns])
    layout = layout_statistics(examples.channels[some][:, shown])
    return replace(
        examples,
        rows=examples.rows[some],
        channels=channels,
        statistics=np.concatenate([layout, run_statistics(channels)], axis=1),
        target=examples.target[some],
        final=examples.final[some],
        goal=examples.goal[some],
    )


def _predict(examples: Examples, stream: outcome.Stream) -> tuple[Floats, Floats]:
    """Maps and run scores, a few hundred runs at a time."""
    predicted = maps_of(examples.channels, stream.layers)
    summary = stream.summary(examples.statistics, predicted)
    weights = np.asarray(stream.parameters.coefficients)
    return predicted, summary @ weights[1:] + weights[0]


def _measure(predicted: Floats, score: Floats, target: Floats, final: Floats) -> dict[str, Any]:
    """Figures of one prediction against one truth."""
    from scipy import stats
    from sklearn.metrics import roc_auc_score

    badness = np.exp(target).mean(axis=(1, 2))
    strata = content_strata(final)
    foreground = final > np.quantile(final, 0.5)
    within = [
        stats.spearmanr(guess[place], truth[place])[0]
        for guess, truth, place in zip(predicted, target, foreground, strict=True)
        if place.sum() > 20
    ]
    return {
        "runs": len(score),
        "run_auroc": float(roc_auc_score(_worst(badness, np.zeros_like(strata)), score)),
        "run_auroc_matched": _matched_auroc(badness, score, strata),
        "place_correlation": float(stats.spearmanr(predicted[foreground], target[foreground])[0]),
        "place_correlation_within": float(np.mean(within)) if within else 0.0,
        "border": border_share(predicted),
        "truth_border": border_share(target),
    }


def border_share(maps: Floats, *, worst: float = 0.12) -> float:
    """How much of each map's worst places lies in its outermost ring, as a mean over maps.

    Parameters
    ----------
    maps : array, shape (run, y, x)
        At least 3 x 3; the ring of 16 x 16 is 23 % of the places.
    worst : float
        Share of the places that count as the worst.
    """
    flat = maps.reshape(len(maps), -1)
    ring = np.ones(maps.shape[1:], bool)
    ring[1:-1, 1:-1] = False
    count = max(1, round(worst * flat.shape[1]))
    places = np.argpartition(-flat, count - 1, axis=1)[:, :count]
    return float(ring.reshape(-1)[places].mean())


def content_strata(final: Floats, *, parts: int = 3) -> npt.NDArray[np.intp]:
    """Stratum of each image by brightness and busyness (mean size of its gradient)."""
    brightness = final.mean(axis=(1, 2))
    busyness = np.abs(np.diff(final, axis=1)).mean(axis=(1, 2)) + np.abs(
        np.diff(final, axis=2)
    ).mean(axis=(1, 2))
    ranks = [
        np.argsort(np.argsort(value)) * parts // len(value) for value in (brightness, busyness)
    ]
    return np.asarray(ranks[0] * parts + ranks[1])


def _worst(badness: npt.NDArray[Any], strata: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """The worst quarter of every stratum."""
    worst = np.zeros(len(badness), dtype=bool)
    for stratum in np.unique(strata):
        inside = strata == stratum
        worst[inside] = badness[inside] > np.quantile(badness[inside], 0.75)
    return worst


def _matched_auroc(
    badness: npt.NDArray[Any], score: npt.NDArray[Any], strata: npt.NDArray[np.intp]
) -> float:
    """AUROC of the worst quarter within strata, averaged by the strata's numbers of pairs."""
    from sklearn.metrics import roc_auc_score

    worst, total, pairs = _worst(badness, strata), 0.0, 0
    for stratum in np.unique(strata):
        inside = strata == stratum
        bad = int(worst[inside].sum())
        weight = bad * (int(inside.sum()) - bad)
        if weight:
            total += weight * float(roc_auc_score(worst[inside], score[inside]))
            pairs += weight
    return total / pairs if pairs else 0.5
