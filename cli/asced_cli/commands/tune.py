"""``asced tune``: choose step and strength of a correction, or what helps most at equal cost."""

from __future__ import annotations

from typing import Any

import click

from asced_analysis.evaluation.options import RemedyOptions, TuneOptions
from asced_cli import completion
from asced_cli.command import OutFile, asced_command, emit, note_unkept
from asced_cli.judging import judge_option, real_option
from asced_cli.option_classes import ListOf, all_options, options_of
from asced_cli.options import progress_callback, sampler_options, store_argument

option, remedy_option = options_of(TuneOptions), options_of(RemedyOptions)
NAMES = ListOf(str, "names, for example ttc,renoise")


@all_options(TuneOptions)
@asced_command(
    (
        "Choose step and strategy; on other runs than those you will report",
        "asced tune runs.zarr --thresholds thresholds.json --out tuned.json",
    ),
    (
        "Which sampler, steps, guidance, correction or pruning helps at this cost",
        "asced tune runs.zarr --remedies --budget 14 --runs 8 --out remedies.json",
    ),
    sections={
        "Candidates": "steps strengths strategies regions share",
        "Remedies": "remedies budget runs",
        "The file": "overwrite endpoint",
    },
)
@store_argument
@click.option(
    "--thresholds",
    shell_complete=completion.files(".json"),
    help="Thresholds to choose a correction for. With --remedies: to try corrections and pruning.",
)
@click.option(
    "--out",
    type=OutFile(".json"),
    help="Thresholds with the chosen correction, or the table of remedies (*.json).",
)
@click.option(
    "--remedies",
    is_flag=True,
    help="Try samplers, steps, guidance, corrections and pruning; confirm the best on fresh seeds.",
)
@remedy_option("budget", help="Evaluations an image.  [default: twice the steps]")
@remedy_option("runs")
@option("steps", type=ListOf(int, "whole numbers, for example 8,12"))
@option("strengths", type=ListOf(float, "numbers, for example 0,0.1"), default="0")
@option("strategies", type=NAMES, default="ttc,renoise")
@option("regions", type=NAMES, default="everywhere,foreground")
@judge_option
@real_option
@sampler_options
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def command(
    store: str,
    thresholds: str | None,
    out: str | None,
    remedies: bool,
    budget: int | None,
    runs: int,
    overwrite: bool,
    **more: Any,
) -> None:
    """Try corrections on the runs of STORE with the highest scores, and keep the best.

    With --remedies: try samplers, steps, guidance, noise normalisation, corrections and pruning,
    each at no more than --budget evaluations an image.
    """
    from asced_analysis.evaluation.tuning import tune
    from asced_stores.errors import InputError

    note_unkept(out)
    if remedies:
        if more["loop"] is not None:
            raise InputError(
                "--remedies needs a pipeline, since a loop is given no other sampler: give "
                "--pipeline instead of --loop, or leave --remedies out"
            )
        shared = ("judge", "real", "pipeline", "loop", "call_options", "network")
        _remedies(
            store,
            out,
            overwrite=overwrite,
            thresholds=thresholds,
            budget=budget,
            runs=runs,
            **{name: more[name] for name in shared},
        )
        return
    if thresholds is None:
        raise InputError("give --thresholds (asced calibrate), or --remedies")
    with progress_callback("tune") as tell:
        result = tune(store, thresholds, progress=tell, **more)
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
        table=[
            ("judge", f"{result.judge}: {result.reference}"),
            ("runs", str(result.runs)),
            ("change of local distance", "lower is better"),
            *rows,
        ],
        written=[out],
    )


def _remedies(store: str, out: str | None, *, overwrite: bool, **options: Any) -> None:
    """Try remedies and print the table, and what to write to get the best."""
    from asced_analysis.evaluation.remedies.trying import try_remedies
    from asced_stores.files import write_json

    with progress_callback("remedies") as tell:
        found = try_remedies(store, progress=tell, **options)
    if out:
        write_json(out, found.to_dict(), overwrite=overwrite)
    rows = [(title, "   ".join(rest)) for title, *rest in found.table()]
    emit(
        {**found.to_dict(), "out": out},
        table=[
            ("judge", f"{found.judge}: {found.reference}; chosen by {found.chooser}"),
            *rows,
            *((f"not tried: {title}", why) for title, why in found.skipped.items()),
            ("", found.verdict()),
            *(("to get it", line) if not at else ("", line) for at, line in _lines(found.code)),
        ],
        written=[out],
    )


def _lines(code: str) -> list[tuple[int, str]]:
    return list(enumerate(code.splitlines()))
