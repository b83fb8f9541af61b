"""Calibration by outcome: learn from how recorded runs ended which dynamics predict a bad end.

The label is free: local realism of the final image (a teacher's distance of local features to real
images, or to the bulk of the population's own samples). No human and no artifact classifier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.fitting import UNCALIBRATED
from asced_analysis.calibration.outcome_training import Examples, learn
from asced_analysis.compute.source import Source
from asced_analysis.detection import change_maps, outcome
from asced_analysis.detection.log_snr_grid import GridSignal, make_grid
from asced_analysis.detection.outcome_network import layers_to_bytes
from asced_analysis.detection.population import fit_population
from asced_analysis.thresholds.document import (
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
    most_runs: int = MOST_RUNS,
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
        Default: the embedded committee for embedded `fashion`, else the population's own samples.
    epochs : int
        Passes over the fit set.
    seed : int
        Of initial weights and order.
    most_runs : int
        Runs of the fit set that are learnt from, which bounds the memory: 20 kB a run.

    Returns
    -------
    Thresholds
        Without level, guarantee and conformance vectors.
    """
    stream = untrained_stream(source, fit, window=window, parameters=parameters)
    model = teacher if teacher is not None else default_teacher(source, fit)
    examples = gather(source, stream, fit, model, most_runs=most_runs)
    if len(examples.rows) < FEWEST_RUNS:
        raise InputError(
            f"learning from outcomes needs at least {FEWEST_RUNS} runs to fit on, there are "
            f"{len(examples.rows)}; record more"
        )
    stream = learn(stream, examples, epochs=epochs, seed=seed)
    blob = layers_to_bytes(stream.layers)
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
        fingerprint=fingerprint_of(source.dataset.attrs, source.sample_shape, steps=source.steps),
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
    maps = change_maps.Parameters(
        resolution=given.resolution, floor=given.floor, blur=0.0, by_position=False
    )
    batches = source.batches(("x0",), steps=(signal.first_step, signal.last_step), only=fit)
    population = fit_population(batches, signal, maps)
    return outcome.Stream(
        given,
        signal,
        np.round(population.location, 5).astype(np.float32),
        np.round(population.scale, 5).astype(np.float32),
        ask=source.probe,
    )


def looking_ahead(
    source: Source, window: tuple[int, int], ahead: float, pipeline: Any = None
) -> tuple[Source, float]:
    """A source that can ask the model, and the log-SNR at which it is asked.

    Parameters
    ----------
    source : Source
    window : (int, int)
        First and last step, both included.
    ahead : float
        Share of sampling by which to look beyond the window's last step.
    pipeline : DiffusionPipeline, str or Path, optional
        By default the one that the store names.
    """
    from asced_analysis.correction.lookahead import recorded_probe

    step = min(window[1] + round(ahead * source.steps), source.steps - 1)
    if not window[1] <= step:
        raise InputError(f"probe is {ahead}; expected the share of sampling to look ahead, 0 to 1")
    asking = replace(source, probe=recorded_probe(source, pipeline))
    return asking, float(source.log_snr[step])


def default_teacher(source: Source, fit: npt.NDArray[np.bool_]) -> Any:
    """The embedded teachers where they fit the samples, else patches of the population's own."""
    from asced_analysis.correction.environment import is_embedded
    from asced_analysis.realism import load_embedded, patch_model

    if tuple(source.sample_shape) == (1, 32, 32) and is_embedded(source.dataset.attrs):
        return load_embedded("committee")
    some = np.flatnonzero(fit)[:MOST_RUNS:2]  # half of the fit set is the reference
    values = source.dataset["sample"].isel(run=some).values.astype(np.float32)
    return patch_model(values.reshape(-1, *values.shape[-3:]), name="population patches")


def gather(
    source: Source,
    stream: outcome.Stream,
    only: npt.NDArray[np.bool_],
    model: Any,
    *,
    most_runs: int = MOST_RUNS,
) -> Examples:
    """Inputs and outcomes of some runs, read shard by shard."""
    if len(source.sample_shape) != 3:
        raise InputError("learning from outcomes works on images and latents, not on video yet")
    chosen = np.zeros_like(only)
    chosen[np.flatnonzero(only)[:most_runs]] = True
    parts: list[tuple[Any, ...]] = []
    for rows, (channels, statistics) in _inputs(source, stream, chosen):
        final = source.dataset["sample"].isel(run=rows).values.astype(np.float32)
        target = _log_distance(final, model, channels.shape[-2:])
        small = change_maps.pool(final, stream.parameters.resolution)
        goal = _log_distance(final, model.runs, target.shape[1:]) if model.runs else target
        whole = np.log(np.exp(goal).mean(axis=(1, 2)))
        parts.append((rows, channels, statistics, target, small, whole))
    if not parts:
        raise InputError("no run is left to learn from")
    return Examples(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def final_distances(
    source: Source, rows: npt.NDArray[np.intp], model: Any, shape: tuple[int, ...]
) -> Floats:
    """Log local distance of some runs' final images, shape (run, *shape)."""
    parts = [
        _log_distance(
            source.dataset["sample"].isel(run=rows[start : start + 256]).values, model, shape
        )
        for start in range(0, len(rows), 256)
    ]
    return np.concatenate(parts)


def _log_distance(final: npt.NDArray[Any], model: Any, shape: tuple[int, ...]) -> Floats:
    """Log local distance of final images at map resolution."""
    from asced_analysis.realism import local_realism

    distance = local_realism(final.astype(np.float32), model)
    return np.asarray(np.log(_resize(distance, shape) + 1e-6), np.float32)


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
