"""``asced export``: thresholds for other deployments."""

from __future__ import annotations

import click

from asced_cli import completion
from asced_cli.command import Command
from asced_cli.options import emit, endpoint_option, examples, json_option


@click.command(
    cls=Command,
    epilog=examples(
        (
            "A folder from which a port in any language can be written and checked",
            "asced export thresholds.json --target bundle --out detector/",
        ),
        (
            "A torch program that runs without this package",
            "asced export thresholds.json --target torch --out detector.pt2",
        ),
        ("The schema of the thresholds file", "asced export --target schema --out schema.json"),
    ),
)
@click.argument("thresholds", shell_complete=completion.files(".json"), required=False)
@click.option(
    "--target",
    required=True,
    type=click.Choice(["bundle", "torch", "schema"]),
    help="bundle: a folder for ports; torch: a torch.export program; schema: of the file itself.",
)
@click.option("--out", required=True, help="Folder (bundle) or file to write.")
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
@endpoint_option
@json_option
def command(thresholds: str | None, target: str, out: str, overwrite: bool, as_json: bool) -> None:
    """Export THRESHOLDS (not needed for the schema) to another form."""
    from asced_analysis.export import export_bundle, export_program, export_schema
    from asced_analysis.thresholds.document import Thresholds
    from asced_stores.errors import InputError
    from asced_stores.files import check_out

    check_out(out, overwrite=overwrite, folder=target == "bundle")
    if target == "schema":
        path = export_schema(out, overwrite=overwrite)
    elif thresholds is None:
        raise InputError(f"the target {target} needs a thresholds file as its first argument")
    elif target == "bundle":
        path = export_bundle(Thresholds.load(thresholds), out, overwrite=overwrite)
    else:
        path = export_program(Thresholds.load(thresholds), out, overwrite=overwrite)
    emit({"target": target, "out": str(path)}, as_json=as_json, table=[("written", str(path))])
