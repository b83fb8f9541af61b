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
        Sums over runs of which both are finite.
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


def end_moments(blocks: Iterable[Block], *, started: bool) -> Ends:
    """Look at the ends, and at the starts where they were recorded, of a shard's runs.

    Parameters
    ----------
    blocks : iterable of mapping
        ``sample``, ``x_init`` where `started`, and ``number`` and ``seed`` of each run.
    started : bool
        Whether starts are at hand.
    """
    parts = []
    for block in blocks:
        ends = _flat(block["sample"], 1)
        starts = _flat(block["x_init"], 1) if started else np.full_like(ends, np.nan)
        group = block["number"].astype(np.int64) % GROUPS
        good, begun = _whole(ends), _whole(starts)
        both = good & begun if started else good
        known = (0, 0, 0.0, 0.0)
        if started:
            known = _against_seeds(block["x_init"], block["seed"], begun)
        kept = ends[good]
        parts.append(
            Ends(
                runs=np.bincount(group[good], minlength=GROUPS),
                start_runs=np.bincount(group[begun], minlength=GROUPS),
                energy=_by_group(group[good], _mean_square(kept)),
                start_energy=_by_group(group[begun], _mean_square(starts[begun])),
                low=float(kept.min()) if kept.size else np.inf,
                high=float(kept.max()) if kept.size else -np.inf,
                mean_end=ends[both].sum(0, dtype=np.float64),
                mean_start=np.where(np.isnan(starts[both]), 0, starts[both]).sum(
                    0, dtype=np.float64
                ),
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
        end = _flat(np.asarray(block["sample"]), 1)
        runs, pixels = end.shape
        broken, missing = np.zeros((2, runs, steps), np.bool_)
        pairs, following = _empty_products(runs, steps)
        low_at, high_at = np.zeros((2, steps))
        outside, nan, infinite, repeated = np.zeros((4, steps), np.int64)
        before: tuple[Step, Step, Step] | None = None
        last: Step | None = None
        with np.errstate(invalid="ignore", over="ignore"):  # runs that are left out then
            for k in range(steps):
                x0, eps = (_flat(block[name][:, k], 1) for name in ("x0", "eps"))
                broken[:, k] = ~(_whole(x0) & _whole(eps))
                infinite[k] = np.isinf(x0).sum() + np.isinf(eps).sum()
                if same and last is not None:
                    repeated[k] = (eps == last).all(1).sum()
                last = eps
                if saturate:
                    x0, eps = (np.clip(one, -GREATEST, GREATEST) for one in (x0, eps))
                missing[:, k] = ~(_whole(x0) & _whole(eps))
                inside = np.where(np.isnan(x0), 0, x0)
                outside[k] = ((inside < low) | (inside > high)).sum()
                low_at[k], high_at[k] = inside.min(), inside.max()
                nan[k] = np.isnan(x0).sum() + np.isnan(eps).sum()
                pairs[:, k] = _products((x0, x0), (eps, eps), (x0, eps))
                if before is not None:
                    clean, noise, change = before
                    x = np.float32(alpha[k]) * x0 + np.float32(sigma[k]) * eps
                    following[:, k - 1] = _products(
                        *((x, clean), (x, noise), (x, change)),
                        *((clean, change), (noise, change), (change, change)),
                    )
                before = x0, eps, np.zeros_like(x0) if before is None else x0 - before[0]
        if saturate:
            end = np.clip(end, -GREATEST, GREATEST)
        finite = ~missing.any(1) & _whole(end)
        group = block["number"].astype(np.int64)[finite] % GROUPS
        first = np.where(broken.any(1), broken.argmax(1), steps)
        parts.append(
            Moments(
                runs=np.bincount(group, minlength=GROUPS),
                energy=_by_group(group, _mean_square(end[finite])),
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
    """Mean products over pixels, shape (run, pair)."""
    return np.stack([_mean(one, other) for one, other in pairs], 1)


def _against_seeds(
    starts: npt.NDArray[np.floating], seeds: npt.NDArray[np.floating], good: npt.NDArray[np.bool_]
) -> tuple[int, int, float, float]:
    """How many starts were compared with the noise of their seed, how many are it, and factors."""
    count = int(np.prod(starts.shape[1:]))
    rows = np.flatnonzero(good & (seeds >= 0))[: SEEDS_A_SHARD if count >= 16 else 0]
    scales: list[float] = []
    for row in rows:
        shape = starts.shape[1:]
        found = starts[row].astype(np.float64)
        drawn = [seeded_noise(int(seeds[row]), shape)]
        if len(shape) == 4:  # video is drawn with the channel first
            order = (shape[1], shape[0], *shape[2:])
            drawn.append(seeded_noise(int(seeds[row]), order).swapaxes(0, 1))
        for noise in drawn:
            product = float((found * noise).sum())
            size = float((noise.astype(np.float64) ** 2).sum())
            if product > SAME_NOISE * np.sqrt(size * float((found**2).sum())):
                scales.append(product / size)
                break
    return len(rows), len(scales), sum(scales), sum(scale**2 for scale in scales)


def _whole(values: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Rows of finite numbers only."""
    return np.asarray(np.isfinite(values).all(1), np.bool_)


def _flat(values: npt.NDArray[np.floating], leading: int) -> npt.NDArray[np.float32]:
    """Pixels, channels and frames as one dimension, in float32."""
    return values.reshape(*values.shape[:leading], -1).astype(np.float32)


def _mean(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> Floats:
    """Mean product over pixels."""
    return np.asarray(np.einsum("rp,rp->r", one, other) / one.shape[1], np.float64)


def _mean_square(values: npt.NDArray[np.float32]) -> Floats:
    return _mean(values, values)


def _by_group(group: Counts, values: npt.NDArray[np.floating]) -> Floats:
    """Sums of the runs of each group."""
    total = np.zeros((GROUPS, *values.shape[1:]))
    np.add.at(total, group, values)
    return total
