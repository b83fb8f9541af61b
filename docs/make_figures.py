"""Draw the README's pictures from what `make demo` left: ``python docs/make_figures.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from asced_analysis import open_runs, plots
from asced_analysis.evaluation import Evaluation

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Draw the run that gained most, and the most abnormal ones, beside their corrected twins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=HERE.parent / "build" / "demo")
    parser.add_argument("--out", type=Path, default=HERE / "images")
    args = parser.parse_args()
    runs = open_runs(args.demo / "runs.zarr")
    corrected = open_runs(args.demo / "corrected.zarr")
    judged = Evaluation.load(args.demo / "evaluation.json").data["by_run"]
    most = min(judged, key=lambda r: r["local_realism_after"] - r["local_realism_before"])
    args.out.mkdir(parents=True, exist_ok=True)
    plots.save_figure(plots.story(runs, corrected, run=int(most["run"])), args.out / "path.png")
    plots.save_figure(plots.twins(runs, corrected), args.out / "twins.png")


if __name__ == "__main__":
    main()
