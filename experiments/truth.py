"""Detectors and corrections on sets whose truth is known.

    python -m experiments.truth                       # everything; about two hours of one core
    python -m experiments.truth --only natural --natural runs.zarr

Learning sees the runs of `fit`, choices are made on `tune`, figures come from `report` (other
seeds). Stores, rankings and results are kept in the cache by fingerprint;
`experiments.tables.truth` writes the tables from the results.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asced_recorders import load_pipeline
from asced_recorders.pipelines.fingerprint import model_fingerprint
from asced_stores import open_runs
from experiments.datasets.sets import STEPS, Split, judge_of, limit_of, mean_distance, natural_sets

EARLY, MIDDLE, LATE = (0.08, 8 / STEPS), (0.08, 12 / STEPS), (0.16, 18 / STEPS)


class Bench:
    """What all parts share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.begin = time.perf_counter()
        self.pipe = load_pipeline(arguments.pipeline)
        self.model = model_fingerprint(self.pipe)
        self.cache = arguments.cache / self.model.removeprefix("sha256:")[:12]
        self.cache.mkdir(parents=True, exist_ok=True)
        self._sets: dict[str, Split] | None = None

    @property
    def sets(self) -> dict[str, Split]:
        """Natural runs, split."""
        if self._sets is None:
            self._sets = natural_sets(
                self.cache,
                runs=self.arguments.runs,
                pipeline=self.arguments.pipeline,
                natural=self.arguments.natural,
            )
        return self._sets

    def detectors(self) -> Any:
        """Detectors that learn from the natural runs."""
        from experiments.detection.detectors import Detectors

        fit, tune = self.sets["fit"], self.sets["tune"]
        bad = mean_distance(tune.distance("teacher")) > limit_of(tune, "teacher")
        folder = tune.store.parent
        return Detectors(folder / "detectors", fit.dataset, tune.dataset, bad, folder.name)

    def planted(self) -> Path:
        """A store of the runs of `report` with faults planted in them."""
        from experiments.datasets.faults import plant

        report = self.sets["report"]
        path = report.store.parent / "planted.zarr"
        if not path.exists():
            part = path.with_suffix(".part.zarr")
            plant(report.store, part, judge_of(), pipeline=self.pipe)
            part.rename(path)
            self.say("planted")
        return path

    def say(self, text: str) -> None:
        """Tell how far it is."""
        print(f"{time.perf_counter() - self.begin:7.0f} s  {text}", flush=True)

    def keep(self, name: str, found: Any) -> None:
        """Write one result."""
        out = self.arguments.out
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"model": self.model, "steps": STEPS, **found}, indent=1) + "\n"
        (out / f"{name}.json").write_text(text)
        self.say(f"wrote {name}.json")


def natural(bench: Bench) -> None:
    """The worst quarter of undisturbed runs."""
    from experiments.detection import rankings
    from experiments.detection.detectors import CANDIDATES

    for last, window in ((8, EARLY), (12, MIDDLE)):
        found = rankings.natural(
            bench.sets["report"],
            bench.sets["tune"],
            bench.detectors(),
            window,
            bench.say,
            tuple(n for n in CANDIDATES if last == 8 or "alone" not in n),
        )
        bench.keep(f"natural-{last}", found | {"judge": judge_of().name})


def planted(bench: Bench) -> None:
    """Faults planted in the runs of `report`."""
    from experiments.detection import rankings

    report, path = bench.sets["report"], bench.planted()
    found = rankings.planted(report, open_runs(path), bench.detectors(), LATE, bench.say)
    bench.keep("planted", found | {"judge": judge_of().name})


def options(bench: Bench) -> None:
    """Choices of `calibrated` on the planted and the natural set."""
    from experiments.detection import rankings

    report = bench.sets["report"]
    planted_runs = open_runs(bench.planted())
    found = rankings.options(
        report, bench.sets["tune"], planted_runs, bench.detectors(), LATE, bench.say
    )
    bench.keep("options", found | {"judge": judge_of().name})


