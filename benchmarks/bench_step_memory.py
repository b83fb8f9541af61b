"""Memory of the commands that read large runs step by step, in blocks of one step of one run.

Run ``python benchmarks/bench_step_memory.py`` (or ``--quick``, ``--json``, ``--only features``;
``--video`` for two videos of 387 MB, each command in a process of its own, with all its memory). A
block is what a command reads of one step of one run, as it is stored. Runs of two sizes are made;
the growth of the peak between them, by the growth of the block, is what is asked to be at most
three (of grey images, detection by some variants takes four, which they say). NumPy's arrays are
counted where they are made (tracemalloc), so that the figure is the same on every machine, busy
or not.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
import pandas as pd

from asced_analysis import calibrate, open_runs, run_features, segment_phases, step_statistics
from asced_analysis.audit import audit
from asced_analysis.calibration import check
from asced_analysis.compute import stepped
from asced_analysis.detection import VARIANTS
from asced_analysis.detection.apply import detect
from asced_analysis.statistics.regions import artifact_regions, region_profile
from asced_stores.format import memory
from asced_stores.testing import synthetic_store

VIDEO: dict[str, Any] = {"runs": 2, "batch_size": 1, "steps": 20, "shape": (21, 16, 90, 160)}
OF_VIDEO = ("features", "statistics", "phases", "audit", "regions")
BOTH, EPS, X0 = ("eps", "x0"), ("eps",), ("x0",)
RATE = 0.25
RUNS = 100
"""That something is learnt of."""
SIDE = 64
"""Of images; larger ones have no larger maps."""


@dataclass(frozen=True)
class Row:
    """A command, what it reads, how many runs, whether images: of so many times 64 x 64.

    Then how many blocks it may take, and whether the images have one channel.
    """

    work: Callable[[Any], Any]
    reads: tuple[str, ...] = EPS
    runs: int = 1
    images: bool = False
    larger: int = 4
    held: int = stepped.STEPS_HELD
    grey: bool = False


def _profile(ds: Any) -> None:
    region = pd.Series({"run": 0, "top": 0, "left": 0, "height": 4, "width": 4})
    region_profile(ds, region)


def _detect(ds: Any, variant: str = "calibrated") -> None:
    detect(ds, _known(ds, variant), override=True, network=_echo(variant)).compute()


def _echo(variant: str) -> Any:
    """A network that takes no memory, for variants that evaluate one."""
    own = VARIANTS.get(variant)
    return (lambda sample, *_: sample) if own.extra_evaluations(own.parameters()) else None


ROWS = {
    "statistics": Row(step_statistics),
    "statistics of x0": Row(lambda ds: step_statistics(ds, "x0", measure="value"), X0),
    "features": Row(run_features, BOTH),
    "phases": Row(segment_phases, runs=2),
    "audit": Row(audit, BOTH),
    "regions": Row(artifact_regions),
    "regions of a run": Row(lambda ds: artifact_regions(ds, reference="run")),
    "regions of images": Row(artifact_regions, images=True, larger=64),
    "regions of a run of images": Row(
        lambda ds: artifact_regions(ds, reference="run"), images=True, larger=64
    ),
    "regions of grey images": Row(artifact_regions, images=True, larger=256, grey=True),
    "regions of a run of grey images": Row(
        lambda ds: artifact_regions(ds, reference="run"), images=True, larger=256, grey=True
    ),
    "profile of a region": Row(_profile),
    "calibrate": Row(lambda ds: calibrate(ds, false_alarm_rate=RATE), X0, 40),
    "detect": Row(_detect, X0, 2),
    "calibrate on images": Row(lambda ds: calibrate(ds, false_alarm_rate=RATE), X0, 40, True),
    "detect of images": Row(_detect, X0, 2, True, 16),
    "drift": Row(lambda ds: check(ds, calibrate(ds, false_alarm_rate=RATE)), BOTH, 40),
}


def _detection(name: str, *, grey: bool) -> Row:
    """Of one large image, by a variant."""
    own = VARIANTS.get(name)
    reads = own.reads(own.parameters())
    held = own.blocks(2 * len(reads) * (1 if grey else 4), 1)
    return Row(partial(_detect, variant=name), reads, 1, True, 256 if grey else 64, held, grey)


ROWS |= {
    f"detect of {'grey ' * grey}images ({name})": _detection(name, grey=grey)
    for name in VARIANTS
    for grey in (False, True)
    if not (grey and VARIANTS.get(name).learnt)  # of the small ones they see each pixel
}
_THRESHOLDS: dict[tuple[Any, ...], Any] = {}


def _known(ds: Any, variant: str) -> Any:
    """Thresholds of 40 runs of a frame like these runs', made once; of images, whose maps fit."""
    steps, *shape = (ds["x0"].shape[at] for at in (1, -3, -2, -1))
    if "frame" not in ds["x0"].dims:
        shape[1:] = [SIDE, SIDE]
    if (variant, steps, *shape) not in _THRESHOLDS:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "frames.zarr"
            options: dict[str, Any] = {}
            if VARIANTS.get(variant).learnt:
                ends = {run: float(run % 7) for run in range(RUNS)}
                options = {"method": "outcome", "outcomes": ends, "outcome": {"epochs": 1}}
            runs = RUNS if options else 40
            synthetic_store(path, runs=runs, batch_size=20, steps=steps, shape=shape)
            known = calibrate(
                path, variant, false_alarm_rate=RATE, network=_echo(variant), **options
            )
            _THRESHOLDS[variant, steps, *shape] = known
    return _THRESHOLDS[variant, steps, *shape]


