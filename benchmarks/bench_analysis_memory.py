"""Peak memory and seconds of the commands over many runs, at two numbers, in fresh processes.

Run ``python benchmarks/bench_analysis_memory.py`` (or ``--quick``, ``--json``, ``--only stats``);
``--store runs.zarr`` measures a recorded store instead of a synthetic one, and
``--corrected corrected.zarr``, its replay, lets evaluate be measured too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from analysis_stores import add_options, chosen_store

NAMES = ("stats", "phases", "features", "calibrate", "evaluate")

# everything that the command will import is imported first, so that only its data is counted
_CHILD = """
import sys, time
import dask.array, numpy, pandas, scipy.stats, scipy.ndimage, sklearn.ensemble
import sklearn.decomposition, sklearn.covariance, xarray, zarr
import asced_analysis as aa
import asced_analysis.accessor, asced_analysis.calibration, asced_analysis.counts.loops
import asced_analysis.compute.streaming
work = {"stats": aa.step_statistics, "phases": aa.segment_phases, "features": aa.run_features}
name, path, runs, corrected = sys.argv[1:]
if name == "evaluate":
    import torch, diffusers
    from diffusers import DDIMScheduler, UNet2DModel
    from asced_analysis import evaluation, replay, realism
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
ds = aa.open_runs(path)
ds = ds.isel(run=slice(0, int(runs)))
before, start = peak(), time.perf_counter()
used = time.process_time()
if name in work: work[name](ds)
elif name == "calibrate": aa.calibrate(ds, "calibrated", false_alarm_rate=0.05)
elif name == "evaluate": aa.evaluate(path, corrected)
print(peak(), peak() - before, time.perf_counter() - start, time.process_time() - used)
"""


def select(path: Path, runs: int, out: Path) -> Path:
    """Copy the first runs of a store: evaluate takes whole stores."""
    command = [sys.executable, "-m", "asced_cli", "select", str(path)]
    command += ["--runs", f"0-{runs - 1}", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out


def peak_of(name: str, path: Path, runs: int, corrected: Path | None) -> dict[str, float]:
    """Peak of one command in a process of its own, in MB, and its seconds without imports."""
    command = [sys.executable, "-c", _CHILD, name, str(path), str(runs), str(corrected or "")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1:]}")
    names = ("peak", "above", "seconds", "cpu")
    return dict(zip(names, map(float, done.stdout.split()[-4:]), strict=True))


def compare_peaks(
    name: str, path: Path, small: int, large: int, corrected: Path | None
) -> dict[str, Any]:
    """One row: the peak at both numbers of runs."""
    with TemporaryDirectory(dir=path.parent) as folder:
        found = []
        for runs in (small, large):
            own, replayed = path, corrected
            if name == "evaluate" and corrected is not None and runs == small:
                own = select(path, runs, Path(folder) / "runs.zarr")
                replayed = select(corrected, runs, Path(folder) / "corrected.zarr")
            found.append(peak_of(name, own, runs, replayed))
    return {
        "row": f"peak memory of {name}: {large} runs / {small} runs (at most 1.1)",
        "ratio": round(found[1]["peak"] / found[0]["peak"], 3),
        "ratio_above_imports": round(found[1]["above"] / found[0]["above"], 3),
        "peak_mb": [round(each["peak"]) for each in found],
        "mb_above_imports": [round(each["above"], 1) for each in found],
        "seconds": [round(each["seconds"], 1) for each in found],
        "cpu_seconds": [round(each["cpu"], 1) for each in found],
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the benches and print one row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--only", nargs="+", choices=NAMES)
    parser.add_argument("--corrected", help="the replay of --store, for evaluate")
    options = parser.parse_args(arguments)
    corrected = Path(options.corrected) if options.corrected else None
    names = options.only or [name for name in NAMES if name != "evaluate" or corrected]
    if not options.only and not corrected:
        print("evaluate is left out: it needs --store and --corrected", file=sys.stderr)
    with chosen_store(options) as path:
        from asced_stores import open_runs

        large = open_runs(path).sizes["run"]
        for name in names:
            row = compare_peaks(name, path, large // 4, large, corrected)
            rest = ", ".join(f"{key} {value}" for key, value in row.items() if key != "row")
            print(json.dumps(row) if options.json else f"{row['row']}: {rest}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