def judge(bench: Bench) -> None:
    """Whether the judge knows damage: samples against real images, planted damage."""
    from experiments.detection.judge_check import check_judge

    bench.keep("judge", check_judge(bench.sets["report"]))


def grid(bench: Bench) -> None:
    """The 25-Gaussian grid."""
    from experiments.datasets import gaussian_grid

    bench.keep("grid", gaussian_grid.measure(bench.arguments.points))


def grid_repair(bench: Bench) -> None:
    """Corrections on the grid, where truth is exact."""
    from experiments.correction import grid_repair

    folder = bench.cache.parent / "grid-repair"
    bench.keep("grid-repair", grid_repair.measure(bench.arguments.points, folder, bench.say))


def shapes(bench: Bench) -> None:
    """SIMPLE SHAPES: detectors and corrections, judged by counting."""
    from experiments.correction import shapes_set

    bench.keep("shapes", shapes_set.measure(bench, bench.arguments.shapes_runs))


def where(bench: Bench) -> None:
    """Corrections by strategy, map and control, on undisturbed runs."""
    from experiments.correction import where_to_correct

    bench.keep("where", where_to_correct.natural(bench))


def where_planted(bench: Bench) -> None:
    """Corrections by strategy, map and control, on planted faults."""
    from experiments.correction import where_to_correct

    bench.keep("where-planted", where_to_correct.planted(bench, bench.planted()))


def forms(bench: Bench) -> None:
    """The same area of fresh noise in one piece, scattered, or spread thin."""
    from experiments.correction import scattering

    bench.keep("forms", scattering.measure(bench))


def energy(bench: Bench) -> None:
    """What the energy of the starting noise knows and does."""
    from experiments.correction import noise_energy

    bench.keep("energy", noise_energy.measure(bench))


def ideas(bench: Bench) -> None:
    """Whom, where, when and how to correct: ideas, each with what it gave."""
    from experiments.correction import ideas

    ideas.measure_ideas(bench)


def policies(bench: Bench) -> None:
    """What policies made of the ideas do to the whole population."""
    from experiments.correction import policies

    policies.measure_policies(bench)


def equal(bench: Bench) -> None:
    """Restart against plain sampling at equal evaluations."""
    from experiments.correction import policies

    policies.measure_equal(bench)


def uplift(bench: Bench) -> None:
    """A map learnt from where renewal helped."""
    from experiments.correction import policies

    policies.measure_uplift(bench)


PARTS: dict[str, Callable[[Bench], None]] = {
    "grid": grid,
    "grid-repair": grid_repair,
    "judge": judge,
    "natural": natural,
    "planted": planted,
    "options": options,
    "shapes": shapes,
    "where": where,
    "where-planted": where_planted,
    "energy": energy,
    "forms": forms,
    "ideas": ideas,
    "policies": policies,
    "equal": equal,
    "uplift": uplift,
}


def main() -> None:
    """Build what is missing, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_240, help="to record")
    parser.add_argument("--natural", type=Path, help="recorded runs, instead of recording some")
    parser.add_argument("--points", type=int, default=3_000, help="of the grid")
    parser.add_argument("--shapes-runs", type=int, default=2_048)
    parser.add_argument("--cache", type=Path, default=Path("build/truth"))
    parser.add_argument("--pipeline", default="fashion")
    parser.add_argument("--out", type=Path, default=Path("build/truth/results"))
    parser.add_argument("--only", choices=tuple(PARTS), action="append")
    parser.add_argument("--resume", action="store_true", help="leave out parts that were finished")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    for name in arguments.only or PARTS:
        done = arguments.out / f".{name}-{bench.model.removeprefix('sha256:')[:12]}"
        if arguments.resume and done.exists():
            bench.say(f"{name}: there already")
            continue
        PARTS[name](bench)
        done.touch()


if __name__ == "__main__":
    main()
