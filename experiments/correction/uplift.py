"""A map of where renewal helps, learnt from counterfactual outcomes.

Runs of `fit` are renewed everywhere at step 12; the teachers' local distance after minus before is
what the network regresses, on the inputs of the learnt detector. One draw of noise a run makes the
target noisy, but not biased.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.calibration.examples import gather
from asced_analysis.calibration.outcome import untrained_stream
from asced_analysis.calibration.outcome_training import train_map
from asced_analysis.compute.source import open_source
from asced_analysis.correction.renoise import Renoise
from asced_analysis.detection.outcome_network import run_network
from asced_analysis.realism import local_realism, upsample
from asced_analysis.realism.pictures import as_pictures as pictures
from asced_analysis.replay.recording import Recording
from experiments.correction.continuing import continued
from experiments.datasets.committee import committee

STEP = 12
LEARN = 1536  # runs


def learn_uplift(bench: Any, report: Any) -> dict[str, NDArray[np.float32]]:
    """Maps for the flagged runs of `report`: higher where renewal is predicted to help more."""
    fit = bench.sets["fit"]
    teacher = committee()
    path = fit.store.parent / f"renoised-{LEARN}.npz"
    dataset = fit.dataset.isel(run=slice(0, LEARN))
    runs = np.asarray(dataset["run"].values, np.int64)
    if not path.exists():
        ends, _ = continued(Recording(fit.natural), bench.pipe, runs, Renoise(), STEP, seed=5)
        np.savez(path, ends=ends)
        bench.say("renewed the runs to learn from")
    with np.load(path) as kept:
        after = local_realism(kept["ends"], teacher)
    source = open_source(dataset)
    everyone = np.ones(len(runs), np.bool_)
    stream = untrained_stream(source, everyone, window=(2, STEP - 1), parameters={})
    examples = gather(source, stream, everyone, teacher)
    before = local_realism(pictures(dataset["sample"].values), teacher)
    target = _fit_size(np.log(before + 1e-6) - np.log(after + 1e-6), examples.target.shape[1:])
    layers = train_map(examples.channels, target.astype(np.float32), epochs=15, seed=0)
    test = open_source(report.split.dataset)
    given = gather(test, stream, np.isin(np.arange(test.runs), report.chosen), teacher)
    maps = run_network(given.channels, layers)
    shape = report.images.shape[-2], report.images.shape[-1]
    return {"learnt from the difference that renewal made": upsample(np.asarray(maps), shape)}


def _fit_size(maps: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Bring maps to the network's resolution."""
    if maps.shape[1:] == shape:
        return maps
    factor = maps.shape[1] // shape[0]
    if factor >= 1 and maps.shape[1] == factor * shape[0]:
        return np.asarray(maps.reshape(-1, shape[0], factor, shape[1], factor).mean((2, 4)))
    return upsample(maps, (shape[0], shape[1]))
