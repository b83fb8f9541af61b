"""How often a change of amplitude is found, 256 runs against 256, and how often none is.

    python -m experiments.detection.drift_power [RUNS] --out docs/results/drift_power.json

Without RUNS, synthetic runs that differ by a factor of 1.4 among themselves are made. Two disjoint
parts of 256 runs are drawn 200 times; of the second, eps and x0 are multiplied. Every replicate is
the whole check of `asced_analysis.calibration.drift` but for the score: counts of one part against
runs of the other, at 5 %, with energies and without.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.drift import (
    COUNT_WIDTH,
    common_shift,
    energy_tests,
    holm,
    run_counts,
    two_sample,
)
from asced_analysis.calibration.energies import run_energies
from asced_analysis.compute.source import open_source
from asced_analysis.detection import change_maps
from asced_analysis.detection.log_snr_grid import GridSignal
from asced_analysis.detection.population import fit_population
from asced_stores import open_runs

Floats = npt.NDArray[np.float64]
PART, LEVEL = 256, 0.05


def summaries(runs: Any, grid: tuple[float, ...]) -> tuple[Floats, dict[str, Floats]]:
    """Mean log change by cell, and energies, of every run."""
    source = open_source(runs)
    parameters = change_maps.Parameters()
    signal = GridSignal(parameters.signal, grid, source.alpha, source.sigma, source.log_snr)
    batches = source.batches(signal.needs(), steps=(signal.first_step, signal.last_step))
    return fit_population(batches, signal, parameters).run_means, run_energies(source, grid)


def drifted(old: Any, means: Floats, energies: dict[str, Floats], *, with_energies: bool) -> bool:
    """Whether the check of one part against the other is significant."""
    tests = [two_sample(one, means[:, cell], COUNT_WIDTH) for cell, one in enumerate(old["cells"])]
    weights = [1.0] * len(tests)
    tests.append(common_shift(old["cells"], means, COUNT_WIDTH))
    weights.append(9.0 * len(weights))
    if with_energies:
        more = [one[1:] for one in energy_tests(old, energies)]
        weights += [sum(weights) / len(more)] * len(more)
        tests += more
    return bool(holm(np.array([p for _, p in tests]), LEVEL, weights).any())


def synthetic(path: Path, runs: int) -> Any:
    """Runs whose amplitude is their own."""
    from asced_stores.testing import synthetic_store

    synthetic_store(path, runs=runs, steps=10, shape=(1, 16, 16), batch_size=64)
    ds = open_runs(path).load()
    own = np.exp(0.35 * np.random.default_rng(0).standard_normal(runs)).astype(np.float32)
    scaled = ds["x0"].astype(np.float32) * own[:, None, None, None, None]
    return ds.assign(x0=scaled.astype(np.float16))


def main() -> None:
    """Print one row an amplitude."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?")
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--amplitudes", type=float, nargs="+", default=[1.0, 1.02, 1.05, 1.1, 1.3])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        name = options.runs or "synthetic runs"
        ds = open_runs(options.runs) if options.runs else synthetic(Path(folder) / "runs.zarr", 768)
        levels = np.asarray(ds["log_snr"].values, np.float64)
        inner = levels[len(levels) // 4 : len(levels) // 2 + 1]
        means, energies = summaries(ds, tuple(np.linspace(inner[0], inner[-1], 6).tolist()))
        rng, rows = np.random.default_rng(1), []
        for amplitude in options.amplitudes:
            found = {True: 0, False: 0}
            for _ in range(options.replicates):
                order = rng.permutation(len(means))
                first, second = order[:PART], order[PART : 2 * PART]
                old = run_counts(
                    means[first], np.zeros(0), {n: e[first] for n, e in energies.items()}
                )
                shift = np.log(amplitude)
                new = {n: e[second] + shift for n, e in energies.items()}
                for use in found:
                    found[use] += drifted(old, means[second] + shift, new, with_energies=use)
            row = {
                "runs": name,
                "amplitude": amplitude,
                "replicates": options.replicates,
                "drifted": round(found[True] / options.replicates, 3),
                "drifted_without_energies": round(found[False] / options.replicates, 3),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
