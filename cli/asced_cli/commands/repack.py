"""``asced repack``: rewrite a store."""

from __future__ import annotations

from typing import Any

import click

from asced_cli.command import OutStore, asced_command, emit
from asced_cli.options import progress_callback, store_argument


@asced_command(
    ("Smaller batches", "asced repack runs.zarr --batch-size 16 --out repacked.zarr"),
    (
        "Chunks for reading one step of all runs",
        "asced repack runs.zarr --chunk-bytes 32768 --out by-step.zarr",
    ),
)
@store_argument
@click.option("--dtype", type=click.Choice(["float16", "float32"]), help="Precision of eps and x0.")
@click.option("--batch-size", type=click.IntRange(1), help="Runs in a shard.")
@click.option("--chunk-bytes", type=click.IntRange(1), help="Limit of the inner chunks.")
@click.option("--out", required=True, type=OutStore(), metavar="STORE", help="The new store.")
@click.option("--overwrite", is_flag=True, help="Replace a store that lies there.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted rewriting.")
def command(store: str, out: str, **options: Any) -> None:
    """Rewrite a STORE to another layout or precision; the old one is only read."""
    from asced_stores import TrajectoryStore
    from asced_stores.copying.selecting import repack

    source = TrajectoryStore.open(store)
    with progress_callback("repacking") as progress:
        made = repack(source, out, **options, progress=progress)
    result = {"out": out, "runs": made.planned_runs, "batches": made.batches}
    emit(
        result,
        table=[("rewritten", f"{made.planned_runs} runs in {made.batches} batches, {out}")],
    )
