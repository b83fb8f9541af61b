"""Draw the README's picture from what `make demo` left: ``python docs/make_figures.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from asced_analysis import open_runs, plots

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Draw the flagged runs beside their corrected twins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=HERE.parent / "build" / "demo")
    parser.add_argument("--out", type=Path, default=HERE / "images")
    args = parser.parse_args()
    runs = open_runs(args.demo / "runs.zarr")
    corrected = open_runs(args.demo / "corrected.zarr")
    args.out.mkdir(parents=True, exist_ok=True)
    plots.save_figure(plots.twins(runs, corrected), args.out / "twins.png")


if __name__ == "__main__":
    main()
