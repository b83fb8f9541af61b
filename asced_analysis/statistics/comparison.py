"""Compare two stores: at which noise levels, and where in the image, their dynamics differ.

The unit is the run. Each run is reduced to its mean log rate ``log |D| / d log-SNR`` on a common
grid of log-SNR, over the image and over tiles of it; the two samples of runs are compared there by
rank tests, with Cliff's delta and the ratio of medians as sizes of the effect, and the false
discovery rate is controlled over all comparisons (Benjamini and Hochberg).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.compute import streaming
from asced_analysis.compute.shard_graphs import Blocks
from asced_analysis.counts.counting import Plan, plan_counts
from asced_analysis.signals import fields
from asced_analysis.signals.dimensions import with_images
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Floats: TypeAlias = npt.NDArray[np.float64]

_TINY = 1e-12
_NO_SEED = -1


def compare(
    first: xr.Dataset,
    second: xr.Dataset,
    *,
    signal: str = "innovation",
    tiles: int = 4,
    levels: Sequence[float] | int = 16,
    paired: bool = False,
    false_discovery_rate: float = 0.05,
    progress: bool = False,
) -> pd.DataFrame:
    """Where the dynamics of two stores differ, with sizes of effect and controlled false findings.

    Parameters
    ----------
    first, second : xarray.Dataset
        Runs as `open_runs` returns them: other models, schedulers, step counts, guidance scales.
    signal : {"innovation", "weighted_score", "predicted_x0"}
        Whose dynamics, per unit of log-SNR.
    tiles : int, optional
        The image is cut into so many rows and columns of tiles, at most as many as it has pixels;
        0 compares whole images only.
    levels : sequence of float or int, optional
        Grid of log-SNR, or how many points over the range that both stores share.
    paired : bool, optional
        Whether runs with the same seed are pairs (Wilcoxon's test instead of Mann and Whitney's);
        where seeds repeat, those with the same seed, prompt and label.
    false_discovery_rate : float, optional
        Expected share of false findings among those called different.
    progress : bool, optional
        Show a progress bar on standard error.

    Returns
    -------
    pandas.DataFrame
        One row a comparison: ``log_snr, tile_row, tile_column`` (-1 for the whole image),
        ``ratio`` (median rate of the second by the first), ``delta`` (Cliff's: -1 to 1, positive
        where the second moves more), ``p_value``, ``q_value``, ``different``. ``attrs`` say of
        the first and the second how many ``runs`` were compared, how many ``not_finite_runs``
        (with a rate that is not finite) and ``unpaired_runs`` (no partner) were left out, and, in
        ``dropped_steps`` and ``note``, which steps with a singular noise level.

    Raises
    ------
    InputError
        When the stores share no range of log-SNR, or no seeds where they are paired; when seeds
        are missing or do not tell the runs of a store apart; when tiles or levels do not fit; or
        with fewer than five runs of each.
    """
    import pandas as pd

    first, second = with_images(first), with_images(second)
    stores = first, second
    tiles = _checked_tiles(tiles, stores)
    grid = _grid(first, second, levels)
    pairs = _pairs(stores) if paired else None
    rates = [_run_rates(ds, signal, tiles, grid, progress=progress) for ds in stores]
    finite = [np.asarray(np.isfinite(rate).all(axis=(1, 2))) for rate in rates]
    kept = [np.flatnonzero(good) for good in finite]
    if pairs is not None:
        both = finite[0][pairs[0]] & finite[1][pairs[1]]
        kept = [rows[both] for rows in pairs]
    rates = [rate[places] for rate, places in zip(rates, kept, strict=True)]
    if min(len(rate) for rate in rates) < 5:
        raise InputError(
            f"{len(rates[0])} and {len(rates[1])} runs to compare; expected at least 5 of each "
            f"({int((~finite[0]).sum())} and {int((~finite[1]).sum())} runs are not finite)"
        )
    rows = []
    for place in range(rates[0].shape[2]):
        row, column = divmod(place - 1, tiles) if place else (-1, -1)
        for number, level in enumerate(grid):
            a, b = rates[0][:, number, place], rates[1][:, number, place]
            delta, p_value = _test(a, b, paired=paired)
            ratio = float(np.exp(np.median(b) - np.median(a)))
            rows.append((level, row, column, ratio, delta, p_value))
    table = pd.DataFrame(
        rows, columns=["log_snr", "tile_row", "tile_column", "ratio", "delta", "p_value"]
    )
    table["q_value"] = benjamini_hochberg(table["p_value"].to_numpy())
    table["different"] = table["q_value"] <= false_discovery_rate
    table.attrs = {
        "signal": signal,
        "runs": [len(rate) for rate in rates],
        "stores": _names(stores),
        "paired": paired,
        "false_discovery_rate": false_discovery_rate,
        "tiles": tiles,
        "not_finite_runs": [int((~good).sum()) for good in finite],
        "unpaired_runs": [ds.sizes["run"] - len(pairs[0]) if pairs else 0 for ds in stores],
        **_left_out(stores, signal),
    }
    return table


def _names(stores: Sequence[xr.Dataset]) -> list[str]:
    """What both stores are called: the last part of where they lie."""
    found = [str(ds.encoding.get("source", "")).rstrip("/").rpartition("/")[2] for ds in stores]
    return [
        f"{order} of {name}" if found[0] == found[1] and name else name or order
        for order, name in zip(("the first", "the second"), found, strict=True)
    ]


def benjamini_hochberg(p_values: npt.ArrayLike) -> Floats:
    """Adjusted p-values that control the false discovery rate.

    Parameters
    ----------
    p_values : array, shape (test,)
        Of independent or positively dependent tests.

    Returns
    -------
    numpy.ndarray, shape (test,)
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    adjusted = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1.0)
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result


