"""Population statistics of the score dynamics by step, streamed into mergeable counts.

Memory does not grow with the number of runs, and the counts travel with the result: more runs are
added later, or from another machine, without reading the old ones (`merge_statistics`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.compute import streaming
from asced_analysis.compute.stepped import memory_note
from asced_analysis.counts.bit_patterns import RELATIVE_ERROR, Kind
from asced_analysis.counts.counting import Measure, Plan, count_block, plan_counts
from asced_analysis.counts.histograms import Counts, join_counts, merge_counts
from asced_analysis.signals import fields
from asced_analysis.signals.dimensions import with_all_dims
from asced_stores.errors import InputError

QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)

_MOST_GROUPS = 64
_LEVELS = ("timestep", "alpha", "sigma", "log_snr")


def step_statistics(
    ds: xr.Dataset,
    signal: str = "weighted_score",
    quantiles: Sequence[float] = QUANTILES,
    *,
    measure: Measure = "dynamics",
    by: str | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Exact median, MAD and quantiles by step, over all pixels of all runs.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them; read one shard at a time.
    signal : {"weighted_score", "predicted_x0", "innovation", "eps", "x0"}
        What to describe. ``eps`` and ``x0`` are the recorded fp16 numbers, whose magnitudes and
        values are counted exactly.
    quantiles : sequence of float
        Probabilities between 0 and 1.
    measure : {"dynamics", "difference", "magnitude", "value"}
        ``|D_k|``, signed ``D_k``, ``|signal|`` or the signed signal.
    by : str, optional
        ``"channel"``, or a coordinate of the runs such as ``"label"``, ``"prompt"`` or
        ``"guidance_scale"``: statistics of each group.
    progress : bool, optional
        Show a progress bar on standard error.

    Returns
    -------
    xarray.Dataset
        ``median, mad, mean, quantile, count, nan, infinite`` over ``step`` (N - 1 values for
        dynamics, ``step`` naming the later of the pair), and the ``counts`` themselves over
        ``(step, key)``. MAD is not scaled by 1.4826. A singular first step is left out, and
        ``attrs["note"]`` says so. Relative error of a quantile: 0 for fp16 values, otherwise at
        most 4.9e-4; that of MAD, at most 4.9e-4 of twice the median plus the MAD.

    Raises
    ------
    InputError
        When a name is unknown, there are no runs, or more than 64 groups.

    Examples
    --------
    >>> import asced_analysis as aa
    >>> stats = aa.step_statistics(aa.open_runs("runs.zarr"), quantiles=(0.05, 0.95))
    >>> stats["quantile"].dims, stats.sizes["step"]
    (('probability', 'step'), 11)
    """
    ds = with_all_dims(ds)
    graph, layout = statistics_graph(ds, signal, measure=measure, by=by)
    read = "x0" if signal in ("x0", "predicted_x0") else "eps"
    label = f"Counting {ds.sizes['run']} runs{memory_note(ds, [read])}"
    counts = cast("Counts", streaming.compute(graph, progress=progress, label=label))
    return _summary(counts, layout, quantiles)


def statistics_graph(
    ds: xr.Dataset,
    signal: str = "weighted_score",
    *,
    measure: Measure = "dynamics",
    by: str | None = None,
) -> tuple[streaming.Graph, xr.Dataset]:
    """The work of `step_statistics` as a Dask graph: one task a shard, merged in a tree.

    Parameters
    ----------
    ds, signal, measure, by
        As in `step_statistics`.

    Returns
    -------
    dask.delayed.Delayed
        Gives `Counts` with groups ``([group,] step[, channel])``.
    xarray.Dataset
        Coordinates and attributes of the result, without its numbers.
    """
    plan = plan_counts(ds, signal, measure)
    groups, codes = _groups(ds, by)
    tasks = streaming.shard_tasks(
        ds,
        [plan.variable],
        count_block,
        per_run=None if codes is None else {"group": codes},
        merged=True,
        stepwise=True,
        plan=plan,
        groups=len(groups) if codes is not None else None,
        by_channel=by == "channel",
    )
    steps = np.asarray(plan.steps)[plan.lag :]
    layout = _layout(ds, plan, steps, by, groups)
    return streaming.tree_merge(tasks, merge_counts), layout


