"""The paper's experiments: tables 1 and 2, figures 4, 7 and 8, on any pipeline and real images.

    python -m experiments.paper                                     # fashion, 1,024 runs
    python -m experiments.paper --store runs.zarr --runs 2048 --out build/paper/results.json
    python -m experiments.paper --pipeline FOLDER --real IMAGES --features imagenet

Corrected stores are kept in the cache, so that an interrupted command goes on; results are added
to those in ``--out``. ``--labels`` takes what people said (columns ``run`` and ``broken``, or
labels of `experiments.models.emoji`, with ``#SET`` after the file's name for one of several sets);
without it the judge calls the worst tenth broken and the better half whole.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from asced_analysis.thresholds.document import Thresholds
from asced_stores import TrajectoryStore
from asced_stores.errors import InputError
from experiments.paper.correcting import SWEEP, figure_eight, table_one
from experiments.paper.detecting import figure_seven, table_two
from experiments.paper.drawing import draw
from experiments.paper.judging import judge_of
from experiments.paper.paper_tables import printed, tables
from experiments.paper.regions import figure_four
from experiments.paper.setting import Setting, key_of, runs_of
from experiments.tables.files import write_tables

PARTS = ("table2", "figure4", "figure7", "table1", "figure8")


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--pipeline", default="fashion", help="name, folder or hub name")
    made.add_argument("--store", type=Path, help="recorded runs, instead of recording now")
    made.add_argument("--runs", type=int, default=1024)
    made.add_argument("--steps", type=int, default=25)
    made.add_argument(
        "--features",
        action="append",
        metavar="NAME",
        help="judge, teacher, patches, imagenet or FILE.py:FUNCTION (docs/paper.md); others after "
        "the first are measured for table 1 alone",
    )
    made.add_argument("--real", type=Path, help="real images: a folder, .npz, .npy or Zarr")
    made.add_argument("--labels", type=Path, help="CSV of run and broken, or FILE#SET of emoji")
    made.add_argument("--thresholds", type=Path, action="append", default=[], help="for table 2")
    made.add_argument("--detector", choices=("released", "paper"), action="append")
    made.add_argument("--only", choices=PARTS, action="append", help="in the order given")
    made.add_argument("--kept", action="store_true", help="measure nothing: write what was kept")
    made.add_argument("--share", type=float, action="append", help="T_c / T of figure 8")
    made.add_argument("--no-controls", action="store_true")
    made.add_argument("--cache", type=Path, default=Path("build/paper"))
    made.add_argument("--out", type=Path, default=Path("build/paper/results.json"))
    made.add_argument("--figures", type=Path, default=Path("build/paper"), help="folder of plots")
    made.add_argument("--tables", type=Path, help="folder in which each table is a Markdown file")
    return made


def setting_of(arguments: argparse.Namespace, features: str | None) -> Setting:
    """Runs and judge."""
    arguments.cache.mkdir(parents=True, exist_ok=True)
    store = runs_of(
        store=arguments.store,
        pipeline=arguments.pipeline,
        runs=arguments.runs,
        steps=arguments.steps,
        cache=arguments.cache,
    )
    model = judge_of(features, arguments.real, store)
    pipeline = None if arguments.pipeline == "fashion" else arguments.pipeline
    stores = arguments.cache / key_of(store)
    stores.mkdir(exist_ok=True)
    return Setting(store, pipeline, model, stores)


def main() -> None:
    """Run what is wanted, and print tables."""
    arguments = parser().parse_args()
    torch.set_num_threads(1)
    begin = time.perf_counter()

    def tell(text: str) -> None:
        print(f"[{time.perf_counter() - begin:6.0f} s] {text}", file=sys.stderr, flush=True)

    try:
        first, *rest = arguments.features or [None]
        wanted = [] if arguments.kept else arguments.only or list(PARTS)
        results = run(arguments, first, arguments.out, wanted, tell)
        alone = ["table1"] if wanted else []
        others = [run(arguments, one, beside(arguments.out, one), alone, tell) for one in rest]
    except InputError as error:
        sys.exit(f"error: {error}")
    written = tables(results, others)
    for name, table in written.items():
        print(f"{printed(name, results)}\n\n{table}\n")
    for path in draw(results, arguments.figures):
        tell(f"drawn: {path}")
    if arguments.tables:
        write_tables(arguments.tables, written)
        tell(f"written: {len(written)} tables in {arguments.tables}")


def beside(out: Path, features: str) -> Path:
    """Where results by other features lie."""
    return out.with_stem(f"{out.stem}-{Path(features.rpartition(':')[0] or features).stem}")


def run(
    arguments: argparse.Namespace, features: str | None, out: Path, wanted: list[str], tell: Any
) -> dict[str, Any]:
    """All wanted parts by one feature extractor; each is written as soon as it is there."""
    setting = setting_of(arguments, features)
    variants = arguments.detector or ["released", "paper"]
    facts = {
        "pipeline": setting.recording.attributes.get("pipeline"),
        "runs": arguments.runs,
        "steps": setting.steps,
        "features": setting.model.name,
        "recording": TrajectoryStore.open(setting.store).fingerprint,
        "key": key_of(setting.store),
    }
    results: dict[str, Any] = dict(facts)
    if out.exists():
        before = json.loads(out.read_text(encoding="utf-8"))
        if any(before.get(name) != value for name, value in facts.items()):
            raise InputError(f"{out} holds results of other runs or features: give another --out")
        results = before
    for part in wanted:
        tell(part)
        if part in ("table1", "figure8"):
            for variant in variants:
                rows = results.setdefault(part, {}).setdefault(variant, {})
                found = (
                    table_one(
                        setting,
                        variant,
                        rows,
                        tell,
                        controls=out == arguments.out and not arguments.no_controls,
                    )
                    if part == "table1"
                    else figure_eight(setting, variant, rows, tell, arguments.share or SWEEP)
                )
                for _ in found:
                    save(results, out)
        elif part == "table2":
            results[part] = table_two(setting, detectors(setting, arguments), arguments.labels)
        elif part == "figure4":
            results[part] = figure_four(setting, arguments.labels)
        else:
            results[part] = figure_seven(setting, arguments.labels)
        save(results, out)
    return results


def detectors(setting: Setting, arguments: argparse.Namespace) -> dict[str, Thresholds]:
    """The two printed detectors, and those of files."""
    found = {
        f"`{name}`, as printed": setting.thresholds(name)
        for name in arguments.detector or ("released", "paper")
    }
    for path in arguments.thresholds:
        found[f"`{path.stem}`"] = Thresholds.load(path)
    return found


def save(results: dict[str, Any], path: Path) -> None:
    """Write the results, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()
