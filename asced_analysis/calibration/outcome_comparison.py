"""What dynamics, a snapshot and both know of a run's end, on held-out runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.outcome import default_teacher, gather, untrained_stream
from asced_analysis.calibration.outcome_training import learn
from asced_analysis.detection import outcome

Floats = npt.NDArray[np.float32]


def compare_inputs(
    runs: Any,
    *,
    window: tuple[float, float] = (0.12, 0.48),
    teacher: Any = None,
    epochs: int = 40,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """What dynamics, a snapshot and both know of the end, on held-out runs.

    Parameters
    ----------
    runs : path, TrajectoryStore or xarray.Dataset
    window : (float, float)
        Shares of sampling: first step, and the step before which all must be known.
    teacher, epochs, seed
        As in `fit_outcome`.

    Returns
    -------
    list of dict
        One for each of `dynamics`, `snapshot`, `both`: ``run_auroc`` (worst quarter of the runs),
        ``run_auroc_matched`` (worst quarter within strata of brightness and busyness of the final
        image, so that "bright, busy images break" earns nothing), ``place_correlation`` (Spearman,
        over places of the foreground), ``place_correlation_within`` (the mean over images of the
        same within an image), and the number of held-out ``runs``.
    """
    from scipy import stats
    from sklearn.metrics import roc_auc_score

    from asced_analysis.calibration.calibrate_runs import prompts_of, window_and_correction
    from asced_analysis.calibration.source import open_source
    from asced_analysis.calibration.splits import split_runs

    source = open_source(runs)
    steps, _ = window_and_correction(source, window, "ttc")
    split = split_runs(prompts_of(source), source.runs, fractions=(0.7, 0.15, 0.15), seed=seed)
    held = split.calibrate | split.report
    model = teacher if teacher is not None else default_teacher(source, split.fit)
    rows = []
    for inputs in ("dynamics", "snapshot", "both"):
        stream = untrained_stream(source, split.fit, window=steps, parameters={"inputs": inputs})
        examples = gather(source, stream, split.fit, model)
        stream = learn(stream, examples, epochs=epochs, seed=seed)
        test = gather(source, stream, held, model)
        predicted = outcome.convolve(test.channels, stream.layers)[:, 0]
        summary = np.concatenate([test.statistics, outcome.map_summary(predicted)], axis=1)
        weights = np.asarray(stream.parameters.coefficients)
        score = summary @ weights[1:] + weights[0]
        badness = np.exp(test.target).mean(axis=(1, 2))
        strata = content_strata(test.final)
        foreground = test.final > np.quantile(test.final, 0.5)
        within = [
            stats.spearmanr(guess[place], truth[place])[0]
            for guess, truth, place in zip(predicted, test.target, foreground, strict=True)
            if place.sum() > 20
        ]
        rows.append(
            {
                "inputs": inputs,
                "runs": len(score),
                "run_auroc": float(roc_auc_score(_worst(badness, np.zeros_like(strata)), score)),
                "run_auroc_matched": _matched_auroc(badness, score, strata),
                "place_correlation": float(
                    stats.spearmanr(predicted[foreground], test.target[foreground])[0]
                ),
                "place_correlation_within": float(np.mean(within)) if within else 0.0,
            }
        )
    return rows


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