def statistics_of(
    counts: Counts,
    runs: int,
    ds: xr.Dataset,
    signal: str = "weighted_score",
    quantiles: Sequence[float] = QUANTILES,
) -> xr.Dataset:
    """`step_statistics` of dynamics that were counted elsewhere, as while recording.

    Parameters
    ----------
    counts : Counts
        Of ``|D|``, with groups ``(step,)``.
    runs : int
        How many runs were counted.
    ds : xarray.Dataset
        One or more of them, for the noise levels.
    signal, quantiles
        As in `step_statistics`.
    """
    _, layout = statistics_graph(ds, signal)
    layout.attrs["runs"] = runs
    return _summary(counts, layout, quantiles)


def merge_statistics(
    parts: Sequence[xr.Dataset], quantiles: Sequence[float] | None = None
) -> xr.Dataset:
    """Statistics of all runs of several stores or machines, from their saved counts.

    Parameters
    ----------
    parts : sequence of xarray.Dataset
        Results of `step_statistics` over disjoint sets of runs; any order, any grouping.
    quantiles : sequence of float, optional
        Probabilities of the result; those of the first part by default.

    Returns
    -------
    xarray.Dataset
        Exactly what `step_statistics` would give for all the runs at once.

    Raises
    ------
    InputError
        When there is nothing to merge, or the parts describe different things.
    """
    if not parts:
        raise InputError("nothing to merge; expected at least one result of step_statistics")
    first = parts[0]
    for part in parts[1:]:
        for name in ("signal", "measure", "by", "kind"):
            if part.attrs.get(name) != first.attrs.get(name):
                raise InputError(
                    f"results with {name} {part.attrs.get(name)!r} and {first.attrs.get(name)!r} "
                    "do not merge"
                )
        same = all(
            np.array_equal(part[name].values, first[name].values)
            for name in ("step", *(n for n in ("alpha", "sigma") if n in first.coords))
        )
        if not same:
            raise InputError(
                "results with different steps or noise levels do not merge; compare them per unit "
                "of log-SNR instead (asced_analysis.statistics.comparison)"
            )
    group = _group_dimension(first)
    labels = np.unique(np.concatenate([part[group].values for part in parts])) if group else None
    counts = [_counts_of(part, group, labels) for part in parts]
    layout = first.drop_vars(list(first.data_vars))
    layout = layout.drop_dims([name for name in ("probability", "key") if name in layout.dims])
    if group:
        layout = layout.drop_vars(group).assign_coords({group: labels})
    layout.attrs["runs"] = sum(int(part.attrs["runs"]) for part in parts)
    wanted = first["probability"].values if quantiles is None else quantiles
    return _summary(merge_counts(counts), layout, wanted)


def counts_of(statistics: xr.Dataset) -> Counts:
    """The counts in a result of `step_statistics`, for quantiles nobody asked for at the time.

    Parameters
    ----------
    statistics : xarray.Dataset
        Result of `step_statistics`, fresh or read again.

    Returns
    -------
    Counts
        With groups ``([group,] step[, channel])``.
    """
    return _counts_of(statistics, None, None)


def _groups(ds: xr.Dataset, by: str | None) -> tuple[list[Any], npt.NDArray[np.intp] | None]:
    """Names of the groups of runs, and the group of each run."""
    if by is None or by == "channel":
        return [], None
    if by not in ds.coords or ds[by].dims != ("run",):
        possible = [str(name) for name in ds.coords if ds[name].dims == ("run",)]
        raise InputError(f"no groups by {by!r}; choose channel, {', '.join(possible)}")
    names, codes = np.unique(ds[by].values, return_inverse=True)
    if len(names) > _MOST_GROUPS:
        raise InputError(
            f"{len(names)} groups by {by!r}; at most {_MOST_GROUPS} are counted at once (each "
            "costs about half a megabyte a step). Select some of the runs first"
        )
    return names.tolist(), codes


