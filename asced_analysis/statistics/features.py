"""Features of runs: a few interpretable numbers each, streamed, for tables and outlier models."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.compute import streaming
from asced_analysis.compute.shard_graphs import Blocks
from asced_analysis.compute.stepped import memory_note
from asced_analysis.counts.changes import PART, parts_of, steps_at_once, widen
from asced_analysis.signals import fields
from asced_analysis.signals.dimensions import with_all_dims
from asced_analysis.signals.dynamics import first_regular_step, noise_ratio
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Floats: TypeAlias = npt.NDArray[np.float64]

DESCRIPTIONS: dict[str, str] = {
    "innovation_early": "mean log rms innovation per log-SNR in the first third of the steps",
    "innovation_middle": "the same in the second third",
    "innovation_late": "the same in the last third",
    "innovation_peak_time": "normalised time of the largest local innovation",
    "local_peak": "natural log of the largest ratio, over steps, of the 99 % quantile of "
    "|innovation| to its median",
    "acceleration_peak": "largest acceleration of the predicted x0, 99 % quantile over pixels",
    "reversal": "share of the predicted x0's movement that is undone by the next step",
    "path_length": "rms distance that the predicted x0 travels in all",
    "straightness": "rms distance from its first to its last value, by the path length",
    "trajectory_variance": "variance of the predicted x0 over the last third of the steps",
    "final_contrast": "standard deviation of the last predicted x0",
    "final_roughness": "rms difference of neighbouring pixels of the last predicted x0",
    "eps_power_1": "sum over steps of the mean of |eps| (arXiv:2405.11881)",
    "eps_power_2": "the same of eps squared",
    "eps_power_3": "the same of |eps| cubed",
    "eps_rate_power_1": "sum over steps of the mean of |d eps / d normalised time|",
    "eps_rate_power_2": "the same squared",
    "eps_rate_power_3": "the same cubed",
}
"""What each column of `run_features` means."""

_TINY = 1e-12


def run_features(ds: xr.Dataset, *, by_step: bool = False, progress: bool = False) -> pd.DataFrame:
    """A few numbers a run, those of `DESCRIPTIONS`, from its recorded eps and x0.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them; read one shard at a time.
    by_step : bool, optional
        Also the log rms innovation per log-SNR of every step (``innovation_<step>``) and the
        natural log of the ratio of the 99 % quantile of its size to the median (``local_<step>``).
    progress : bool, optional
        Show a progress bar on standard error.

    Returns
    -------
    pandas.DataFrame
        One row a run, indexed by ``run``; the columns are explained in `DESCRIPTIONS`. A run with
        a number that is not finite has NaN throughout. Steps with an infinite log-SNR are left
        out, and ``attrs["dropped_steps"]`` and ``attrs["note"]`` say so.

    Raises
    ------
    InputError
        With fewer than four usable steps, or without eps and x0.

    Examples
    --------
    >>> import asced_analysis as aa
    >>> features = aa.run_features(aa.open_runs("runs.zarr"))
    >>> features.shape
    (48, 18)
    """
    ds = with_all_dims(ds)
    import pandas as pd

    first = first_regular_step(np.asarray(ds["alpha"].values))
    used = ds.isel(step=slice(first, None))
    snr = np.asarray(used["log_snr"].values, np.float64)
    finite = np.flatnonzero(np.isfinite(snr))
    if finite.size < 4:
        raise InputError(f"{finite.size} steps with a finite log-SNR found; expected at least 4")
    tasks = streaming.shard_tasks(
        ds,
        ["eps", "x0"],
        _feature_block,
        stepwise=True,
        steps=finite + first,
        log_snr=snr[finite],
        time=ds["step"].values[finite + first] / fields.recorded_steps(ds),
        by_step=by_step,
        alpha=np.asarray(used["alpha"].values, np.float64)[finite],
        sigma=np.asarray(used["sigma"].values, np.float64)[finite],
    )
    label = f"Features of {ds.sizes['run']} runs{memory_note(ds, ['eps', 'x0'])}"
    table = streaming.concatenate(tasks, progress=progress, label=label)
    later = ds["step"].values[(finite + first)[1:]]
    names = list(DESCRIPTIONS)
    if by_step:
        names += [f"innovation_{k}" for k in later] + [f"local_{k}" for k in later]
    frame = pd.DataFrame(table, index=pd.Index(ds["run"].values, name="run"), columns=names)
    frame.attrs |= fields.left_out(np.delete(ds["step"].values, finite + first).tolist())
    return frame


def _feature_block(
    blocks: Blocks,
    *,
    steps: npt.NDArray[np.int64],
    alpha: Floats,
    sigma: Floats,
    log_snr: Floats,
    time: Floats,
    by_step: bool,
) -> Floats:
    """Features of the runs of one task, shape (run, feature)."""
    scale = noise_ratio(alpha, sigma)[1:] / np.abs(np.diff(log_snr))
    rows: list[Floats] = []
    for block in blocks:
        for eps, x0 in zip(block["eps"], block["x0"], strict=True):
            with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
                row = _features(eps, x0, steps, scale, time, by_step)
            rows.append(row if np.isfinite(row).all() else np.full_like(row, np.nan))
    return np.stack(rows)


def _features(
    eps: npt.NDArray[Any],
    x0: npt.NDArray[Any],
    steps: npt.NDArray[np.int64],
    scale: Floats,
    time: Floats,
    by_step: bool,
) -> Floats:
    """Features of one run; eps and x0 of shape (step, [frame,] channel, y, x).

    A few steps lie in memory as they are stored, and one widened, whose values are ranked; of a
    large run those alone (`asced_analysis.compute.stepped`).
    """
    loudness, local, powers, speeds = _follow_noise(eps, steps, scale, time)
    moved, faster, total, undone = _follow_image(x0, steps)
    late = _variance(x0, steps[len(steps) - max(2, len(time) // 3) :])
    path = float(moved.sum())
    first, final = _stored(x0[steps[0]]), _stored(x0[steps[-1]])
    far = sum(float(np.square(one - other).sum()) for one, other in _together(final, first))
    contrast, roughness = _at_the_end(final, *x0.shape[-2:])
    row = [
        *(part.mean() for part in np.array_split(loudness, 3)),
        time[1:][np.argmax(local)],
        local.max(),
        faster.max(),
        undone / (total + _TINY),
        path,
        np.sqrt(far / final.size) / (path + _TINY),
        late,
        contrast,
        roughness,
        *powers,
        *speeds,
    ]
    if by_step:
        row += [*loudness, *local]
    return np.asarray(row, np.float64)


def _follow_noise(
    eps: npt.NDArray[Any], steps: npt.NDArray[np.int64], scale: Floats, time: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Log rms and log peak of the innovation by step, powers of eps and of its rate of change."""
    sizes, rates, ranks = [], [], []
    change = _room(eps)
    for earlier, now in _windows(eps, steps, 1):
        old, values = len(earlier), now.shape[1]
        size, rate = np.zeros((len(now), 3)), np.zeros((old + len(now) - 1, 3))
        for part in parts_of(values):
            wide, own = _widened(earlier, now, part), change[: len(rate), part]
            rate += _sums(np.abs(np.subtract(wide[1:], wide[:-1], out=own), out=own))
            size += _sums(np.abs(wide[old:], out=wide[old:]))
        sizes.append(size / values)
        rates.append(rate / values)
        ranks.append(_ranked(change[: len(rate)], (0.5, 0.99)))
    mean = np.concatenate(rates)
    median, upper = np.concatenate(ranks).T
    loudness = np.log(scale * np.sqrt(mean[:, 1]) + _TINY)
    local = np.log((scale * upper + _TINY) / (scale * median + _TINY))
    speeds = (mean / np.diff(time)[:, np.newaxis] ** np.arange(1, 4)).sum(axis=0)
    return loudness, local, np.concatenate(sizes).sum(axis=0), speeds


