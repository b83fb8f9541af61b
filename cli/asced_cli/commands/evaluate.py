"""``asced evaluate``: what a correction did, as a judge sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from asced_analysis.evaluation.options import EvaluateOptions
from asced_cli import completion
from asced_cli.command import OutFile, asced_command, emit
from asced_cli.judging import better_option, judge_option, real_option
from asced_cli.option_classes import all_options
from asced_cli.options import progress_callback, sampler_options


@all_options(EvaluateOptions)
@asced_command(
    (
        "Runs against their corrected versions, with three controls",
        "asced evaluate runs.zarr corrected.zarr --out evaluation.json",
    ),
    ("How realistic recorded runs are, alone", "asced evaluate runs.zarr --out quality.json"),
    (
        "Of a pipeline of one's own",
        "asced evaluate runs.zarr corrected.zarr --pipeline ./my-model --out evaluation.json",
    ),
    sections={"The model, for controls": "pipeline loop call_options network"},
)
@click.argument("runs", shell_complete=completion.stores)
@click.argument("corrected", shell_complete=completion.stores, required=False)
@click.option("--out", type=OutFile(".json"), help="File to write (*.json).")
@judge_option
@real_option
@click.option(
    "--outcomes",
    multiple=True,
    metavar="FILE",
    help="Judge by scores (CSV or Parquet) or masks of broken places (folder, COCO .json, .npz) "
    "instead of features. Give it twice: for RUNS, then for CORRECTED.",
)
@better_option
@click.option(
    "--controls/--no-controls",
    default=True,
    show_default=True,
    help="Of a replay: correct the flagged runs at wrong places too, to compare with.",
)
@sampler_options
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def command(
    runs: str,
    corrected: str | None,
    out: str | None,
    outcomes: tuple[str, ...],
    overwrite: bool,
    **more: Any,
) -> None:
    """Compare CORRECTED, a replay or any other store, with RUNS; or judge RUNS alone."""
    from asced_analysis.evaluation import evaluate, quality
    from asced_stores.errors import InputError
    from asced_stores.files import write_json

    if corrected is None and outcomes:
        raise InputError("--outcomes judges two stores: give CORRECTED as well, and a file of each")
    if corrected is None:
        alone = quality(runs, judge=more["judge"], real=more["real"])
        if out:
            write_json(out, alone, overwrite=overwrite)
        emit(alone, rows_of(alone), written=[out])
        return
    with progress_callback("evaluate") as tell:
        result = evaluate(runs, corrected, outcomes=outcomes or None, progress=tell, **more)
    if out:
        result.save(out, overwrite=overwrite)
    emit(result.to_dict(), result.table(), written=[out])


def rows_of(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of the quality of runs alone."""
    from asced_analysis.evaluation.intervals import Estimate

    for name, value in figures.items():
        text = str(value)
        if name == "reference":
            images = f", {value['images']:,} images" if value["images"] else ""
            yield "compared with", f"{value['source']}{images}"
            continue
        if isinstance(value, Mapping) and "value" in value:
            text = str(Estimate(**value))
        yield name.replace("_", " "), text