def _layout(
    ds: xr.Dataset, plan: Plan, steps: npt.NDArray[np.int64], by: str | None, groups: list[Any]
) -> xr.Dataset:
    """Coordinates and attributes of a result."""
    coordinates: dict[str, Any] = {
        name: ds.coords[name].variable[steps]
        for name in ("step", *_LEVELS)
        if name in ds.coords and ds.coords[name].dims == ("step",)
    }
    if plan.lag and "log_snr" in ds.coords:
        width = np.abs(np.diff(np.asarray(ds["log_snr"].values, np.float64)))[steps - 1]
        coordinates["log_snr_interval"] = ("step", width)
    if by == "channel":
        coordinates["channel"] = np.arange(ds.sizes["channel"])
    elif by is not None:
        coordinates[by] = groups
    layout = xr.Dataset(coords=coordinates)
    layout.attrs = {
        "signal": plan.signal,
        "measure": plan.measure,
        "by": by or "",
        "kind": plan.kind,
        "relative_error": RELATIVE_ERROR[plan.kind],
        "runs": ds.sizes["run"],
        "units": fields.UNITS,
        **fields.left_out(ds["step"].values[: plan.steps[0]]),
    }
    return layout


def _summary(counts: Counts, layout: xr.Dataset, quantiles: npt.ArrayLike) -> xr.Dataset:
    """Medians, MADs and quantiles of counts, with the counts beside them."""
    dims = _group_dims(layout)
    levels = np.atleast_1d(np.asarray(quantiles, np.float64))
    units = {"units": layout.attrs["units"]}
    lower, upper = counts.bounds()
    table = counts.quantile([0.5, *levels])
    return xr.Dataset(
        {
            "median": (dims, table[0], units),
            "mad": (dims, counts.mad(table[0]), units),
            "mean": (dims, counts.mean(), units),
            "quantile": (("probability", *dims), table[1:], units),
            "count": (dims, counts.finite),
            "nan": (dims, counts.nan),
            "infinite": (dims, counts.infinite),
            "counts": ((*dims, "key"), counts.table.astype(np.int64, copy=False)),
        },
        {
            **layout.coords.variables,
            "probability": levels,
            "key": counts.keys,
            "lower": ("key", lower, units),
            "upper": ("key", upper, units),
        },
        layout.attrs,
    )


def _group_dims(layout: xr.Dataset) -> tuple[str, ...]:
    """Dimensions of the groups of counts, in order."""
    by = layout.attrs["by"]
    if by == "channel":
        return ("step", "channel")
    return (by, "step") if by else ("step",)


def _group_dimension(statistics: xr.Dataset) -> str | None:
    """The dimension of groups of runs, if there is one."""
    by: str = statistics.attrs["by"]
    return by if by and by != "channel" else None


def _counts_of(
    statistics: xr.Dataset, group: str | None, labels: npt.NDArray[Any] | None
) -> Counts:
    """Counts of a result, its groups put in the order of sorted labels (NaN is one of them)."""
    if "counts" not in statistics:
        raise InputError("no counts among the results; expected a result of step_statistics")
    counts = Counts(
        cast("Kind", statistics.attrs["kind"]),
        np.asarray(statistics["key"].values, np.int64),
        np.asarray(statistics["counts"].values, np.int64),
        np.asarray(statistics["nan"].values, np.int64),
        np.asarray(statistics["infinite"].values, np.int64),
    )
    if group is None or labels is None:
        return counts
    own = np.searchsorted(labels, statistics[group].values).tolist()  # NaN is sorted last
    nothing = Counts.empty(counts.kind, counts.groups[1:])
    parts = [
        counts.select(own.index(place)) if place in own else nothing for place in range(len(labels))
    ]
    return join_counts(parts, (len(labels), *counts.groups[1:]))
