"""What dynamics, a snapshot, both and a lookahead know of runs' ends (table in docs/thresholds.md).

    python -m experiments.detection.outcome_inputs RUNS --train 768 2000 6000 --known 0.48

An embedded teacher teaches; its own local realism and the judge's are the truths. RUNS are of
`fashion`.
With ``--borders`` nothing is learnt: how much of the worst of final images the embedded models put
along the border.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

from asced_analysis.calibration.outcome_training import HIDDEN, LAYERS
from asced_analysis.compute.source import open_source
from asced_analysis.realism import load_embedded
from experiments.detection.outcome_comparison import border_share, compare_inputs, final_distances

BORDER_RUNS = 1024


def main() -> None:
    """Print one line a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--train", type=int, nargs="*", help="Numbers of runs to learn from.")
    parser.add_argument("--known", type=float, default=0.48, help="Share of sampling known.")
    parser.add_argument("--lookahead", type=float, help="Share of sampling to look ahead.")
    parser.add_argument("--teacher", choices=["committee", "teacher"], default="committee")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    parser.add_argument("--depth", type=int, default=LAYERS)
    parser.add_argument("--borders", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = {**vars(arguments)}
    if options.pop("borders"):
        borders(arguments.store)
        return
    options["train_runs"] = options.pop("train")
    options["teacher"] = load_embedded(options["teacher"])
    options["window"] = (0.12, options.pop("known"))
    for row in compare_inputs(options.pop("store"), judge=load_embedded("judge"), **options):
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}))


def borders(store: str) -> None:
    """Print each model's share of the worst places that lies in the outermost ring of 16 x 16."""
    source = open_source(store)
    rows = np.arange(min(BORDER_RUNS, source.runs))
    for name in ("teacher", "judge", "committee"):
        maps = final_distances(source, rows, load_embedded(name), (16, 16))
        print(json.dumps({"by": name, "runs": len(rows), "border": round(border_share(maps), 3)}))


if __name__ == "__main__":
    main()
