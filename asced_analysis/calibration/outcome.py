"""Calibration by outcome: learn from how recorded runs ended which dynamics predict a bad end.

The label is free: the model's own self-consistency, distances to real images, or scores from
elsewhere (see `teachers`). What content explains of it is taken off first.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.examples import MOST_RUNS, gather
from asced_analysis.calibration.fitting import UNCALIBRATED
from asced_analysis.calibration.matched_content import (
    learning_warnings,
    measured_on,
    within_matched_content,
)
from asced_analysis.calibration.outcome_training import learn
from asced_analysis.calibration.splits import total_runs
from asced_analysis.calibration.teachers import RealismTeacher, Teacher
from asced_analysis.compute.source import Source
from asced_analysis.detection import change_maps, outcome
from asced_analysis.detection.log_snr_grid import GridSignal, make_grid
from asced_analysis.detection.outcome_network import layers_to_bytes
from asced_analysis.detection.population import fit_population
from asced_analysis.realism.local import RealismModel
from asced_analysis.realism.pictures import undecoded
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

FEWEST_RUNS = 40


def fit_outcome(
    source: Source,
    fit: npt.NDArray[np.bool_],
    *,
    window: tuple[int, int],
    correction: Correction,
    parameters: dict[str, Any],
    teacher: Teacher | RealismModel,
    report: npt.NDArray[np.bool_] | None = None,
    whose: npt.NDArray[np.intp] | None = None,
    within_content: bool | None = None,
    content: RealismModel | None = None,
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
    teacher : Teacher or RealismModel
        Who says how runs ended.
    report : array of bool, shape (run,), optional
        Runs to measure on what was learnt.
    whose : int array, shape (run,), optional
        Which prompt (or seed) each run is of, where they repeat: what is learnt is tried on others.
    within_content : bool, optional
        Whether what content explains of the outcomes is taken off before learning; by default where
        that is more than `asced_analysis.realism.content.EXPLAINED` of their variance.
    content : RealismModel, optional
        Features whose nearest runs are of like content, beside area, brightness and the others;
        they must not see what is broken (`asced_analysis.realism.content.neighbour_means`).
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
    labeller = RealismTeacher(teacher) if isinstance(teacher, RealismModel) else teacher
    check_learnable(source, fit, labeller)
    stream = untrained_stream(source, fit, window=window, parameters=parameters)
    examples = gather(source, stream, fit, labeller, most_runs=most_runs, like=content)
    if np.ptp(examples.goal) == 0:
        raise InputError(
            f"by {labeller.name}, all {len(examples.rows)} runs that are learnt from ended alike: "
            "there is nothing to learn; give outcomes, or record runs, of another kind as well"
        )
    if whose is not None:
        examples = replace(examples, whose=whose[examples.rows])
    learnable, taught = within_matched_content(examples, labeller, within_content)
    stream = learn(stream, learnable, epochs=epochs, seed=seed)
    if report is not None and report.any():
        taught["measured"] = measured_on(source, stream, report, labeller, content)
    notes = learning_warnings(taught["measured"])
    if (seen := undecoded(source.dataset)) is not None:
        notes += (f"content was measured on {seen}",)
    blob = layers_to_bytes(stream.layers)
    digest = hashlib.sha256(blob).hexdigest()
    found = asdict(stream.parameters)
    given = {name: list(one) if isinstance(one, tuple) else one for name, one in found.items()}
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
        guarantee=replace(UNCALIBRATED, notes=notes),
        teacher=taught,
        fingerprint=fingerprint_of(source.dataset.attrs, source.sample_shape, steps=source.steps),
        weights={"name": f"outcome-{digest[:12]}.safetensors", "sha256": digest},
        blob=blob,
    )


def check_learnable(source: Source, fit: npt.NDArray[np.bool_], teacher: Teacher) -> None:
    """Refuse too few runs to learn from, before anything is read.

    Raises
    ------
    InputError
        Naming how many runs it takes in all.
    """
    known = teacher.knows(source)
    taught, unknown = int((fit & known).sum()), int((~known).sum())
    if taught < FEWEST_RUNS:
        raise InputError(
            f"learning from outcomes needs at least {FEWEST_RUNS} runs to fit on, and of these "
            f"{source.runs} it fits on {taught}"
            + (
                f"; {teacher.name} knows nothing of {unknown}: give more of them, or "
                if unknown
                else ": "
            )
            + f"record some {total_runs(source.runs, taught, FEWEST_RUNS)} runs in all"
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
    if given.inputs in outcome.WITH_ACTIVATIONS:
        given = replace(given, modules=recorded_modules(source))
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
        lookahead=source.lookahead,
    )


def recorded_modules(source: Source) -> dict[str, int]:
    """Modules whose activations the runs hold, and how many numbers each gives.

    Raises
    ------
    InputError
        Where they hold none.
    """
    said = source.dataset.attrs.get("activations", ())
    if not said or "activations" not in source.dataset:
        raise InputError(
            "these runs hold no activations to learn from: record them with activations= "
            "(--activations mid_block), or give other inputs"
        )
    return {str(one["module"]): int(one["values"]) for one in said}


def lookahead_source(
    source: Source, window: tuple[int, int], ahead: float, pipeline: Any = None
) -> tuple[Source, float]:
    """A source with a lookahead, and the log-SNR that it looks at.

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
    from asced_analysis.correction.lookahead import recorded_lookahead

    step = min(window[1] + round(ahead * source.steps), source.steps - 1)
    if not window[1] <= step:
        raise InputError(
            f"lookahead is {ahead}; expected the share of sampling to look ahead, 0 to 1"
        )
    found = replace(source, lookahead=recorded_lookahead(source, pipeline))
    return found, float(source.log_snr[step])