def _grid(first: xr.Dataset, second: xr.Dataset, levels: Sequence[float] | int) -> Floats:
    """Grid of log-SNR inside what both stores cover."""
    ranges = []
    for ds in (first, second):
        snr = np.asarray(ds["log_snr"].values, np.float64)
        middle = (snr[1:] + snr[:-1])[np.isfinite(snr[1:] + snr[:-1])] / 2
        if middle.size < 2:
            raise InputError(f"{middle.size} finite differences found; expected at least 2")
        ranges.append((middle.min(), middle.max()))
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
    if low >= high:
        raise InputError(f"the stores share no range of log-SNR: {ranges[0]} and {ranges[1]}")
    if isinstance(levels, Integral):
        if levels < 1:
            raise InputError(f"{levels} levels found; expected at least 1")
        return np.linspace(low, high, int(levels))
    grid = np.asarray(levels, np.float64)
    if grid.ndim != 1 or not grid.size or not np.isfinite(grid).all():
        raise InputError(
            f"levels {levels!r} found; expected how many, or a sequence of finite log-SNRs"
        )
    if grid.min() < low - 1e-9 or grid.max() > high + 1e-9:
        raise InputError(
            f"levels from {grid.min():.2f} to {grid.max():.2f}; the stores share "
            f"{low:.2f} to {high:.2f}"
        )
    return grid


def _run_rates(ds: xr.Dataset, signal: str, tiles: int, grid: Floats, *, progress: bool) -> Floats:
    """Log rate of each run on the grid, shape (run, level, 1 + tile); the first is the image."""
    plan = plan_counts(ds, signal, "difference")
    snr = np.asarray(ds["log_snr"].values, np.float64)[list(plan.steps)]
    with np.errstate(invalid="ignore"):
        width, middle = np.abs(np.diff(snr)), (snr[1:] + snr[:-1]) / 2
    tasks = streaming.shard_tasks(
        ds,
        [plan.variable],
        _rate_block,
        stepwise=True,
        plan=plan,
        tiles=tiles,
        width=width,
        middle=middle,
        grid=grid,
    )
    label = f"Rates of {ds.sizes['run']} runs"
    joined: Floats = streaming.compute(
        streaming.tree_merge(tasks, _concatenate), progress=progress, label=label
    )
    return joined


def _rate_block(
    blocks: Blocks,
    *,
    plan: Plan,
    tiles: int,
    width: Floats,
    middle: Floats,
    grid: Floats,
) -> Floats:
    """Rates of the runs of one task."""
    usable = np.isfinite(width) & (width > 0)
    order = np.argsort(middle[usable])
    parts = []
    for block in blocks:
        with np.errstate(invalid="ignore", over="ignore"):  # failed runs; they are counted
            sizes = [_tile_means(np.abs(v), tiles) for _, v in plan.values(block[plan.variable])]
            rate = np.stack(sizes, axis=1)[:, usable] / width[usable][:, None]
            logs = np.log(rate + _TINY)[:, order]
            parts.append(_interpolate(logs, middle[usable][order], grid))
    return np.concatenate(parts)


