"""How often 95 % intervals hold the truth, of few runs: means, shares and differences.

python -m experiments.judges.coverage --trials 4000
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from scipy.stats import binom

from asced_analysis.evaluation.intervals import mean_estimate, share_estimate, unpaired_estimate
from experiments.judges.writing import tell

RUNS = (5, 10, 20, 37)


def shares(runs: int) -> tuple[float, float]:
    """Least and mean coverage over all probabilities: exact, nothing is drawn."""
    ends = [share_estimate(np.arange(runs) < k) for k in range(runs + 1)]
    low, high = (np.array([getattr(one, side) for one in ends]) for side in ("low", "high"))
    found = [
        binom.pmf(np.arange(runs + 1), runs, p)[(low <= p) & (p <= high)].sum()
        for p in np.linspace(0.001, 0.999, 999)
    ]
    return float(min(found)), float(np.mean(found))


def rows(trials: int) -> Iterator[dict[str, float]]:
    """One row a number of runs."""
    rng = np.random.default_rng(0)
    for runs in RUNS:
        row: dict[str, float] = {"runs": runs}
        for name, draw, truth in (
            ("normal", rng.standard_normal, 0.0),
            ("exponential", rng.standard_exponential, 1.0),
        ):
            found = [mean_estimate(draw(runs)) for _ in range(trials)]
            row[name] = float(np.mean([one.low <= truth <= one.high for one in found]))
        both = [
            unpaired_estimate(rng.exponential(size=runs), rng.standard_normal(runs))
            for _ in range(trials)
        ]
        row["difference"] = float(np.mean([one.low <= 1 <= one.high for one in both]))
        row["share, least"], row["share, mean"] = shares(runs)
        yield row


def main() -> None:
    """Print one JSON line a number of runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--out", help="File to write (*.jsonl).")
    args = parser.parse_args()
    tell(rows(args.trials), args.out)


if __name__ == "__main__":
    main()
