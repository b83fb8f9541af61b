"""``asced audit``: whether recorded trajectories obey their own schedule."""

from __future__ import annotations

import sys

import click

from asced_cli.command import FIGURE, SHARE, as_json, asced_command, emit
from asced_cli.options import note_memory, store_argument


@asced_command(
    ("A table by step, and what is wrong", "asced audit runs.zarr"),
    ("With a picture, and for machines", "asced audit runs.zarr --plot audit.png --json"),
)
@store_argument
@click.option("--plot", type=FIGURE, help="Picture of the curves to write (*.png, *.svg, *.pdf).")
@click.option(
    "--confidence", type=SHARE, default=0.99, show_default=True, help="Confidence of the intervals."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing picture.")
def command(store: str, plot: str | None, confidence: float, overwrite: bool) -> int:
    """Check whether the samples of STORE fit the noise levels of their schedule.

    Names each finding with its likely cause; the exit status is 1 then.
    """
    from asced_analysis.audit import audit
    from asced_stores import open_runs

    ds = open_runs(store, statuses=("complete", "failed"))
    note_memory(ds)
    found = audit(ds, confidence=confidence, progress=sys.stderr.isatty())
    if plot:
        from asced_analysis import plots

        plots.save_figure(plots.audit_curves(found), plot)
    if as_json():
        emit({**found.to_dict(), "plot": plot})
    else:
        click.echo(str(found))
        if plot:
            click.echo(f"written {plot}")
    return 0 if found.sound else 1
