"""Whether recorded runs keep the false-alarm rate that was promised (docs/thresholds.md).

    python -m experiments.detection.false_alarms RUNS --block 1024

Cuts the runs into blocks of seeds of their own, calibrates on every block alone, and holds the
counts of its report set and among the next 2,048 runs against the beta-binomial law. Blocks share
no run, so their own counts are independent.

``--splits 3000`` splits the scores of one calibration again so many times instead.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from scipy import stats

from asced_analysis.calibration import calibrate
from asced_analysis.calibration.splits import split_runs
from asced_analysis.compute.source import open_source
from asced_analysis.detection.scoring import scores_of
from asced_analysis.thresholds.conformal import conformal_level, expected_band
from asced_analysis.thresholds.registries import VARIANTS
from asced_stores import open_runs

FRESH = 2048


def main() -> None:
    """Print a line for every block, and one for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs")
    parser.add_argument("--variant", default="calibrated")
    parser.add_argument("--block", type=int, default=1024, help="runs to calibrate on")
    parser.add_argument("--blocks", type=int, help="at most so many")
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--splits", type=int)
    arguments = parser.parse_args()
    runs = open_runs(arguments.runs)
    options = {"variant": arguments.variant, "false_alarm_rate": arguments.rate}
    if VARIANTS.get(arguments.variant).learnt:  # the rate holds whoever teaches
        options["teacher"] = "committee"
    if arguments.splits:
        print(json.dumps(split_again(runs, arguments.splits, options)))
        return
    count = int(runs.sizes["run"]) // arguments.block
    rows = [
        measure_block(runs, number * arguments.block, arguments.block, options)
        for number in range(min(count, arguments.blocks or count))
    ]
    places = [row["place"] for row in rows]
    inside = [row["fresh_band_99"][0] <= row["fresh"] <= row["fresh_band_99"][1] for row in rows]
    whole = {
        "blocks": len(rows),
        "inside_99_on_fresh_seeds": sum(inside),
        "mean_place_in_the_law": round(float(np.mean(places)), 3),
        "uniform_p": round(float(stats.kstest(places, "uniform").pvalue), 3),
    }
    print(json.dumps(options | whole))


def measure_block(runs: Any, start: int, size: int, options: dict[str, Any]) -> dict[str, Any]:
    """Calibrate on one block; count on its report set and on the runs that follow."""
    thresholds = calibrate(runs.isel(run=slice(start, start + size)), **options)
    guarantee = thresholds.guarantee
    rank = guarantee.order_statistic
    assert rank is not None
    law = stats.betabinom(guarantee.report, rank, guarantee.calibrate + 1 - rank)
    flagged = round((guarantee.measured or 0.0) * guarantee.report)
    after = np.arange(start + size, start + size + FRESH) % int(runs.sizes["run"])
    fresh = open_source(runs.isel(run=np.sort(after)))
    scores = scores_of(fresh, thresholds, np.ones(fresh.runs, bool))[1]
    # a discrete count is spread over its own step of the law, so that places are uniform
    chance = np.random.default_rng(start).random()
    row = {
        "first_run": start,
        "report": flagged,
        "of": guarantee.report,
        "band_99": guarantee.band(),
        "fresh": int((scores > thresholds.levels.level).sum()),
        "fresh_band_99": expected_band(guarantee.calibrate, rank, fresh.runs),
        "place": round(float(law.cdf(flagged) - chance * law.pmf(flagged)), 3),
    }
    print(json.dumps(row), flush=True)
    return row


def split_again(runs: Any, splits: int, options: dict[str, Any]) -> dict[str, Any]:
    """Counts on the report set over many splits of the scores of one calibration."""
    source = open_source(runs)
    thresholds = calibrate(source, **options)
    scores = scores_of(source, thresholds, np.ones(source.runs, bool))[1]
    counts = []
    for seed in range(splits):
        split = split_runs(None, source.runs, seed=seed)
        level, rank = conformal_level(scores[split.calibrate], options["false_alarm_rate"])
        counts.append(int((scores[split.report] > level).sum()))
    held, known = int(split.report.sum()), int(split.calibrate.sum())
    law = stats.betabinom(held, rank, known + 1 - rank)
    return options | {
        "splits": splits,
        "of": held,
        "expected": round(float(law.mean()), 1),
        "standard_deviation": round(float(law.std()), 1),
        "mean": round(float(np.mean(counts)), 1),
        "found_deviation": round(float(np.std(counts)), 1),
        "first_split": counts[0],
        "band_99": expected_band(known, rank, held),
    }


if __name__ == "__main__":
    main()
