"""The realised rate where a share of the runs has lost its prompt, over forty calibrations.

    python -m experiments.detection.missing_prompts --out docs/results/missing_prompts.json

Scores of 120 prompts with 8 runs each: most of a score is the prompt's. Some runs lose their
prompt; the real split and the real level are made of what is left, and compared with 4,000 runs of
new prompts. A rate promised at 5 % with n calibration prompts is Beta(l, n + 1 - l) over
calibrations, and the count beta-binomial: ``inside`` is how many of the forty counts lie in its
99 % band, ``uniform_p`` whether their places in the law are uniform. ``by_run`` is the rate of a
split that takes runs for independent, as if no prompt were known.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from asced_analysis.calibration.splits import ExchangeableUnitWarning, split_runs
from asced_analysis.thresholds.conformal import conformal_level, expected_band

Floats = npt.NDArray[np.float64]
PROMPTS, EACH, RATE, NEW, CALIBRATIONS = 120, 8, 0.05, 4000, 40
ALL = PROMPTS * EACH


def scores_of_prompts(rng: np.random.Generator, prompts: int, each: int) -> Floats:
    """Scores (prompt, run): nine tenths of their variance is the prompt's."""
    own = np.sqrt(0.9) * rng.standard_normal((prompts, 1))
    scores: Floats = own + np.sqrt(0.1) * rng.standard_normal((prompts, each))
    return scores


def realised(rng: np.random.Generator, missing: float | int) -> dict[str, float]:
    """One calibration: flagged among new prompts, its place in the law, and the same by run."""
    scores = scores_of_prompts(rng, PROMPTS, EACH).reshape(-1)
    names = np.repeat([f"prompt {n}" for n in range(PROMPTS)], EACH).astype(object)
    lost = missing if isinstance(missing, int) else round(missing * names.size)
    names[rng.permutation(names.size)[:lost]] = ""
    fresh = scores_of_prompts(rng, NEW, 1)[:, 0]
    seed = int(rng.integers(2**31))
    split = split_runs(names.tolist(), names.size, seed=seed)
    level, rank = conformal_level(scores[split.calibrate], RATE)
    known = int(split.calibrate.sum())
    flagged = int((fresh > level).sum())
    law = stats.betabinom(NEW, rank, known + 1 - rank)
    low, high = expected_band(known, rank, NEW)
    alone = split_runs(None, names.size, seed=seed)
    by_run = conformal_level(scores[alone.calibrate], RATE)[0]
    return {
        "unit_is_prompt": split.unit == "prompt",
        "rate": flagged / NEW,
        "inside": low <= flagged <= high,
        "place": float(law.cdf(flagged) - rng.random() * law.pmf(flagged)),
        "by_run": float((fresh > by_run).mean()),
    }


def table() -> list[dict[str, Any]]:
    """One row for every share that is missing."""
    rows = []
    for missing in (0, 1, 0.1, 0.3, 0.6):
        share = f"{missing:.0%}" if isinstance(missing, float) else f"{missing} of {ALL} runs"
        rng = np.random.default_rng(5)
        found = [realised(rng, missing) for _ in range(CALIBRATIONS)]
        columns = {name: np.array([one[name] for one in found], float) for name in found[0]}
        rows.append(
            {
                "missing": share,
                "calibrations": CALIBRATIONS,
                "promised": RATE,
                "mean_rate": round(float(columns["rate"].mean()), 4),
                "largest_rate": round(float(columns["rate"].max()), 4),
                "inside_99": int(columns["inside"].sum()),
                "uniform_p": round(float(stats.kstest(columns["place"], "uniform").pvalue), 3),
                "unit_prompt": int(columns["unit_is_prompt"].sum()),
                "mean_rate_by_run": round(float(columns["by_run"].mean()), 4),
                "largest_rate_by_run": round(float(columns["by_run"].max()), 4),
            }
        )
    return rows


def main() -> None:
    """Print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ExchangeableUnitWarning)
    rows = table()
    for row in rows:
        print(json.dumps(row))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
