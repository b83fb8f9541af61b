"""Draw the pictures of README and pages: ``python docs/make_figures.py``, after `make demo`.

Needs chromium and chromedriver, for pictures of the viewer and the report.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import animation
import pages
import screens

from asced_analysis import Thresholds, open_runs, plots
from asced_analysis.detection.apply import detect
from asced_analysis.evaluation import Evaluation
from asced_analysis.statistics.saving import load

HERE = Path(__file__).resolve().parent
SAME = 0.1
"""Mean change of pixels outside the mask (-1..1) up to which it is still the same picture."""
AS_BRIGHT = 0.1
"""Change of mean brightness up to which the corrected picture shows as much as before."""


def main() -> None:
    """Draw the run that gained most of those that still show as much, and the worst ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=HERE.parent / "build" / "demo")
    parser.add_argument("--out", type=Path, default=HERE / "images")
    args = parser.parse_args()
    runs = open_runs(args.demo / "runs.zarr")
    corrected = open_runs(args.demo / "corrected.zarr")
    judged = Evaluation.load(args.demo / "evaluation.json").by_run
    change = (corrected["sample"] - runs["sample"]).mean(("channel", "y", "x"))
    kept = set(runs["run"].values[abs(change.values) < AS_BRIGHT].tolist())
    same = [r for r in judged if (r.outside_mask or 0) < SAME and r.run in kept] or judged
    most = min(same, key=lambda r: r.local_realism_after - r.local_realism_before)
    args.out.mkdir(parents=True, exist_ok=True)
    plots.save_figure(plots.case_study(runs, corrected, run=most.run), args.out / "path.png")
    plots.save_figure(plots.paired_runs(runs, corrected), args.out / "paired-runs.png")
    phases = load(args.demo / "phases.json")
    plots.save_figure(plots.phase_curve(phases).get_figure(), args.out / "phases.png")
    thresholds = Thresholds.load(args.demo / "thresholds.json")
    scores = plots.scores(detect(runs, thresholds), thresholds)
    plots.save_figure(scores.get_figure(), args.out / "scores.png")
    screens.viewer(args.demo, args.out / "viewer.webp")
    screens.report(args.demo, args.out / "report.webp")
    demo = (args.demo / "runs.zarr", args.demo / "thresholds.json")
    animation.draw(*demo, most.run, args.out / "run.webp")
    pages.draw(args.demo, args.out)


if __name__ == "__main__":
    main()
