"""``asced phases``: the boundaries Profiling | Mutation | Refinement."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from asced_cli.command import FIGURE, SHARE, OutFile, asced_command, emit
from asced_cli.options import note_memory, store_argument

if TYPE_CHECKING:
    from asced_analysis.phases.segmentation import Boundary, Phases


@asced_command(
    (
        "Boundaries and a picture of them",
        "asced phases runs.zarr --out phases.json --plot phases.png",
    ),
)
@store_argument
@click.option(
    "--out", type=OutFile(".json"), help="Write boundaries, intervals and curves (*.json)."
)
@click.option("--plot", type=FIGURE, help="Draw the activity curve (*.png, *.svg, *.pdf).")
@click.option(
    "--cutoff", type=float, default=5.0, show_default=True, help="Robust units of an active pixel."
)
@click.option(
    "--unit",
    type=click.Choice(["step", "run"]),
    default="step",
    show_default=True,
    help="Robust unit of the run at each step, or over all its steps.",
)
@click.option(
    "--confidence", type=SHARE, default=0.95, show_default=True, help="Confidence of the intervals."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def command(store: str, out: str | None, plot: str | None, overwrite: bool, **options: Any) -> None:
    """Find where Mutation and Refinement begin in the runs of STORE, with intervals."""
    from asced_analysis.phases.segmentation import segment_phases
    from asced_analysis.statistics.saving import save
    from asced_stores import open_runs

    ds = open_runs(store)
    note_memory(ds)
    phases = segment_phases(ds, **options, progress=sys.stderr.isatty())
    if out:
        save(phases, out, overwrite=overwrite)
    if plot:
        from asced_analysis import plots

        plots.save_figure(plots.phase_curve(phases), plot)
    result = json.loads(phases.to_json(per_run=False))
    emit(result, _table(phases), written=[out, plot])


def _table(phases: Phases) -> list[tuple[str, str]]:
    """The boundaries as people read them."""
    return [
        ("runs", str(phases.runs)),
        ("Profiling | Mutation", _row(phases.population.mutation)),
        ("Mutation | Refinement", _row(phases.population.refinement)),
        ("found", f"{phases.verdict()} Test: {phases.attributes['test']}"),
        ("intervals", f"{100 * phases.confidence:g} % by bootstrap over runs"),
    ]


def _row(boundary: Boundary) -> str:
    """Step, normalised time and log-SNR of a boundary, each with its interval."""
    if boundary.step != boundary.step:
        chance = "" if boundary.p_value != boundary.p_value else f" (p = {boundary.p_value:.2g})"
        return f"none found{chance}"
    step = "step {:.0f} [{:.0f}, {:.0f}]".format(boundary.step, *boundary.step_interval)
    time = "time {:.2f} [{:.2f}, {:.2f}]".format(
        boundary.normalised_time, *boundary.normalised_time_interval
    )
    snr = "log-SNR {:.2f} [{:.2f}, {:.2f}]".format(boundary.log_snr, *boundary.log_snr_interval)
    return f"{step}   {time}   {snr}"
