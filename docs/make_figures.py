"""Draw the README's pictures from what `make demo` left: ``python docs/make_figures.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

import animation

from asced_analysis import open_runs, plots
from asced_analysis.evaluation import Evaluation

HERE = Path(__file__).resolve().parent
SAME = 0.1
"""Mean change of pixels outside the mask (-1..1) up to which it is still the same picture."""


def main() -> None:
    """Draw the run that gained most while the rest stayed, and the worst ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=HERE.parent / "build" / "demo")
    parser.add_argument("--out", type=Path, default=HERE / "images")
    args = parser.parse_args()
    runs = open_runs(args.demo / "runs.zarr")
    corrected = open_runs(args.demo / "corrected.zarr")
    judged = Evaluation.load(args.demo / "evaluation.json").data["by_run"]
    same = [r for r in judged if r["outside_mask"] < SAME] or judged
    most = min(same, key=lambda r: r["local_realism_after"] - r["local_realism_before"])
    args.out.mkdir(parents=True, exist_ok=True)
    plots.save_figure(plots.story(runs, corrected, run=int(most["run"])), args.out / "path.png")
    plots.save_figure(plots.twins(runs, corrected), args.out / "twins.png")
    demo = (args.demo / "runs.zarr", args.demo / "thresholds.json")
    animation.draw(*demo, int(most["run"]), args.out / "run.webp")


if __name__ == "__main__":
    main()