def read_plainly(set_to: Callable[[Any, str, Any], None]) -> None:
    """Read every run step by step, into memory that is counted and no larger than what is read."""
    set_to(stepped, "LARGE_RUN_BYTES", 0)
    set_to(memory, "_KEPT", 0)  # what a thread keeps to read into again: 32 MB, whatever the runs
    set_to(memory, "_HUGE_PAGE", memory._PAGE)  # up to 4 MB are asked for and not touched


def peak_of(work: Callable[[Any], Any], ds: Any) -> tuple[int, float]:
    """Bytes of arrays at the peak of the second of two calls, and seconds of the first."""
    begun = time.perf_counter()
    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few runs
        work(ds)
        seconds = time.perf_counter() - begun
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        work(ds)
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
    return peak, seconds


def measure(name: str, folder: Path, shape: tuple[int, ...], steps: int) -> dict[str, Any]:
    """One row: runs of a quarter of the frames, and of all; of images, of a quarter of the area."""
    row = ROWS[name]
    peaks, blocks, seconds = [], [], 0.0
    for frames in (shape[0] // 4, shape[0]):
        side = SIDE * math.isqrt(row.larger * frames // shape[0])
        size = (1 if row.grey else shape[1], side, side) if row.images else (frames, *shape[1:])
        path = folder / f"{row.runs}-{'x'.join(map(str, size))}.zarr"
        if not path.exists():
            synthetic_store(path, runs=row.runs, batch_size=row.runs, steps=steps, shape=size)
        peak, seconds = peak_of(row.work, open_runs(path))
        peaks.append(peak)
        blocks.append(2 * len(row.reads) * math.prod(size))
    ratio = (peaks[1] - peaks[0]) / (blocks[1] - blocks[0])
    return {
        "row": f"{name}: peak by blocks of a step (at most {row.held})",
        "ratio": round(ratio, 2),
        "constant_mb": round((peaks[1] - ratio * blocks[1]) / 1e6, 1),
        "seconds": round(seconds / row.runs, 2),
    }


def of_video(name: str, path: Path) -> dict[str, Any]:
    """Memory in all and time of one command, in a process of its own."""
    command = [sys.executable, __file__, "--video", str(path), "--only", name]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(said))


def in_process(name: str, path: Path) -> dict[str, Any]:
    """The same in this process, which does nothing else."""
    begun, worked = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few runs
        ROWS[name].work(open_runs(path))
    status = Path("/proc/self/status").read_text()  # ru_maxrss remembers the parent's
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    runs = VIDEO["runs"]
    return {
        "row": f"{name}: two videos of 387 MB",
        "peak_mb": round(peak / 1e6),
        "seconds_a_run": round((time.perf_counter() - begun) / runs, 2),
        "cpu_seconds_a_run": round((time.process_time() - worked) / runs, 2),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print one row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small runs of few steps")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="+", choices=ROWS)
    parser.add_argument("--video", nargs="?", const="", help="two large videos (at PATH)")
    options = parser.parse_args(arguments)
    if options.video:
        print(json.dumps(in_process(options.only[0], Path(options.video))))
        return 0
    if options.video is not None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "videos.zarr"
            synthetic_store(path, **VIDEO)
            for name in options.only or OF_VIDEO:
                print(json.dumps(of_video(name, path)), flush=True)
        return 0
    read_plainly(setattr)
    with TemporaryDirectory() as folder:
        for name in options.only or ROWS:
            shape, steps = ((20, 4, 90, 160), 12) if ROWS[name].runs < 3 else ((20, 4, 48, 48), 6)
            if options.quick:
                shape = (16, 4, 96, 96) if ROWS[name].runs < 3 else (8, 4, 24, 24)
                steps = 6
            row = measure(name, Path(folder), shape, steps)
            rest = ", ".join(f"{key} {value}" for key, value in row.items() if key != "row")
            print(json.dumps(row) if options.json else f"{row['row']}: {rest}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