def _follow_image(
    x0: npt.NDArray[Any], steps: npt.NDArray[np.int64]
) -> tuple[Floats, Floats, float, float]:
    """Of predicted x0: rms movement and largest acceleration by step, movement in all and undone.

    What a step takes back is at most what there was; a movement that goes on undoes nothing.
    """
    moved, faster = [], []
    total = undone = 0.0
    gain = _room(x0)
    for earlier, now in _windows(x0, steps, 2):
        known = max(0, len(earlier) - 1)  # movements that the window before has counted
        squares = np.zeros(len(earlier) + len(now) - 1 - known)
        gains = gain[: max(0, len(earlier) + len(now) - 2)]
        for part in parts_of(now.shape[1]):
            wide = _widened(earlier, now, part)
            move = wide[1:] - wide[:-1]
            size = np.abs(move)
            squares += np.square(move[known:]).sum(axis=1)
            total += float(size[known:].sum())
            np.subtract(size[1:], size[:-1], out=gains[:, part])
            back = np.multiply(move[1:], np.sign(move[:-1]), out=wide[2:])
            np.negative(back, out=back)
            undone += float(np.clip(back, 0, size[:-1], out=back).sum())
        moved.append(np.sqrt(squares / now.shape[1]))
        faster.append(_ranked(gains, (0.99,))[:, 0])
    return np.concatenate(moved), np.concatenate(faster), total, undone


