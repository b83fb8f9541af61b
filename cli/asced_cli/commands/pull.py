"""``asced pull``: thresholds or runs from the Hugging Face Hub."""

from __future__ import annotations

import click

from asced_cli.command import asced_command, emit


@asced_command(
    ("Thresholds", "asced pull owner/name thresholds.json"),
    ("Runs, as a certain commit had them", "asced pull owner/name@1f3c2a7 runs.zarr"),
    ("One of several stores", "asced pull owner/name/corrected.zarr corrected.zarr"),
    remote=False,
)
@click.argument("repository", metavar="OWNER/NAME")
@click.argument("target", metavar="OUT")
@click.option("--overwrite", is_flag=True, help="Replace what lies there.")
def command(repository: str, target: str, overwrite: bool) -> None:
    """Bring thresholds (OUT.json) or a store (OUT.zarr) from a repository of the Hub.

    Cut short, the same command goes on.
    """
    from asced_analysis.export.hub import pull

    path = pull(repository, target, overwrite=overwrite)
    emit({"out": str(path)}, written=[str(path)])
