"""``asced stats``: exact quantiles of the score dynamics by step."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from asced_cli.command import FIGURE, OutFile, asced_command, emit
from asced_cli.options import note_memory, store_argument
from asced_stores.files import ZARR

if TYPE_CHECKING:
    import xarray as xr


@asced_command(
    ("Medians, MADs and quantiles by step", "asced stats runs.zarr --out stats.zarr"),
    (
        "Another day's runs added, without reading the first ones again",
        "asced stats more.zarr --add stats.zarr --out all.zarr",
    ),
)
@store_argument
@click.option(
    "--signal",
    type=click.Choice(["weighted_score", "predicted_x0", "innovation", "eps", "x0"]),
    default="weighted_score",
    show_default=True,
    help="What to follow over the steps.",
)
@click.option(
    "--measure",
    type=click.Choice(["dynamics", "difference", "magnitude", "value"]),
    default="dynamics",
    show_default=True,
    help="|D|, signed D, |signal| or the signed signal.",
)
@click.option(
    "--quantiles",
    default="0.01,0.05,0.5,0.95,0.99",
    show_default=True,
    help="Probabilities, separated by commas.",
)
@click.option("--by", help="Group by channel, label, prompt or another coordinate of the runs.")
@click.option("--add", "added", multiple=True, metavar="STATS", help="Earlier results to add.")
@click.option(
    "--out",
    type=OutFile(".zarr", folder=True, own=ZARR),
    help="Write the statistics and counts (*.zarr).",
)
@click.option("--plot", type=FIGURE, help="Draw the dynamics curves (*.png, *.svg, *.pdf).")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def command(
    store: str,
    signal: str,
    measure: Any,
    quantiles: str,
    by: str | None,
    added: tuple[str, ...],
    out: str | None,
    plot: str | None,
    overwrite: bool,
) -> None:
    """Median, MAD and quantiles by step, over all pixels of all runs of STORE.

    Of a store made with ``asced record --keep``, the dynamics of all runs were counted while they
    were recorded, and are shown. Memory does not grow with the number of runs. The counts are
    saved with the result, so that runs of another store are added later with --add, without
    reading the old ones.
    """
    from asced_analysis.statistics.by_step import merge_statistics, step_statistics
    from asced_analysis.statistics.observing import observed_statistics
    from asced_analysis.statistics.saving import load, save
    from asced_stores import TrajectoryStore, open_runs
    from asced_stores.format.observations import has_observations

    levels = _probabilities(quantiles)
    earlier = [load(path) for path in added]
    opened = TrajectoryStore.open(store)
    ds = open_runs(opened)
    note_memory(ds)
    flight = has_observations(opened) and not str(opened.attributes["keep"]).startswith("all")
    if flight and measure == "dynamics" and by is None:
        result = observed_statistics(opened, signal, levels)
    else:
        result = step_statistics(
            ds, signal, levels, measure=measure, by=by, progress=sys.stderr.isatty()
        )
        if flight:
            result.attrs["note"] = (
                f"only of the {ds.sizes['run']} runs kept in full (--keep {ds.attrs['keep']}): of "
                "all runs, dynamics without --by were counted"
            )
    if earlier:
        result = merge_statistics([result, *earlier], levels)
    if out:
        save(result, out, overwrite=overwrite)
    if plot:
        from asced_analysis import plots

        plots.save_figure(plots.dynamics_curves(result), plot)
    emit(_facts(result), _table(result), written=[out, plot])
    if "note" in result.attrs:
        click.echo(f"note: {result.attrs['note']}", err=True)


def _probabilities(text: str) -> list[float]:
    """Numbers between 0 and 1, separated by commas."""
    from asced_stores.errors import InputError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--quantiles {text!r}; expected numbers like 0.05,0.5,0.95") from None


def _facts(result: xr.Dataset) -> dict[str, Any]:
    """What a machine wants to know; NaN and infinity are null."""
    from asced_analysis.thresholds.typed_json import finite_json

    names = ("median", "mad", "mean", "quantile", "count", "nan", "infinite")
    return {
        **{name: result.attrs[name] for name in ("signal", "measure", "by", "runs", "units")},
        "step": result["step"].values.tolist(),
        "probability": result["probability"].values.tolist(),
        **{name: finite_json(result[name].values.tolist()) for name in names},
    }


def _table(result: xr.Dataset) -> list[tuple[str, str]]:
    """Head and one row a step."""
    rows = [
        ("runs", str(result.attrs["runs"])),
        ("signal", f"{result.attrs['signal']}, {result.attrs['measure']}"),
        ("not finite", f"{int(result['nan'].sum())} NaN, {int(result['infinite'].sum())} infinite"),
    ]
    if set(result["median"].dims) != {"step"}:
        by = result.attrs["by"]
        return [*rows, ("groups", f"{result.sizes[by]} by {by}; numbers with --json or --out")]
    levels = result["probability"].values
    rows.append(("step", "".join(f"{name:>12}" for name in ("median", "MAD", *map(_name, levels)))))
    for step in result["step"].values:
        row = result.sel(step=step)
        numbers = [row["median"].item(), row["mad"].item(), *row["quantile"].values]
        rows.append((f"{step:>4}", "".join(f"{number:>12.4g}" for number in numbers)))
    return rows


def _name(probability: float) -> str:
    """``0.05`` as ``5 %``."""
    return f"{100 * probability:g} %"
