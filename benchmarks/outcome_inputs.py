"""What dynamics, a snapshot, both, and a probe know of a run's end (table in docs/thresholds.md).

An embedded teacher teaches; its own local realism and the judge's are the truths. Run on a store
of `fashion` runs: ``python benchmarks/outcome_inputs.py STORE --train 768 2000 6000 --known 0.48``.
"""

from __future__ import annotations

import argparse
import json

import torch

from asced_analysis.calibration.outcome_comparison import compare_inputs
from asced_analysis.calibration.outcome_training import HIDDEN, LAYERS
from asced_analysis.realism import load_embedded


def main() -> None:
    """Print one line a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--train", type=int, nargs="*", help="Numbers of runs to learn from.")
    parser.add_argument("--known", type=float, default=0.48, help="Share of sampling known.")
    parser.add_argument("--probe", type=float, help="Share of sampling to look ahead.")
    parser.add_argument("--teacher", choices=["committee", "teacher"], default="committee")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    parser.add_argument("--depth", type=int, default=LAYERS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = {**vars(arguments)}
    options["train_runs"] = options.pop("train")
    options["teacher"] = load_embedded(options["teacher"])
    options["window"] = (0.12, options.pop("known"))
    for row in compare_inputs(options.pop("store"), judge=load_embedded("judge"), **options):
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}))


if __name__ == "__main__":
    main()
