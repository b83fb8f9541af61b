"""Calibration by outcome: learn from how recorded runs ended which dynamics foretell a bad end.

The label is free: local realism of the final image (a teacher's distance of local features to real
images, or to the bulk of the population's own samples). No human and no artifact classifier.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.fitting import UNCALIBRATED
from asced_analysis.calibration.population import fit_population
from asced_analysis.calibration.source import Source
from asced_analysis.detection import calibrated, outcome
from asced_analysis.detection.log_snr_grid import GridSignal, make_grid
from asced_analysis.thresholds import (
    Cleanup,
    Correction,
    Levels,
    Thresholds,
    Window,
    fingerprint_of,
)
from asced_stores.errors import InputError

Floats = npt.NDArray[np.float32]

MOST_RUNS = 4096
FEWEST_RUNS = 40
HIDDEN = 32
LAYERS = 5
RIDGE = 30.0


@dataclass(frozen=True)
class Examples:
    """What the learner sees: kept small (maps of 16 x 16) and capped at `MOST_RUNS` runs.

    Attributes
    ----------
    rows : array, shape (run,)
    channels : array, shape (run, channel, y, x)
        Inputs up to the window's end.
    statistics : array, shape (run, statistic)
    target : array, shape (run, y, x)
        Log of the final local distance.
    final : array, shape (run, y, x)
        Final sample at map resolution, for matching content.
    """

    rows: npt.NDArray[np.intp]
    channels: Floats
    statistics: Floats
    target: Floats
    final: Floats


def fit_outcome(
    source: Source,
    fit: npt.NDArray[np.bool_],
    *,
    window: tuple[int, int],
    correction: Correction,
    parameters: dict[str, Any],
    teacher: Any = None,
    epochs: int = 40,
    seed: int = 0,
) -> Thresholds:
    """Learn the map and the run score on the fit set.

    Parameters
    ----------
    source : Source
    fit : array of bool, shape (run,)
    window : (int, int)
        First and last step, both included.
    correction : Correction
    parameters : dict
        Overrides of `asced_analysis.detection.outcome.Parameters`.
    teacher : RealismModel, optional
        Default: the embedded teacher for embedded `fashion`, else the population's own samples.
    epochs : int
        Passes over the fit set.
    seed : int
        Of initial weights and order.

    Returns
    -------
    Thresholds
        Without level, guarantee and conformance vectors.
    """
    stream = untrained_stream(source, fit, window=window, parameters=parameters)
    model = teacher if teacher is not None else default_teacher(source, fit)
    examples = gather(source, stream, fit, model)
    if len(examples.rows) < FEWEST_RUNS:
        raise InputError(
            f"learning from outcomes needs at least {FEWEST_RUNS} runs to fit on, there are "
            f"{len(examples.rows)}; record more"
        )
    stream = learn(stream, examples, epochs=epochs, seed=seed)
    blob = outcome.layers_to_bytes(stream.layers)
    digest = hashlib.sha256(blob).hexdigest()
    given = asdict(stream.parameters)
    given["coefficients"] = list(given["coefficients"])
    first, last = window
    grid = stream.signal.grid
    return Thresholds(
        variant="outcome",
        parameters=given,
        levels=Levels(
            grid,
            tuple(float(value) for value in stream.location),
            tuple(float(value) for value in stream.scale),
            0.0,
        ),
        window=Window(
            (grid[0], grid[-1]),
            (first / source.steps, last / source.steps),
            (int(first), int(last)),
            source.steps,
        ),
        cleanup=Cleanup("none"),
        correction=correction,
        guarantee=replace(UNCALIBRATED, notes=(f"learnt from local realism by {model.name}",)),
        fingerprint={
            **fingerprint_of(source.dataset.attrs, source.sample_shape),
            "steps": source.steps,
        },
        weights={"name": f"outcome-{digest[:12]}.safetensors", "sha256": digest},
        blob=blob,
    )


def untrained_stream(
    source: Source,
    fit: npt.NDArray[np.bool_],
    *,
    window: tuple[int, int],
    parameters: dict[str, Any],
) -> outcome.Stream:
    """The detector's stream with the population's location and scale, still without weights."""
    given = outcome.Parameters(**parameters)
    signal = GridSignal(
        "predicted_x0",
        make_grid(source.log_snr, *window),
        source.alpha,
        source.sigma,
        source.log_snr,
    )
    maps = calibrated.Parameters(
        resolution=given.resolution, floor=given.floor, blur=0.0, by_position=False
    )
    batches = source.batches(("x0",), steps=(signal.first_step, signal.last_step), only=fit)
    population = fit_population(batches, signal, maps)
    return outcome.Stream(
        given,
        signal,
        np.round(population.location, 5).astype(np.float32),
        np.round(population.scale, 5).astype(np.float32),
    )


def default_teacher(source: Source, fit: npt.NDArray[np.bool_]) -> Any:
    """The embedded teacher where it fits the samples, else patches of the population's own."""
    from asced_analysis.realism import load_embedded, patch_model
    from asced_analysis.replay.environment import is_embedded

    if tuple(source.sample_shape) == (1, 32, 32) and is_embedded(source.dataset.attrs):
        return load_embedded("teacher")
    some = np.flatnonzero(fit)[:MOST_RUNS:2]  # half of the fit set is the reference
    values = source.dataset["sample"].isel(run=some).values.astype(np.float32)
    return patch_model(values.reshape(-1, *values.shape[-3:]), name="population patches")


