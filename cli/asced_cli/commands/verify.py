"""``asced verify``: every byte against its checksum."""

from __future__ import annotations

import click

from asced_cli.command import asced_command, emit
from asced_cli.options import progress_callback, store_argument


@asced_command(
    ("Read everything once. Status 1 if there is damage", "asced verify runs.zarr"),
    (
        "Take damaged batches out; `asced record --resume` draws them again",
        "asced verify runs.zarr --drop",
    ),
)
@store_argument
@click.option("--drop", is_flag=True, help="Take damaged batches out, to be recorded again.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 64))
def command(store: str, drop: bool, threads: int) -> int:
    """Check every chunk of a STORE against its checksum; exit status 1 where one is damaged."""
    from asced_stores import TrajectoryStore

    opened = TrajectoryStore.open(store)
    with progress_callback("verifying") as progress:
        report = opened.verify(progress, drop=drop, threads=threads)
    rows = [("damaged", str(problem)) for problem in report.problems]
    if report.dropped:
        rows.append(("dropped", f"batches {', '.join(map(str, report.dropped))}"))
    if report.missing:
        rows.append(("missing", f"{len(report.missing)} planned batches; --resume records them"))
    if report.leftovers:
        rows.append(("leftovers", f"{len(report.leftovers)} files; --resume sweeps them"))
    count = len(report.problems)
    verdict = "all is well" if report.ok else "1 problem" if count == 1 else f"{count} problems"
    read = f"{report.batches} batches, {report.runs} runs, {report.bytes / 1e6:.1f} MB"
    if report.observed:
        read += f"; observations of {report.observed} runs"
    emit(report.to_json(), table=[*rows, ("checked", read), ("result", verdict)])
    return 0 if report.ok else 1
