"""``asced report``: one self-contained page."""

from __future__ import annotations

from typing import Any

import click

from asced_analysis.report.options import ReportOptions
from asced_cli import completion
from asced_cli.command import OutFile, asced_command, emit
from asced_cli.judging import judge_option, real_option
from asced_cli.option_classes import options_of
from asced_cli.options import note_memory

option = options_of(ReportOptions)


@asced_command(
    ("Runs alone: phases and dynamics", "asced report runs.zarr --out report.html"),
    (
        "Everything there is",
        "asced report runs.zarr --thresholds thresholds.json --replay "
        "corrected.zarr --evaluation evaluation.json --out report.html",
    ),
    (
        "For a wiki",
        "asced report runs.zarr --thresholds thresholds.json --out report.md",
    ),
    sections={
        "Judge": "evaluation compare pipeline judge real",
        "Form": "gallery overwrite",
    },
)
@click.argument("runs", shell_complete=completion.stores)
@option("thresholds", shell_complete=completion.files(".json"))
@option("replay", shell_complete=completion.stores)
@option("evaluation", shell_complete=completion.files(".json"))
@option(
    "compare",
    shell_complete=completion.files(".json"),
    multiple=True,
    help="Evaluation of another correction of the same runs. Repeatable.",
)
@option("remedies", shell_complete=completion.files(".json"))
@option("pipeline", shell_complete=completion.pipelines)
@judge_option
@real_option
@click.option(
    "--out", required=True, type=OutFile(".html", ".md"), help="File to write: .html or .md."
)
@option("gallery", type=click.IntRange(min=0))
@option("overwrite")
def command(runs: str, out: str, **more: Any) -> None:
    """Write one page about RUNS: a single file that needs no network."""
    from asced_analysis.report import write_report

    detecting: tuple[Any, ...] = ()
    if more["thresholds"]:
        from asced_analysis.thresholds.document import Thresholds

        thresholds = Thresholds.load(more["thresholds"])
        detecting = (thresholds.variant, thresholds.parameters)
    note_memory(runs, *detecting, statistics=True)
    path = write_report(runs, out, **more)
    size = path.stat().st_size
    emit(
        {"out": str(path), "bytes": size},
        table=[("written", str(path)), ("size", f"{size / 1e6:.1f} MB")],
    )