def _variance(x0: npt.NDArray[Any], steps: npt.NDArray[np.int64]) -> float:
    """Variance over some steps, averaged over the image.

    Distances from the first of these steps are added up: small numbers, of which float32 keeps
    what float64 keeps of the values.
    """
    first = _stored(x0[steps[0]])
    sums, squares = np.zeros(first.size, np.float32), 0.0
    for earlier, now in _windows(x0, steps[1:], 0):
        for part in parts_of(first.size):
            far = _widened(earlier, now, part)
            far -= _wide(first[part])
            sums[part] += far.sum(axis=0)
            squares += float(np.square(far, out=far).sum())
        del now  # before the next is read
    level = sum(float(np.square(sums[part]).sum()) for part in parts_of(sums.size))
    return (squares - level / len(steps)) / (len(steps) * first.size)


def _at_the_end(final: npt.NDArray[Any], height: int, width: int) -> tuple[float, float]:
    """Standard deviation, and rms difference of neighbouring pixels; shape (pixel,)."""
    mean = sum(float(_wide(final[part]).sum(dtype=np.float64)) for part in parts_of(final.size))
    mean /= final.size
    spread = squares = 0.0
    plane = height * width
    for part in parts_of(final.size, plane * max(1, PART // plane)):
        images = _wide(final[part]).reshape(-1, height, width)
        spread += float(np.square(images - np.float64(mean)).sum())
        for axis in (-1, -2):
            squares += float(np.square(np.diff(images, axis=axis)).sum(dtype=np.float64))
    count = final.size // plane * (height * (width - 1) + (height - 1) * width)
    return np.sqrt(spread / final.size), np.sqrt(squares / count) if count else 0.0


def _windows(
    array: npt.NDArray[Any], steps: npt.NDArray[np.int64], lag: int
) -> Iterator[tuple[deque[npt.NDArray[Any]], npt.NDArray[Any]]]:
    """As many steps as one widens at once, and up to `lag` before them; shape (step, value).

    A step that is large comes alone. Values are as they are stored.
    """
    earlier: deque[npt.NDArray[Any]] = deque(maxlen=lag)
    each = steps_at_once(math.prod(array.shape[1:]))
    for near in np.split(steps, np.flatnonzero(np.diff(steps) > 1) + 1):
        for at in range(near[0], near[-1] + 1, each):
            now = np.ascontiguousarray(array[at : min(at + each, near[-1] + 1)])
            now = now.reshape(len(now), -1)
            yield earlier, now
            earlier.extend(now)
            del now  # before the next is read


def _room(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Room for a value of each pixel at all steps of one of the `_windows`."""
    values = math.prod(array.shape[1:])
    return np.empty((steps_at_once(values), values), np.float32)


def _widened(
    earlier: Collection[npt.NDArray[Any]], now: npt.NDArray[Any], part: slice
) -> npt.NDArray[np.float32]:
    """A part of the values of one of the `_windows`, in float32."""
    wide = np.empty((len(earlier) + len(now), len(range(*part.indices(now.shape[1])))), np.float32)
    for one, own in zip(earlier, wide, strict=False):
        widen(one[part], own)
    widen(now[:, part], wide[len(earlier) :])
    return wide


def _stored(step: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values of a step as they are stored, shape (pixel,)."""
    return np.ascontiguousarray(step).reshape(-1)


def _wide(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The values in float32; not a copy where they are."""
    if values.dtype == np.float32:
        return values
    wide = np.empty(values.shape, np.float32)
    widen(values, wide)
    return wide


def _together(*arrays: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[np.float32], ...]]:
    """The same parts of some arrays, in float32."""
    for part in parts_of(arrays[0].size):
        yield tuple(_wide(one[part]) for one in arrays)


def _sums(size: npt.NDArray[np.float32]) -> Floats:
    """Sums by step of magnitudes, of their squares and of their cubes; shape (step, 3)."""
    square = np.square(size)  # sums in float32 are pairwise: 1e-6 of their value
    sums = [size.sum(axis=1), square.sum(axis=1)]
    return np.stack([*sums, np.multiply(square, size, out=square).sum(axis=1)], 1, dtype=np.float64)


def _ranked(values: npt.NDArray[np.float32], levels: tuple[float, ...]) -> Floats:
    """Quantiles by step as `numpy.quantile` gives them; the values are put into another order."""
    low, high, share = _places(values.shape[1], levels)
    values.partition([*low, *high], axis=1)
    below, above = values[:, low].astype(np.float64), values[:, high]
    found: Floats = below + share * (above - below)
    found[np.isnan(values[:, max(low) :].max(axis=1))] = np.nan
    return found


@lru_cache(maxsize=64)
def _places(
    size: int, levels: tuple[float, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], Floats]:
    """Ranks next to each quantile of so many values, and how far it lies beyond the lower one."""
    ranks = np.asarray(levels) * (size - 1)
    low = np.floor(ranks).astype(int)
    high = np.minimum(low + 1, size - 1)
    return tuple(low.tolist()), tuple(high.tolist()), ranks - low
