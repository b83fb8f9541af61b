"""``asced demo``: the whole path on the embedded model or on one's own, recording to report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asced_cli import completion
from asced_cli.command import SHARE, OutFile, asced_command, emit


@asced_command(
    ("The whole path, with a report at its end", "asced demo --out demo --runs 128 --steps 12"),
    ("On a model of your own", "asced demo --pipeline ./my-model --out mine"),
    (
        "With prompts and real images of your own",
        "asced demo --pipeline ./my-model --prompts prompts.txt --real photos --out mine",
    ),
    sections={"Your own pipeline": "pipeline prompts classes real"},
    remote=False,
)
@click.option("--out", type=OutFile(folder=True), default="asced-demo", show_default=True)
@click.option("--runs", type=click.IntRange(min=1), help="[default: 512, of your own model 200]")
@click.option("--steps", type=click.IntRange(min=2), help="[default: the model's, at most 25]")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="[default: 64; 16 of your own; 4 of latents]"
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--false-alarm-rate", "rate", type=SHARE, default=0.05, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace an earlier demo in the same folder.")
@click.option(
    "--pipeline",
    default="fashion",
    show_default=True,
    shell_complete=completion.pipelines,
    help="Embedded model, local folder or hub name.",
)
@click.option(
    "--prompts",
    metavar="FILE",
    help="One a line. [default: plain scenes, one a run, all different]",
)
@click.option("--classes", default="", metavar="NUMBERS", help="Such as 3,7. [default: all]")
@click.option("--real", help="Real images: a folder, .npz or Zarr. Half of them teach, half judge.")
def command(out: str, overwrite: bool, classes: str, **asked: Any) -> None:
    """Record, analyse, calibrate, replay, evaluate and report on a model, by default `fashion`.

    Without real images the model itself teaches, and the judge says what is typical of it.
    """
    from asced_analysis.report import write_report
    from asced_analysis.report.corrections import compared
    from asced_cli.demo_stages import plan_demo
    from asced_stores.errors import InputError

    folder = Path(out)
    numbers = [int(one) for one in classes.split(",") if one.strip()]
    demo = plan_demo(out=folder, overwrite=overwrite, classes=numbers, **asked)
    if demo.embedded and demo.real:
        raise InputError("the embedded model has its own teacher and judge: leave --real out")
    folder.mkdir(parents=True, exist_ok=True)
    demo.record()
    statistics, phases = demo.analyse()
    pipe = None if demo.embedded else _loaded(demo.pipeline)
    thresholds = demo.calibrate(pipe)
    flagged = demo.replay(thresholds, pipe)
    evaluation = demo.evaluate(pipe) if flagged else None
    others = demo.compare(thresholds, pipe) if evaluation is not None else []
    with demo.stage("report", "one page"):
        write_report(
            demo.file("runs.zarr"),
            demo.file("report.html"),
            thresholds=thresholds,
            replay=None if evaluation is None else demo.file("corrected.zarr"),
            evaluation=evaluation,
            compare=others,
            phases=phases,
            statistics=statistics,
            pipeline=pipe,
            overwrite=overwrite,
        )
        demo.results["report"] = str(demo.file("report.html"))
    seconds, results = demo.seconds, demo.results
    table = [(name, f"{seconds[name]:6.1f} s  {results[name]}") for name in seconds]
    corrections = [] if evaluation is None else [*compared(evaluation, *others).rows]
    result: dict[str, Any] = {
        "seconds": seconds,
        "files": {name: str(path) for name, path in demo.files.items()},
        "flagged": flagged,
        "runs": demo.runs,
        "corrections": {row[0]: row[1] for row in corrections},
    }
    total = ("total", f"{sum(seconds.values()):6.1f} s")
    emit(result, table=[*table, total, *((row[0], row[1]) for row in corrections)])


def _loaded(name: str) -> Any:
    from asced_recorders import load_pipeline

    pipe = load_pipeline(name)
    pipe.set_progress_bar_config(disable=True)
    return pipe
