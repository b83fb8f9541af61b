"""``asced select``: copy chosen runs."""

from __future__ import annotations

from typing import Any

import click

from asced_cli.command import OutStore, asced_command, emit
from asced_cli.options import progress_callback, store_argument


@asced_command(
    ("Some runs", "asced select runs.zarr --runs 0-99,250 --out some.zarr"),
)
@store_argument
@click.option("--runs", metavar="LIST", help="Numbers and ranges: 0-99,250. Default: all.")
@click.option("--label", type=int, multiple=True, help="Only runs of this label; repeatable.")
@click.option(
    "--status",
    type=click.Choice(["complete", "failed", "any"]),
    default="complete",
    show_default=True,
)
@click.option("--out", required=True, type=OutStore(), metavar="STORE", help="The new store.")
@click.option("--overwrite", is_flag=True, help="Replace a store that lies there.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted copy.")
def command(
    store: str, runs: str | None, label: tuple[int, ...], status: str, out: str, **options: Any
) -> None:
    """Copy chosen runs of a STORE to a new one; they keep their numbers."""
    import numpy as np

    from asced_stores import RunIndex, TrajectoryStore
    from asced_stores.copying.selecting import parse_runs, select_runs
    from asced_stores.errors import InputError

    def chosen(index: RunIndex) -> object:
        mask = np.ones(len(index), bool)
        if runs is not None:
            wanted = parse_runs(runs)
            missing = np.setdiff1d(wanted, index["run"])
            if len(missing):
                raise InputError(f"run {missing[0]} is not in {store}, or has another status")
            mask &= np.isin(index["run"], wanted)
        if label:
            mask &= np.isin(index["label"], label)
        return mask

    source = TrajectoryStore.open(store)
    with progress_callback("copying") as progress:
        statuses = ("complete", "failed") if status == "any" else (status,)
        made = select_runs(source, out, chosen, statuses=statuses, **options, progress=progress)
    result = {"out": out, "runs": made.planned_runs}
    emit(result, table=[("copied", f"{made.planned_runs} runs to {out}")])
