"""``asced seal``: close a store, or open it again."""

from __future__ import annotations

import click

from asced_cli.command import asced_command, emit
from asced_cli.options import store_argument


@asced_command(
    ("One index, so that it opens with one read", "asced seal runs.zarr"),
    ("Open it for further runs", "asced seal runs.zarr --reopen"),
)
@store_argument
@click.option("--allow-gaps", is_flag=True, help="Seal although batches in the middle are missing.")
@click.option("--reopen", is_flag=True, help="Undo the seal, so that more runs can be recorded.")
def command(store: str, allow_gaps: bool, reopen: bool) -> None:
    """Close a STORE: cut it to its runs and write one index of them."""
    from asced_stores import TrajectoryStore

    opened = TrajectoryStore.open(store)
    if reopen:
        opened.reopen()
        emit({"sealed": False}, table=[("opened", f"{store}, for further runs")])
        return
    seal = opened.seal(allow_gaps=allow_gaps).sealed
    assert seal is not None
    result = {"sealed": True, "runs": seal["runs"], "batches": seal["batches"]}
    emit(result, table=[("sealed", f"{seal['runs']} runs in {seal['batches']} batches of {store}")])