def gather(
    source: Source, stream: outcome.Stream, only: npt.NDArray[np.bool_], model: Any
) -> Examples:
    """Inputs and outcomes of some runs, read shard by shard."""
    from asced_analysis.realism import local_realism

    if len(source.sample_shape) != 3:
        raise InputError("learning from outcomes works on images and latents, not on video yet")
    chosen = np.zeros_like(only)
    chosen[np.flatnonzero(only)[:MOST_RUNS]] = True
    parts: list[tuple[Any, ...]] = []
    for rows, (channels, statistics) in _inputs(source, stream, chosen):
        final = source.dataset["sample"].isel(run=rows).values.astype(np.float32)
        distance = local_realism(final, model)
        target = np.log(_resize(distance, channels.shape[-2:]) + 1e-6)
        small = calibrated.pool(final, stream.parameters.resolution)
        parts.append((rows, channels, statistics, target, small))
    if not parts:
        raise InputError("no run is left to learn from")
    return Examples(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def learn(
    stream: outcome.Stream, examples: Examples, *, epochs: int = 40, seed: int = 0
) -> outcome.Stream:
    """Train the map on three quarters of the examples and the run model on all that remains.

    The run model sees the map's summary, so it must be fitted where the map was not trained.
    """
    count = len(examples.rows)
    order = np.random.default_rng(seed).permutation(count)
    held, used = order[: count // 4], order[count // 4 :]
    layers = train_map(examples.channels[used], examples.target[used], epochs=epochs, seed=seed)
    predicted = outcome.convolve(examples.channels[held], layers)[:, 0]
    summary = np.concatenate([examples.statistics[held], outcome.map_summary(predicted)], axis=1)
    goal = np.log(np.exp(examples.target[held]).mean(axis=(1, 2)))
    coefficients = fit_run_model(summary, goal)
    return replace(
        stream,
        layers=layers,
        parameters=replace(stream.parameters, coefficients=tuple(coefficients)),
    )


def fit_run_model(summary: Floats, goal: npt.NDArray[Any]) -> list[float]:
    """Ridge regression on standardised statistics; intercept first, scales folded in."""
    from sklearn.linear_model import Ridge

    center, spread = summary.mean(axis=0), np.maximum(summary.std(axis=0), 1e-6)
    model = Ridge(alpha=RIDGE).fit((summary - center) / spread, goal)
    slopes = model.coef_ / spread
    intercept = float(model.intercept_ - slopes @ center)
    return [intercept, *(float(slope) for slope in slopes)]


def train_map(
    channels: Floats, target: Floats, *, epochs: int, seed: int, batch_size: int = 32
) -> tuple[tuple[Floats, Floats], ...]:
    """Train the network; squared error of the log distance.

    Returns
    -------
    tuple of (weight, bias)
        As `asced_analysis.detection.outcome.convolve` takes them.
    """
    import torch

    inputs, goals = torch.from_numpy(channels), torch.from_numpy(target)
    shift = float(goals.mean())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = [channels.shape[1], *[HIDDEN] * (LAYERS - 1), 1]
        network = torch.nn.Sequential()
        for number, (before, after) in enumerate(itertools.pairwise(widths)):
            network.append(torch.nn.Conv2d(before, after, 3, padding=1))
            if number < LAYERS - 1:
                network.append(torch.nn.ReLU())
        steps = epochs * max(1, -(-len(inputs) // batch_size))
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        for _ in range(epochs):
            order = torch.randperm(len(inputs))
            for start in range(0, len(inputs), batch_size):
                rows = order[start : start + batch_size]
                loss = torch.mean((network(inputs[rows])[:, 0] - (goals[rows] - shift)) ** 2)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    convolutions = [layer for layer in network if isinstance(layer, torch.nn.Conv2d)]
    layers = [
        (layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
        for layer in convolutions
        if layer.bias is not None
    ]
    layers[-1] = (layers[-1][0], layers[-1][1] + np.float32(shift))
    return tuple(layers)


def _inputs(
    source: Source, stream: outcome.Stream, only: npt.NDArray[np.bool_]
) -> Iterator[tuple[npt.NDArray[np.intp], tuple[Floats, Floats]]]:
    """Network inputs and run statistics, batch by batch."""
    batches = source.batches(stream.needs(), steps=(stream.first_step, stream.last_step), only=only)
    for batch in batches:
        some = batch.arrays["x0"]
        state = stream.start((some.shape[0], *some.shape[2:]))
        for offset in range(some.shape[1]):
            given = {name: values[:, offset] for name, values in batch.arrays.items()}
            state = stream.update(state, batch.first_step + offset, **given)
        yield batch.rows, stream.inputs(state)


def _resize(maps: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Maps at another resolution, by nearest neighbour or by averaging whole blocks."""
    height, width = shape
    rows, columns = maps.shape[1:]
    if rows % height == 0 and columns % width == 0:
        blocks = maps.reshape(-1, height, rows // height, width, columns // width)
        return np.asarray(blocks.mean(axis=(2, 4)))
    index = np.arange(height) * rows // height, np.arange(width) * columns // width
    return np.asarray(maps[:, index[0][:, None], index[1]])


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
