"""``asced doctor``: whether everything is there, and what can be done with a pipeline."""

from __future__ import annotations

import click

from asced_cli import completion
from asced_cli.command import asced_command, emit


@asced_command(
    ("The installation", "asced doctor"),
    ("What can be done with this pipeline?", "asced doctor ./my-model --folder /scratch"),
    remote=False,
)
@click.argument("name", required=False, shell_complete=completion.pipelines, metavar="[PIPELINE]")
@click.option("--pipeline", shell_complete=completion.pipelines, help="The same as PIPELINE.")
@click.option(
    "--steps", type=click.IntRange(min=2), help="Steps of a run. [default: the pipeline's]"
)
@click.option("--folder", default=".", show_default=True, help="Where stores will lie.")
@click.option("--offline", is_flag=True, help="Never contact the hub.")
def command(
    name: str | None,
    pipeline: str | None,
    steps: int | None,
    folder: str,
    offline: bool,
) -> int:
    """Check versions, devices and disk; of a PIPELINE, what can be done with it.

    PIPELINE is an embedded model, a local folder or a hub name. It is tried: a few short runs are
    recorded in memory, in batches where that takes less than a minute. Ends with status 1 if
    there is a problem.
    """
    from asced_analysis.replay.capabilities import capabilities
    from asced_recorders.recording.checks import examine
    from asced_stores.errors import InputError

    if name is not None and pipeline is not None:
        raise InputError("the pipeline is given twice: leave --pipeline out")
    checks = list(
        examine(folder, name or pipeline, steps=steps, more=capabilities, local_files_only=offline)
    )
    problems = sum(check.state == "problem" for check in checks)
    result = {
        "problems": problems,
        "checks": [
            {"name": check.name, "state": check.state, "found": check.found} for check in checks
        ],
    }
    marks = {"ok": "  ", "warning": "? ", "problem": "! "}
    table = [(marks[check.state] + check.name, check.found) for check in checks]
    emit(result, table=table)
    return 1 if problems else 0
