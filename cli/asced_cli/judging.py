"""Options of who judges and who teaches, the same for every command that has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from asced_cli import completion
from asced_cli.options import function_named

F = TypeVar("F", bound=Callable[..., Any])
NAMES = ("patches", "imagenet", "judge", "teacher", "committee")

FEATURES = (
    "patches, imagenet, a vision model that transformers loads (hub name or folder), or "
    "FILE.py:FUNCTION; judge, teacher and committee are those of fashion."
)

real_option = click.option(
    "--real",
    metavar="FOLDER",
    help="Real images to compare with: a folder, .npz or .zarr; cropped about the centre, scaled "
    "to the runs' size, one half for teachers, one for judges.",
)


def complete_features(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names that begin so."""
    from asced_analysis.realism.registry import further_names

    names = (*NAMES, *further_names())
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class FeaturesOption(click.Option):
    """An option of a kind of features; its help ends with the names of further kinds."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Add the names, which are known only when help is asked for."""
        from asced_analysis.realism.registry import further_names

        record, further = super().get_help_record(ctx), further_names()
        if record is None or not further:
            return record
        return record[0], f"{record[1]}  Also: {', '.join(further)}."


judge_option = click.option(
    "--judge",
    cls=FeaturesOption,
    metavar="FEATURES",
    shell_complete=complete_features,
    help=f"Features of the judge: {FEATURES}",
)
better_option = click.option(
    "--better",
    type=click.Choice(["lower", "higher"]),
    default="lower",
    show_default=True,
    help="Whether low or high scores of --outcomes are good.",
)


def teacher_options(function: F) -> F:
    """Add who says how runs ended, for learning from outcomes."""
    options = (
        click.option(
            "--teacher",
            cls=FeaturesOption,
            metavar="NAME",
            shell_complete=complete_features,
            help="Who says how runs ended: self-consistency (the model itself; default), or with "
            f"--real (default patches) features: {FEATURES}",
        ),
        real_option,
        click.option(
            "--network",
            metavar="FILE.py:FUNCTION",
            callback=function_named,
            help="f(sample, alpha, sigma) to predicted x0, for self-consistency of a loop that no "
            "pipeline describes.",
        ),
        click.option(
            "--outcomes",
            shell_complete=completion.files(".csv"),
            help="CSV or Parquet with columns run and score, or masks of broken places: these "
            "teach instead.",
        ),
        better_option,
        click.option(
            "--outcome-masks",
            "masks",
            help="Masks of broken places (folder of <run>.png, COCO .json, .npz) beside the scores "
            "of --outcomes.",
        ),
        click.option(
            "--within-content/--keep-content",
            default=None,
            help="Subtract what content explains of the outcomes.  [default: if it is over 5 %]",
        ),
        click.option(
            "--content",
            cls=FeaturesOption,
            metavar="FEATURES",
            shell_complete=complete_features,
            help="Runs that are nearest in these features count as alike in content, too. The "
            "features must not show what is broken.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function