def _tile_means(size: npt.NDArray[np.float32], tiles: int) -> Floats:
    """Mean over the image and over each tile, shape (run, 1 + tiles**2)."""
    flat = size.reshape(len(size), -1, *size.shape[-2:]).mean(axis=1, dtype=np.float64)
    means = [flat.mean(axis=(1, 2))]
    if tiles:
        rows = np.array_split(np.arange(flat.shape[1]), tiles)
        columns = np.array_split(np.arange(flat.shape[2]), tiles)
        means += [flat[:, r][:, :, c].mean(axis=(1, 2)) for r in rows for c in columns]
    return np.stack(means, axis=1)


def _interpolate(values: Floats, at: Floats, grid: Floats) -> Floats:
    """Linear interpolation along axis 1."""
    right = np.clip(np.searchsorted(at, grid), 1, len(at) - 1)
    share = ((grid - at[right - 1]) / (at[right] - at[right - 1]))[:, None]
    result: Floats = values[:, right - 1] * (1 - share) + values[:, right] * share
    return result


def _pairs(stores: Sequence[xr.Dataset]) -> list[npt.NDArray[np.intp]]:
    """Positions of the runs of both stores that are pairs, in the same order."""
    places = _places(stores, ("seed",))
    if places is None:
        places = _places(stores, ("seed", "prompt", "label"))
    if places is None:
        raise InputError(
            "several runs of a store have the same seed, prompt and label, so that it is not known "
            "which are pairs; select runs that these tell apart, or compare them unpaired"
        )
    shared = [key for key in places[0] if key in places[1]]
    if not shared:
        raise InputError("the stores share no seeds; compare them unpaired")
    return [np.array([own[key] for key in shared], np.intp) for own in places]


def _places(
    stores: Sequence[xr.Dataset], names: tuple[str, ...]
) -> list[dict[tuple[Any, ...], int]] | None:
    """Position of each run by these coordinates; None where they do not tell runs apart."""
    found = []
    for which, ds in zip(("first", "second"), stores, strict=True):
        if "seed" not in ds.coords:
            raise InputError(f"paired runs need the coordinate 'seed'; the {which} store has none")
        without = int((ds["seed"].values == _NO_SEED).sum())
        if without:
            raise InputError(
                f"{without} of {ds.sizes['run']} runs of the {which} store have no seed (-1); "
                "select those that have one, or compare the stores unpaired"
            )
        known = [
            ds[name].values.tolist() for name in names if all(name in s.coords for s in stores)
        ]
        found.append({key: place for place, key in enumerate(zip(*known, strict=True))})
        if len(found[-1]) < ds.sizes["run"]:
            return None
    return found


def _checked_tiles(tiles: int, stores: Sequence[xr.Dataset]) -> int:
    """Number of tiles, where the images have so many rows and columns."""
    most = min(ds.sizes[dim] for ds in stores for dim in ("y", "x"))
    if not isinstance(tiles, Integral) or not 0 <= tiles <= most:
        raise InputError(
            f"tiles={tiles!r} found; expected a whole number from 0 to {most}, the fewest rows or "
            "columns of pixels of an image"
        )
    return int(tiles)


def _left_out(stores: Sequence[xr.Dataset], signal: str) -> dict[Hashable, Any]:
    """Attributes that say which steps of which store are left out; none where all are there."""
    about = []
    for ds in stores:
        usable = np.isfinite(np.asarray(ds["log_snr"].values, np.float64))
        usable[: plan_counts(ds, signal, "difference").steps[0]] = False
        about.append(fields.left_out(ds["step"].values[~usable]))
    if not any(about):
        return {}
    notes = [
        f"{which} store: {own['note']}"
        for which, own in zip(("first", "second"), about, strict=True)
        if own
    ]
    return {
        "dropped_steps": [own.get("dropped_steps", []) for own in about],
        "note": "; ".join(notes),
    }


def _test(a: Floats, b: Floats, *, paired: bool) -> tuple[float, float]:
    """Cliff's delta (or the share of pairs that rise less those that fall) and a p-value."""
    from scipy import stats

    if paired:
        gap = b - a
        delta = float(np.mean(np.sign(gap)))
        if not gap.any():
            return 0.0, 1.0
        return delta, float(stats.wilcoxon(gap, method="approx").pvalue)
    result = stats.mannwhitneyu(b, a, method="asymptotic")
    delta = 2 * float(result.statistic) / (len(a) * len(b)) - 1
    return delta, float(np.nan_to_num(result.pvalue, nan=1.0))


def _concatenate(parts: Sequence[Floats]) -> Floats:
    return np.concatenate(list(parts))
