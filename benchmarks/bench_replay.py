"""What a replay costs, as ratios against bare sampling of the same batches.

Rows: replay with a correction, replay from the checkpoint at about half of the steps, a corrector
in the loop with nothing written, a sweep of six ``T_c`` values against six full replays. Each ratio
is the median of interleaved pairs with a bootstrap interval of 95 %, CPU seconds beside it. Run
``python benchmarks/bench_replay.py`` (or ``--pairs 5``, ``--json``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pairs import compare

STEPS = 25
HALF = 12
SWEEP = (12, 13, 14, 15, 16, 17)
GOALS = {
    "replay with ttc": 1.03,
    "replay from step 12": 0.60,
    "corrector in the loop": 1.03,
    "sweep of six T_c": 0.50,
}


class Case:
    """A recording of one batch, masks for a tenth of its runs, and the ways to sample it again."""

    def __init__(self, folder: Path, runs: int) -> None:
        from asced_analysis.calibration import calibrate
        from asced_recorders import load_pipeline, record

        self.folder = folder
        self.pipe = load_pipeline("fashion", device="cpu")
        self.path = folder / "runs.zarr"
        self.runs = runs
        record(
            self.pipe,
            self.path,
            runs=runs,
            steps=STEPS,
            batch_size=runs,
            checkpoints=SWEEP,
        )
        mask = np.zeros((32, 32), np.bool_)
        mask[10:20, 10:20] = True
        self.masks = dict.fromkeys(range(0, runs, 10), mask)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few runs: the rate is not the question
            self.thresholds = calibrate(self.path, false_alarm_rate=0.3, window=(0.2, 0.4))

    def bare(self, listener: Any = None) -> None:
        """Sample the batch as one would without this toolkit: from noise to image."""
        from asced_recorders.pipelines.decoding import to_image
        from asced_recorders.pipelines.sampling import (
            initial_noise,
            run_generators,
            sample_unconditional,
        )

        self.pipe.scheduler.set_timesteps(STEPS)
        generators = run_generators(list(range(self.runs)))
        out = sample_unconditional(
            self.pipe,
            x_init=initial_noise(self.pipe, generators),
            steps=STEPS,
            generators=generators,
            listener=listener,
        )
        to_image(self.pipe, out)

    def corrected(self) -> None:
        """The same with a corrector in the loop."""
        from asced_analysis.correction import Corrector

        corrector = Corrector(self.thresholds, step=HALF)
        corrector.assign(range(self.runs))
        self.bare(corrector)

    def replay(self, **options: Any) -> None:
        """Replay the batch with a correction."""
        from asced_analysis.replay import replay

        replay(
            self.path,
            self.folder / "replayed.zarr",
            masks=self.masks,
            pipeline=self.pipe,
            overwrite=True,
            **{"step": HALF, **options},
        )

    def six_replays(self) -> None:
        """Flagged runs, replayed from noise for every ``T_c``."""
        for step in SWEEP:
            self.replay(step=step, only_flagged=True)

    def sweep(self) -> None:
        """The same as branches."""
        from asced_analysis.replay import Branch, branch

        branch(
            self.path,
            self.folder / "branches.zarr",
            [Branch(step=step) for step in SWEEP],
            masks=self.masks,
            pipeline=self.pipe,
            overwrite=True,
        )


def main() -> None:
    """Run the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--runs", type=int, default=32)
    parser.add_argument("--row", choices=GOALS, action="append", help="all by default")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder), arguments.runs)
        measures = (
            ("replay with ttc", case.bare, case.replay),
            ("replay from step 12", case.bare, lambda: case.replay(start=HALF)),
            ("corrector in the loop", case.bare, case.corrected),
            ("sweep of six T_c", case.six_replays, case.sweep),
        )
        rows = []
        for name, plain, ours in measures:
            if arguments.row and name not in arguments.row:
                continue
            rows.append(compare(plain, ours, arguments.pairs).row(name, goal=GOALS[name]))
            if not arguments.json:
                print(sentence(rows[-1]), flush=True)
    if arguments.json:
        print(json.dumps(rows))


def sentence(row: dict[str, Any]) -> str:
    """One row for people."""
    low, high = row["interval"]
    return (
        f"{row['row']:<22} {row['ratio']:.3f} ({low:.3f} to {high:.3f}) of plain, goal at most "
        f"{row['goal']}; CPU {row['cpu_ratio']:.3f}, {row['cpu_s']} s, {row['pairs']} pairs"
    )


if __name__ == "__main__":
    main()
