"""Realised over promised false-alarm rate on fresh runs and other samplers (docs/thresholds.md).

    python -m experiments.detection.portability RUNS --fresh 4096 --others EULER DPM DDIM50

Calibrates on the first 1,024 runs of RUNS, counts flags among the last `--fresh` of it and in the
other stores.
"""

from __future__ import annotations

import argparse
import json
import warnings

import numpy as np

from asced_analysis.calibration import calibrate
from asced_analysis.compute.source import open_source
from asced_analysis.detection.scoring import scores_of
from asced_analysis.thresholds.conformal import expected_band
from asced_analysis.thresholds.document import PortabilityWarning
from asced_stores import open_runs

RATES = (0.05, 0.1, 0.2)


def main() -> None:
    """Print one line for every signal, store and rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs")
    parser.add_argument("--fresh", type=int, default=4096)
    parser.add_argument("--others", nargs="*", default=[])
    parser.add_argument("--signals", nargs="*", default=["predicted_x0", "weighted_score"])
    parser.add_argument("--combine", default="mean")
    arguments = parser.parse_args()
    runs = open_runs(arguments.runs)
    stores = {"fresh seeds": open_source(runs.isel(run=slice(-arguments.fresh, None)))}
    stores |= {name: open_source(name) for name in arguments.others}
    warnings.simplefilter("ignore", PortabilityWarning)
    for signal in arguments.signals:
        for rate in RATES:
            thresholds = calibrate(
                runs.isel(run=slice(0, 1024)),
                false_alarm_rate=rate,
                parameters={"signal": signal, "combine": arguments.combine},
            )
            guarantee = thresholds.guarantee
            assert guarantee.order_statistic is not None
            for name, source in stores.items():
                scores = scores_of(source, thresholds, np.ones(source.runs, bool))[1]
                count = int((scores > thresholds.levels.level).sum())
                band = expected_band(guarantee.calibrate, guarantee.order_statistic, source.runs)
                row = {
                    "signal": signal,
                    "combine": arguments.combine,
                    "store": name.rsplit("/", 1)[-1],
                    "promised": rate,
                    "flagged": count,
                    "runs": source.runs,
                    "factor": round(count / source.runs / rate, 2),
                    "band_99": [int(end) for end in band],
                }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
