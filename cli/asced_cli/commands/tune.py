"""``asced tune``: choose step and strength of the correction on counterfactuals."""

from __future__ import annotations

from typing import Any

import click

from asced_cli import completion
from asced_cli.command import Command, OutFile
from asced_cli.judging import judge_option, real_option
from asced_cli.options import (
    call_option,
    emit,
    endpoint_option,
    examples,
    json_option,
    loop_option,
    network_option,
    note_unkept,
    pipeline_option,
    progress_callback,
)


@click.command(
    cls=Command,
    sections={
        "Candidates": "steps strengths strategies places",
        "The file": "overwrite endpoint",
    },
    epilog=examples(
        (
            "Choose step and strategy; on other runs than those you will report",
            "asced tune runs.zarr --thresholds thresholds.json --out tuned.json",
        ),
    ),
)
@click.argument("store", shell_complete=completion.stores)
@click.option(
    "--thresholds",
    shell_complete=completion.files(".json"),
    required=True,
    help="Thresholds to choose a correction for.",
)
@click.option(
    "--out", type=OutFile(".json"), help="Thresholds with the chosen correction (*.json)."
)
@click.option("--steps", help="Candidates for T_c, separated by commas.")
@click.option("--strengths", default="0", show_default=True, help="Noise scales, by commas.")
@click.option("--strategies", default="ttc,renoise", show_default=True)
@click.option(
    "--places",
    default="everywhere,foreground",
    show_default=True,
    help="Places that renoise is tried at, by commas.",
)
@click.option("--share", type=float, default=0.25, show_default=True, help="Of the runs, to try.")
@judge_option
@real_option
@pipeline_option
@loop_option
@call_option
@network_option
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@endpoint_option
@json_option
def command(
    store: str,
    thresholds: str,
    out: str | None,
    steps: str | None,
    strengths: str,
    strategies: str,
    places: str,
    share: float,
    judge: str | None,
    real: str | None,
    pipeline: str | None,
    loop: str | None,
    call_options: dict[str, Any],
    network: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Try corrections of the most suspicious runs of STORE, and keep the best."""
    from asced_analysis.evaluation.tuning import tune
    from asced_cli.call_arguments import call_arguments
    from asced_recorders.pipelines.named_functions import named_function
    from asced_stores.errors import InputError

    note_unkept(out, as_json=as_json)
    try:
        chosen = None if steps is None else [int(step) for step in steps.split(",")]
        scales = [float(scale) for scale in strengths.split(",")]
    except ValueError as error:
        raise InputError(f"--steps and --strengths are numbers, by commas: {error}") from error
    with progress_callback("tune") as tell:
        result = tune(
            store,
            thresholds,
            steps=chosen,
            strengths=scales,
            strategies=strategies.split(","),
            places=places.split(","),
            share=share,
            judge=judge,
            real=real,
            pipeline=pipeline,
            loop=loop,
            call_options=call_arguments(call_options),
            network=None if network is None else named_function(network),
            progress=tell,
        )
    if out:
        result.thresholds.save(out, overwrite=overwrite)
    rows = [
        (
            f"{'* ' if one is result.best else '  '}{one.title}",
            f"{one.chosen_on} chosen on, {one.held_out} held out",
        )
        for one in result.candidates
    ]
    emit(
        {**result.to_dict(), "out": out},
        as_json=as_json,
        table=[
            ("judge", f"{result.judge}: {result.reference}"),
            ("runs", str(result.runs)),
            ("change of local distance", "lower is better"),
            *rows,
            *([("written", out)] if out else []),
        ],
    )
