"""``asced seal``: close a store, or open it again."""

from __future__ import annotations

import click

from asced_cli import completion
from asced_cli.command import Command
from asced_cli.options import emit, endpoint_option, examples, json_option


@click.command(
    cls=Command,
    epilog=examples(
        ("One index, so that it opens with one read", "asced seal runs.zarr"),
        ("Open it for further runs", "asced seal runs.zarr --reopen"),
    ),
)
@click.argument("store", shell_complete=completion.stores, metavar="STORE")
@click.option("--allow-gaps", is_flag=True, help="Seal although batches in the middle are missing.")
@click.option("--reopen", is_flag=True, help="Undo the seal, so that more runs can be recorded.")
@endpoint_option
@json_option
def command(store: str, allow_gaps: bool, reopen: bool, as_json: bool) -> None:
    """Close a STORE: cut it to its runs and write one index of them."""
    from asced_stores import TrajectoryStore

    opened = TrajectoryStore.open(store)
    if reopen:
        opened.reopen()
        emit({"sealed": False}, as_json=as_json, table=[("opened", f"{store}, for further runs")])
        return
    seal = opened.seal(allow_gaps=allow_gaps).sealed
    assert seal is not None
    result = {"sealed": True, "runs": seal["runs"], "batches": seal["batches"]}
    emit(
        result,
        as_json=as_json,
        table=[("sealed", f"{seal['runs']} runs in {seal['batches']} batches of {store}")],
    )
