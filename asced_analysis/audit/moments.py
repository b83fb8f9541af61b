"""What an audit has to know of every run, as sums over groups of runs that add up over shards.

Energies and correlations of predicted x0 and eps, step by step, and of the sample that enters a
step with what was predicted at the step before. Runs fall into a few groups by their number, so
that the spread between the groups gives every quantity an interval (`asced_analysis.audit.
quantities`), in memory that does not grow with the runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.audit.starting_noise import seeded_noise
from asced_analysis.counts.changes import PART, parts_of, widen

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Step = npt.NDArray[np.float32]
Block = Mapping[str, npt.NDArray[np.floating]]

GROUPS = 20
SEEDS_A_SHARD = 4
GREATEST = 65504.0  # of float16
SAME_NOISE = 0.999  # correlation of a start with the noise of its seed

PAIRS = ("x0 x0", "eps eps", "x0 eps")
"""Mean products over pixels at a step."""

FOLLOWING = ("x x0", "x eps", "x change", "x0 change", "eps change", "change change")
"""Mean products with the sample that enters the next step; change: of predicted x0, from the step
before."""


@dataclass(frozen=True)
class Ends:
    """How the runs begin and end: what is read before the trajectories.

    Attributes
    ----------
    runs, start_runs : array, shape (group,)
        Whose end, and whose start, is made of finite numbers.
    energy, start_energy : array, shape (group,)
        Sums over these of the mean square of a pixel, at the end and at the start.
    low, high : float
        Least and greatest value of an end.
    mean_end, mean_start : array, shape (pixel,)
        Sums over runs of which both are finite; empty where nobody asked for them.
    seeded, scale, scale_squares : int, float, float
        Starts that are the noise of their seed, and their factors to it.
    compared : int
        Starts that were compared with the noise of their seed.
    """

    runs: Counts
    start_runs: Counts
    energy: Floats
    start_energy: Floats
    low: float
    high: float
    mean_end: Floats
    mean_start: Floats
    compared: int = 0
    seeded: int = 0
    scale: float = 0.0
    scale_squares: float = 0.0


@dataclass(frozen=True)
class Moments:
    """Sums over the runs of a group of mean products over pixels.

    Attributes
    ----------
    runs : array, shape (group,)
        Finite from start to end.
    energy : array, shape (group,)
        Of their ends.
    pairs : array, shape (group, step, 3)
        See `PAIRS`.
    following : array, shape (group, step - 1, 6)
        See `FOLLOWING`.
    outside : array, shape (step,)
        Values of predicted x0 beyond the ends' range by more than half of it.
    values : int
        Values of predicted x0 a step.
    low, high : array, shape (step,)
        Least and greatest predicted x0.
    nan, infinite : array, shape (step,)
        Values of eps and x0 that are no number, or infinite.
    first_bad : array, shape (step,)
        Runs whose first such value comes at that step.
    repeated : array, shape (step,)
        Runs whose eps is, bit for bit, that of the step before.
    """

    runs: Counts
    energy: Floats
    pairs: Floats
    following: Floats
    outside: Counts
    values: int
    low: Floats
    high: Floats
    nan: Counts
    infinite: Counts
    first_bad: Counts
    repeated: Counts


def end_moments(blocks: Iterable[Block], *, started: bool, averages: bool = False) -> Ends:
    """Look at the ends, and at the starts where they were recorded, of a shard's runs.

    Parameters
    ----------
    blocks : iterable of mapping
        ``sample``, ``x_init`` where `started`, and ``number`` and ``seed`` of each run.
    started : bool
        Whether starts are at hand.
    averages : bool
        Add up starts and ends pixel by pixel, which is asked for where seeds do not tell enough.
    """
    parts = []
    for block in blocks:
        group = block["number"].astype(np.int64) % GROUPS
        good, energy, low, high = _look_at(_rows(np.asarray(block["sample"])))
        begun, start_energy = np.zeros_like(good), np.zeros_like(energy)
        known = (0, 0, 0.0, 0.0)
        if started:
            starts = np.asarray(block["x_init"])
            begun, start_energy, _, _ = _look_at(_rows(starts))
            known = _against_seeds(starts, block["seed"], begun)
            del starts
        mean_end, mean_start = (
            _sum_of(_rows(np.asarray(block[name])), good & begun) if averages else np.zeros(0)
            for name in ("sample", "x_init")
        )
        parts.append(
            Ends(
                runs=np.bincount(group[good], minlength=GROUPS),
                start_runs=np.bincount(group[begun], minlength=GROUPS),
                energy=_by_group(group[good], energy[good]),
                start_energy=_by_group(group[begun], start_energy[begun]),
                low=float(low[good].min(initial=np.inf)),
                high=float(high[good].max(initial=-np.inf)),
                mean_end=mean_end,
                mean_start=mean_start,
                compared=known[0],
                seeded=known[1],
                scale=known[2],
                scale_squares=known[3],
            )
        )
    return merge_ends(parts)


def step_moments(
    blocks: Iterable[Block],
    *,
    alpha: Floats,
    sigma: Floats,
    low: float,
    high: float,
    same: bool,
    saturate: bool = False,
) -> Moments:
    """Look at the trajectories of a shard's runs.

    Parameters
    ----------
    blocks : iterable of mapping
        ``eps``, ``x0`` and ``sample``, and the ``number`` of each run.
    alpha, sigma : array, shape (step,)
        Noise levels.
    low, high : float
        Between which predicted x0 is expected.
    same : bool
        Whether eps is what the network said, so that a repeated answer shows.
    saturate : bool
        Take infinity for the greatest number of float16, so that such runs count as finite.
    """
    steps = len(alpha)
    parts = []
    for block in blocks:
        end = _rows(np.asarray(block["sample"]))
        runs, pixels = end.shape
        whole, energy, _, _ = _look_at(end, saturate=saturate)
        del end
        broken, missing = np.zeros((2, runs, steps), np.bool_)
        pairs, following = _empty_products(runs, steps)
        low_at, high_at = np.full(steps, np.inf), np.full(steps, -np.inf)
        outside, nan, infinite, repeated = np.zeros((4, steps), np.int64)
        x0: npt.NDArray[np.floating] | None = None
        eps, last, before, earlier = None, None, None, None
        with np.errstate(invalid="ignore", over="ignore"):  # runs that are left out then
            for k in range(steps):
                earlier, before, last = before, x0, eps
                x0 = eps = None  # before the next step is read
                x0, eps = (_rows(block[name][:, k]) for name in ("x0", "eps"))
                alike = np.full(runs, same and last is not None)
                for part in parts_of(pixels, max(1, PART // runs)):
                    clean, noise = _wide(x0, part), _wide(eps, part)
                    broken[:, k] |= ~(_whole(clean) & _whole(noise))
                    infinite[k] += np.isinf(clean).sum() + np.isinf(noise).sum()
                    if alike.any() and last is not None:
                        alike &= (eps[:, part] == last[:, part]).all(1)
                    if saturate:
                        clean, noise = _saturated(clean), _saturated(noise)
                    missing[:, k] |= ~(_whole(clean) & _whole(noise))
                    inside = np.where(np.isnan(clean), 0, clean)
                    outside[k] += ((inside < low) | (inside > high)).sum()
                    low_at[k] = min(low_at[k], inside.min())
                    high_at[k] = max(high_at[k], inside.max())
                    nan[k] += np.isnan(clean).sum() + np.isnan(noise).sum()
                    pairs[:, k] += _products((clean, clean), (noise, noise), (clean, noise))
                    if before is None or last is None:
                        continue
                    x = np.float32(alpha[k]) * clean + np.float32(sigma[k]) * noise
                    clean, noise = _wide(before, part), _wide(last, part)
                    older = clean if earlier is None else _wide(earlier, part)
                    if saturate:
                        clean, noise, older = map(_saturated, (clean, noise, older))
                    change = np.zeros_like(clean) if earlier is None else clean - older
                    following[:, k - 1] += _products(
                        *((x, clean), (x, noise), (x, change)),
                        *((clean, change), (noise, change), (change, change)),
                    )
                repeated[k] = alike.sum()
        pairs /= pixels
        following /= pixels
        finite = ~missing.any(1) & whole
        group = block["number"].astype(np.int64)[finite] % GROUPS
        first = np.where(broken.any(1), broken.argmax(1), steps)
        parts.append(
            Moments(
                runs=np.bincount(group, minlength=GROUPS),
                energy=_by_group(group, energy[finite]),
                pairs=_by_group(group, pairs[finite]),
                following=_by_group(group, following[finite]),
                outside=outside,
                values=runs * pixels,
                low=low_at,
                high=high_at,
                nan=nan,
                infinite=infinite,
                first_bad=np.bincount(first, minlength=steps + 1)[:steps],
                repeated=repeated,
            )
        )
    return merge_moments(parts)


def merge_ends(parts: Sequence[Ends]) -> Ends:
    """Ends of all shards."""
    return Ends(**_merged(parts))


def merge_moments(parts: Sequence[Moments]) -> Moments:
    """Moments of all shards."""
    return Moments(**_merged(parts))


def _merged(parts: Sequence[Ends] | Sequence[Moments]) -> dict[str, Any]:
    """Sums of every field; ``low`` and ``high`` are extremes."""
    rule = {"low": np.minimum.reduce, "high": np.maximum.reduce}
    return {
        one.name: rule.get(one.name, sum)([getattr(part, one.name) for part in parts])
        for one in fields(parts[0])
    }


def _empty_products(runs: int, steps: int) -> tuple[Floats, Floats]:
    """Of shapes (run, step, 3) and (run, step - 1, 6)."""
    return np.zeros((runs, steps, len(PAIRS))), np.zeros((runs, steps - 1, len(FOLLOWING)))


def _products(*pairs: tuple[Step, Step]) -> Floats:
    """Sums of products over pixels, shape (run, pair)."""
    sums = [np.einsum("rp,rp->r", one, other) for one, other in pairs]
    return np.stack(sums, 1).astype(np.float64)


def _against_seeds(
    starts: npt.NDArray[np.floating], seeds: npt.NDArray[np.floating], good: npt.NDArray[np.bool_]
) -> tuple[int, int, float, float]:
    """How many starts were compared with the noise of their seed, how many are it, and factors."""
    count = int(np.prod(starts.shape[1:]))
    rows = np.flatnonzero(good & (seeds >= 0))[: SEEDS_A_SHARD if count >= 16 else 0]
    factors = [_factor_to_seed(starts[row], int(seeds[row])) for row in rows]
    scales = [one for one in factors if one is not None]
    return len(rows), len(scales), sum(scales), sum(scale**2 for scale in scales)


def _factor_to_seed(found: npt.NDArray[np.floating], seed: int) -> float | None:
    """Factor between a start and the noise of its seed; None where it is another noise."""
    shape = found.shape
    for channel_first in (False, True)[: 2 if len(shape) == 4 else 1]:  # video is drawn so
        order = (shape[1], shape[0], *shape[2:]) if channel_first else shape
        noise = seeded_noise(seed, order)
        noise = noise.swapaxes(0, 1) if channel_first else noise
        product = size = own = 0.0
        for one, other in zip(found, noise, strict=True):
            start, drawn = one.astype(np.float64), other.astype(np.float64)
            product += float((start * drawn).sum())
            size += float((drawn * drawn).sum())
            own += float((start * start).sum())
        del noise, other  # before more is drawn
        if product > SAME_NOISE * np.sqrt(size * own):
            return product / size
    return None


def _look_at(
    values: npt.NDArray[np.floating], *, saturate: bool = False
) -> tuple[npt.NDArray[np.bool_], Floats, Floats, Floats]:
    """Whether runs are finite, mean squares, least and greatest; of shape (run, pixel)."""
    runs, pixels = values.shape
    good, energy = np.ones(runs, np.bool_), np.zeros(runs)
    low, high = np.full(runs, np.inf), np.full(runs, -np.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        for part in parts_of(pixels, max(1, PART // max(1, runs))):
            wide = _wide(values, part)
            wide = _saturated(wide) if saturate else wide
            good &= _whole(wide)
            energy += np.einsum("rp,rp->r", wide, wide)
            low, high = np.fmin(low, wide.min(1)), np.fmax(high, wide.max(1))
    return good, energy / pixels, low, high


def _sum_of(values: npt.NDArray[np.floating], which: npt.NDArray[np.bool_]) -> Floats:
    """Sum of some runs, shape (pixel,)."""
    total = np.zeros(values.shape[1])
    for run in np.flatnonzero(which):
        total += values[run]
    return total


def _saturated(values: Step) -> Step:
    """Infinity taken for the greatest number of float16."""
    return np.clip(values, np.float32(-GREATEST), np.float32(GREATEST))


def _whole(values: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Rows of finite numbers only."""
    return np.asarray(np.isfinite(values).all(1), np.bool_)


def _rows(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Pixels, channels and frames as one dimension, as they are stored."""
    return values.reshape(len(values), -1)


def _wide(values: npt.NDArray[np.floating], part: slice) -> Step:
    """Some pixels of all runs, in float32; not a copy where they are."""
    own = values[:, part]
    if own.dtype == np.float32:
        return own
    wide = np.empty(own.shape, np.float32)
    widen(own, wide)
    return wide


def _by_group(group: Counts, values: npt.NDArray[np.floating]) -> Floats:
    """Sums of the runs of each group."""
    total = np.zeros((GROUPS, *values.shape[1:]))
    np.add.at(total, group, values)
    return total
