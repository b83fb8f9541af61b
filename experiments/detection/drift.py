"""Whether a drift check is calm on fresh seeds and speaks up otherwise (docs/thresholds.md).

    python -m experiments.detection.drift RUNS --others EULER DDIM100 --perturb 0 0.02

Calibrates on the first 1,024 runs of RUNS, checks the following ones in blocks, other stores, and
runs of `fashion` with noise on its weights (a share of each tensor's standard deviation), recorded
here. `--amplitude 1 1.1 1.3` checks the blocks once more with eps and x0 multiplied, and prints
how many drift at 5 %. A perturbed model has another fingerprint and is refused by name; here it is
passed off as the calibrated one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

from asced_analysis.calibration import calibrate, calibrate_transfer, check
from asced_analysis.thresholds.document import PortabilityWarning
from asced_stores import open_runs

CALIBRATED = 1024


def main() -> None:
    """Print a line for every set of runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs")
    parser.add_argument("--block", type=int, default=400)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--others", nargs="*", default=[])
    parser.add_argument("--amplitude", type=float, nargs="*", default=[])
    parser.add_argument("--perturb", type=float, nargs="*", default=[])
    parser.add_argument("--perturbed-runs", type=int, default=128)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", PortabilityWarning)
    runs = open_runs(arguments.runs)
    thresholds = calibrate(runs.isel(run=slice(0, CALIBRATED)), false_alarm_rate=0.05)
    starts = [CALIBRATED + arguments.block * number for number in range(arguments.blocks)]
    calm = [
        check(runs.isel(run=slice(start, start + arguments.block)), thresholds) for start in starts
    ]
    drifted = sum(one.drifted for one in calm)
    print(json.dumps({"fresh blocks": len(calm), "of": arguments.block, "drifted": drifted}))
    for size in arguments.amplitude:
        louder = runs.assign({name: runs[name] * size for name in ("eps", "x0")})
        found = [
            check(
                louder.isel(run=slice(start, start + arguments.block)),
                thresholds,
                significance=0.05,
            ).drifted
            for start in starts
        ]
        print(json.dumps({"amplitude": size, "blocks": len(found), "drifted": sum(found)}))
    for name in arguments.others:
        entry = calibrate_transfer(thresholds, name).transfers[-1]
        print(
            json.dumps(
                {"store": Path(name).name, **told(check(name, thresholds)), "factor": entry.factor}
            ),
            flush=True,
        )
    for size in arguments.perturb:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "runs.zarr"
            record_perturbed(path, size, arguments.perturbed_runs)
            other = open_runs(path)
            other.attrs["model_fingerprint"] = runs.attrs["model_fingerprint"]
            print(json.dumps({"noise on the weights": size, **told(check(other, thresholds))}))


def told(drift: Any) -> dict[str, Any]:
    """What a check found."""
    name, distance, p_value = min(drift.comparisons, key=lambda one: one[2])
    return {
        "runs": drift.runs,
        "drifted": drift.drifted,
        "clearest": name,
        "distance": round(distance, 3),
        "p": float(f"{p_value:.2g}"),
    }


def record_perturbed(path: Path, size: float, count: int) -> None:
    """Runs of `fashion` with noise on its weights."""
    import torch

    from asced_recorders import load_pipeline, record

    pipe = load_pipeline("fashion", device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in pipe.unet.parameters():
            if weight.ndim > 1:
                noise = torch.randn(weight.shape, generator=generator)
                weight += size * weight.std() * noise
    record(pipe, path, runs=count, steps=25, batch_size=64, seed=50_000)


if __name__ == "__main__":
    main()
