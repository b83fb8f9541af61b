"""``asced push``: thresholds or runs to the Hugging Face Hub."""

from __future__ import annotations

import click

from asced_cli import completion
from asced_cli.command import asced_command, emit


@asced_command(
    ("Thresholds, to a model repository", "asced push thresholds.json owner/name"),
    ("Runs, to a dataset repository", "asced push runs.zarr owner/name"),
    remote=False,
)
@click.argument("path", shell_complete=completion.stores_and_thresholds, metavar="PATH")
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--public", is_flag=True, help="Make a new repository public.")
@click.option("--no-card", is_flag=True, help="Leave the README of the repository as it is.")
def command(path: str, repository: str, public: bool, no_card: bool) -> None:
    """Put thresholds or a store into a repository of the Hub, with a card.

    A repository that is missing is made, private unless --public. Log in first with `hf auth
    login`, or set HF_TOKEN. Cut short, the same command goes on.
    """
    from asced_analysis.export.hub import push

    at = push(path, repository, public=public, card=not no_card)
    result = {"repository": at.repo, "path": at.path, "reference": str(at)}
    emit(result, table=[("pushed", str(at))])
