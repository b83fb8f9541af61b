"""``asced doctor``: whether everything is there and a pipeline can be recorded."""

from __future__ import annotations

import click

from asced_cli import completion
from asced_cli.command import Command
from asced_cli.options import emit, examples, json_option


@click.command(
    cls=Command,
    epilog=examples(
        ("The installation", "asced doctor"),
        (
            "Can this folder be recorded, and its trajectories written there?",
            "asced doctor --pipeline ./my-model --folder /scratch",
        ),
    ),
)
@click.option(
    "--pipeline",
    shell_complete=completion.pipelines,
    help="Embedded model, local folder or hub name to try.",
)
@click.option("--folder", default=".", show_default=True, help="Where stores will lie.")
@click.option("--offline", is_flag=True, help="Ask the hub for nothing.")
@json_option
def command(pipeline: str | None, folder: str, offline: bool, as_json: bool) -> int:
    """Check versions, devices, disk and whether a pipeline can be recorded.

    Ends with status 1 if there is a problem.
    """
    from asced_recorders.recording.checks import examine

    checks = list(examine(folder, pipeline, local_files_only=offline))
    problems = sum(check.state == "problem" for check in checks)
    result = {
        "problems": problems,
        "checks": [
            {"name": check.name, "state": check.state, "found": check.found} for check in checks
        ],
    }
    marks = {"ok": "  ", "warning": "? ", "problem": "! "}
    table = [(marks[check.state] + check.name, check.found) for check in checks]
    emit(result, as_json=as_json, table=table)
    return 1 if problems else 0
