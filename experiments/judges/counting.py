"""How often counting shapes is wrong: real images that the model re-draws, some with a fault.

    python -m experiments.judges.counting
    python -m experiments.judges.counting --store runs.zarr  # what counting says of recorded runs
    python -m experiments.judges.counting --store runs.zarr --labels labels.csv  # to calibrate on

A shape is put into a random place of a column: its own (no rule is broken), or another's. The image
is noised to the level of a step and sampled on from there by the model that is judged, which makes
its edges as soft as those of any image that it draws. Of shapes in their own columns, the share
called broken is the error of counting. Of shapes in another's column the model draws some as
something nearer to their column's kind, the more so the earlier it begins; others must be found.
*Greatest overlap* takes the kind that a component overlaps most, however narrowly.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asced_recorders import load_pipeline
from asced_stores import open_runs
from experiments.datasets.shapes import KINDS, SIZE, Images, fold, judge, put, unfold
from experiments.judges.learnt import SHAPES
from experiments.judges.writing import tell
from experiments.tables.files import RESULTS

STEPS = 25
FROM = (22, 20, 18, 16)


def single_shapes(count: int, *, misplaced: bool, seed: int = 0) -> Images:
    """Images of one shape each, in its own column or in another's."""
    rng = np.random.default_rng(seed)
    out = np.full((count, 1, SIZE, SIZE), -1.0, np.float32)
    for image in out[:, 0]:
        column = int(rng.integers(3))
        others = [kind for kind in range(3) if kind != column]
        put(image, KINDS[int(rng.choice(others)) if misplaced else column], column, rng)
    return out


def redrawn(pipe: Any, images: Images, step: int, *, seed: int = 0) -> Images:
    """Images noised to the level of a step, and sampled on from there."""
    scheduler = pipe.scheduler
    scheduler.set_timesteps(STEPS)
    clean = torch.from_numpy(fold(images))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    times = scheduler.timesteps[step:]
    sample = scheduler.add_noise(clean, noise, times[:1].repeat(len(clean)))
    with torch.no_grad():
        for time in times:
            sample = scheduler.step(pipe.unet(sample, time).sample, time, sample).prev_sample
    return unfold(sample.numpy())


def rows(count: int) -> Iterator[dict[str, Any]]:
    """One row a step and fault."""
    pipe = load_pipeline(SHAPES, device="cpu")
    for step in FROM:
        for misplaced in (False, True):
            images = redrawn(pipe, single_shapes(count, misplaced=misplaced), step)
            yield {
                "shapes": "in another's column" if misplaced else "in their own column",
                "re-drawn from step": step,
                **counted(images),
            }


def counted(images: Images) -> dict[str, float]:
    """How many images there are, and what share of them is broken, counted in both ways."""
    return {
        "images": len(images),
        "called broken": float(judge(images).broken.mean()),
        "by greatest overlap": float(judge(images, margin=0.0).broken.mean()),
    }


def main() -> None:
    """Print one row a line, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--store", type=Path, help="recorded runs, which are counted instead")
    parser.add_argument("--labels", type=Path, help="with --store: write outcomes of runs, CSV")
    parser.add_argument("--out", type=Path, default=RESULTS / "judges")
    arguments = parser.parse_args()
    if arguments.store is not None:
        dataset = open_runs(arguments.store)
        images = unfold(dataset["sample"].values)
        if arguments.labels is not None:
            labels = np.column_stack([dataset["run"].values, judge(images).broken])
            np.savetxt(arguments.labels, labels, "%d", ",", header="run,score", comments="")
        tell([counted(images)])
        return
    tell(rows(arguments.images), arguments.out / "counting.jsonl")


if __name__ == "__main__":
    main()
