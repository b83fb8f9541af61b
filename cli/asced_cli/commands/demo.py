"""``asced demo``: the whole path on the embedded model, from recording to report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from asced_cli.command import Command
from asced_cli.options import emit, examples, json_option, progress_callback

OTHERS: dict[str, dict[str, Any]] = {
    "ttc": {"strategy": "ttc"},
    "best": {"strategy": "best_of", "draws": 2},
}
"""Corrections beside the thresholds' own."""


@click.command(
    cls=Command,
    epilog=examples(
        ("The whole path, with a report at its end", "asced demo --out demo --runs 512"),
    ),
    context_settings={"max_content_width": 100},
)
@click.option("--out", type=click.Path(path_type=Path), default="asced-demo", show_default=True)
@click.option("--runs", type=click.IntRange(min=1), default=512, show_default=True)
@click.option("--steps", type=click.IntRange(min=2), default=25, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--false-alarm-rate", type=float, default=0.05, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace an earlier demo in the same folder.")
@json_option
def command(
    out: Path,
    runs: int,
    steps: int,
    batch_size: int,
    seed: int,
    false_alarm_rate: float,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Record, analyse, calibrate, replay, evaluate and report on the embedded model `fashion`."""
    from asced_analysis import (
        Thresholds,
        calibrate,
        evaluate,
        open_runs,
        segment_phases,
        step_statistics,
    )
    from asced_analysis.replay import replay
    from asced_analysis.report import write_report
    from asced_analysis.report.corrections import compared
    from asced_analysis.report.sections import phases_in_words
    from asced_analysis.statistics.saving import save
    from asced_recorders import record
    from asced_stores.errors import InputError, StoreError
    from asced_stores.files import check_folder

    check_folder(out)
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise InputError(f"{out} exists and is not empty: choose another --out or add --overwrite")
    out.mkdir(parents=True, exist_ok=True)
    files = {
        name: out / name
        for name in (
            "runs.zarr",
            "stats.zarr",
            "phases.json",
            "thresholds.json",
            "corrected.zarr",
            "evaluation.json",
            "ttc.zarr",
            "ttc.json",
            "best.zarr",
            "best.json",
            "report.html",
        )
    }
    seconds: dict[str, float] = {}
    results: dict[str, str] = {}

    @contextmanager
    def stage(name: str, what: str) -> Iterator[None]:
        click.echo(f"{name:<10} {what} ...", err=True)
        started = time.monotonic()
        yield
        seconds[name] = time.monotonic() - started

    with (
        stage("record", f"{runs} runs of fashion in {steps} steps"),
        progress_callback("  runs") as bar,
    ):
        store = record(
            "fashion",
            files["runs.zarr"],
            runs=runs,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            overwrite=overwrite,
            progress=lambda event: bar(event.get("done", 0), runs) if bar else None,
        )
        results["record"] = f"{runs} runs, {len(store.committed_batches())} batches"
    with stage("verify", "every chunk against its checksum"):
        verified = store.verify()
        if not verified.ok:
            raise StoreError(f"{store.path} is damaged: {verified.problems[0]}")
        results["verify"] = "all chunks match"
    runs_dataset = open_runs(files["runs.zarr"])
    with stage("stats", "exact medians and quantiles of the dynamics by step"):
        statistics = step_statistics(runs_dataset)
        save(statistics, files["stats.zarr"], overwrite=overwrite)
        results["stats"] = f"{int(statistics['count'].max()):,} values a step"
    with stage("phases", "Profiling | Mutation | Refinement"):
        phases = segment_phases(runs_dataset)
        save(phases, files["phases.json"], overwrite=overwrite)
        results["phases"] = phases_in_words(phases)
    with stage(
        "calibrate",
        f"learn how runs end badly; false-alarm rate {false_alarm_rate:g}",
    ):
        thresholds = calibrate(
            files["runs.zarr"],
            "outcome",
            method="outcome",
            false_alarm_rate=false_alarm_rate,
            teacher="committee",  # brought along with fashion, with real images behind it
            outcome={"within_content": False},
        )
        thresholds.save(files["thresholds.json"], overwrite=overwrite)
        guarantee = thresholds.guarantee
        results["calibrate"] = (
            f"promised {guarantee.promised:.1%}, measured {guarantee.measured:.1%} "
            f"on {guarantee.report} held-out runs"
        )
    with (
        stage("replay", "flagged runs again, what is drawn in them re-noised"),
        progress_callback("  runs") as bar,
    ):
        corrected = replay(
            files["runs.zarr"],
            files["corrected.zarr"],
            thresholds=Thresholds.load(files["thresholds.json"]),
            overwrite=overwrite,
            progress=bar,
        )
        flagged = int(open_runs(corrected.path)["flagged"].sum())
        results["replay"] = f"{flagged} of {runs} runs flagged and corrected"
    with (
        stage("evaluate", "against the judge, with three controls"),
        progress_callback("  parts") as bar,
    ):
        evaluation = evaluate(files["runs.zarr"], files["corrected.zarr"], progress=bar)
        evaluation.save(files["evaluation.json"], overwrite=overwrite)
        results["evaluate"] = evaluation.summary()
    others = []
    with stage("compare", "the same runs by TTC, and the better of two draws"):
        for name, options in OTHERS.items():
            twin = replay(
                files["runs.zarr"],
                files[f"{name}.zarr"],
                thresholds=Thresholds.load(files["thresholds.json"]),
                only_flagged=True,
                overwrite=overwrite,
                **options,
            )
            others.append(evaluate(files["runs.zarr"], twin, controls=name == "ttc"))
            others[-1].save(files[f"{name}.json"], overwrite=overwrite)
        results["compare"] = f"{len(others)} other corrections of the same runs"
    with stage("report", "one page"):
        write_report(
            files["runs.zarr"],
            files["report.html"],
            thresholds=thresholds,
            replay=files["corrected.zarr"],
            evaluation=evaluation,
            compare=others,
            phases=phases,
            statistics=statistics,
            overwrite=overwrite,
        )
        results["report"] = str(files["report.html"])
    table = [(name, f"{seconds[name]:6.1f} s  {results[name]}") for name in seconds]
    corrections = [(row[0], row[1]) for row in compared(evaluation, *others).rows]
    result: dict[str, Any] = {
        "seconds": seconds,
        "files": {name: str(path) for name, path in files.items()},
        "flagged": flagged,
        "runs": runs,
        "corrections": dict(corrections),
    }
    rows = [*table, ("total", f"{sum(seconds.values()):6.1f} s"), *corrections]
    emit(result, as_json=as_json, table=rows)
