"""``asced detect``: flag runs and regions by calibrated thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from asced_cli import completion
from asced_cli.command import OutFile, asced_command, emit
from asced_cli.options import function_named, note_memory, pipeline_option, store_argument

if TYPE_CHECKING:
    from asced_analysis.thresholds.document import Thresholds


@asced_command(
    (
        "Which runs, as a table",
        "asced detect runs.zarr --thresholds thresholds.json --out flags.csv",
    ),
    (
        "The masks as well",
        "asced detect runs.zarr --thresholds thresholds.json --out flags.npz",
    ),
    (
        "With thresholds with a lookahead, on a pipeline of your own",
        "asced detect runs.zarr --thresholds lookahead.json --pipeline path/to/pipeline",
    ),
)
@store_argument
@click.option(
    "--thresholds",
    "path",
    shell_complete=completion.files(".json"),
    required=True,
    help="Thresholds file.",
)
@click.option(
    "--out",
    type=OutFile(".csv", ".npz"),
    help="Write run, score and flag (*.csv), or the masks too (*.npz).",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("--override", is_flag=True, help="Use thresholds of another model anyway.")
@pipeline_option
@click.option(
    "--network",
    metavar="FILE.py:FUNCTION",
    callback=function_named,
    help="f(sample, alpha, sigma) -> predicted x0, instead of a pipeline.",
)
def command(store: str, path: str, out: str | None, overwrite: bool, **more: Any) -> None:
    """Flag the runs of STORE whose score lies above the thresholds' level.

    Thresholds with a lookahead evaluate the model: the one that the store names, or --pipeline.
    """
    from asced_analysis.detection.apply import detect
    from asced_analysis.detection.external import write_detections
    from asced_analysis.thresholds.document import Thresholds
    from asced_stores import open_runs

    runs, thresholds = open_runs(store), Thresholds.load(path)
    note_memory(runs, thresholds.variant, thresholds.parameters)
    found = detect(runs, thresholds, **more)
    result = write_detections(found, out, overwrite=overwrite)
    emit(
        result,
        table=[
            ("runs", str(result["runs"])),
            ("flagged", f"{result['flagged']} ({result['share']:.1%})"),
            ("level", f"{result['level']:.4g}{_own_levels(thresholds)}"),
            ("flagged runs", ", ".join(str(run) for run in result["flagged_runs"][:20])),
        ],
        written=[out],
    )


def _own_levels(thresholds: Thresholds) -> str:
    """That groups have levels of their own."""
    count = len(thresholds.groups)
    return f"; {count} of {thresholds.grouped_by} with levels of their own" if count else ""
