"""``asced merge``: join stores."""

from __future__ import annotations

import click

from asced_cli import completion
from asced_cli.command import OutStore, asced_command, emit
from asced_cli.options import progress_callback


@asced_command(
    (
        "Two days of recording as one store",
        "asced merge monday.zarr tuesday.zarr --out both.zarr",
    ),
)
@click.argument(
    "stores", shell_complete=completion.stores, metavar="STORE...", nargs=-1, required=True
)
@click.option("--out", required=True, type=OutStore(), metavar="STORE", help="The new store.")
@click.option("--overwrite", is_flag=True, help="Replace a store that lies there.")
def command(stores: tuple[str, ...], out: str, overwrite: bool) -> None:
    """Join STOREs of the same fingerprint into a new one, without reading their data."""
    from asced_stores import TrajectoryStore
    from asced_stores.copying.merging import merge

    opened = [TrajectoryStore.open(store) for store in stores]
    with progress_callback("merging") as progress:
        merged = merge(opened, out, overwrite=overwrite, progress=progress)
    result = {"out": out, "runs": merged.planned_runs, "batches": merged.batches}
    emit(
        result,
        table=[("merged", f"{merged.planned_runs} runs in {merged.batches} batches, {out}")],
    )
