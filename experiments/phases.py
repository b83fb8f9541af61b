"""Phases where there are none, where they were planted, and against `ruptures`.

    python -m experiments.phases            # 400 populations a family, ten minutes of one core

Curves of 24 steps at the level of 5 %. False phases: populations of 20 and 200 runs, and single
runs, in which any boundary is reported. Planted ones: a share of pixels is active in the middle
third, as seen in 256 pixels; and at other places, how near the boundaries that are found lie and
how often their intervals hold the truth. `ruptures` (`pip install ruptures`) finds the same two
change points by dynamic programming, one curve at a time.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from asced_analysis.phases.change_points import segment
from asced_analysis.phases.intervals import interval, population_bootstrap, step_bootstrap
from asced_analysis.phases.significance import population_tests, run_tests

Floats: TypeAlias = npt.NDArray[np.float64]
Family: TypeAlias = Callable[[np.random.Generator, int], Floats]

STEPS, LEVEL = 24, 0.05
GROWING = np.linspace(0.1, 3, STEPS)
BURSTS = np.linspace(10, 2, STEPS)
PLACE = np.arange(STEPS)
HUMP = np.where((PLACE >= 8) & (PLACE < 16), 0.047, 0.009)
RISE = np.where(PLACE >= 10, 0.047, 0.009)


def pixels_of_one_law(rng: np.random.Generator, runs: int) -> Floats:
    """Share of 144 pixels beyond a cutoff, where innovation has one law at every step."""
    rate = np.abs(rng.standard_t(3, (runs, STEPS, 144)))
    share: Floats = (rate > 5).mean(axis=-1)
    return share


def white_noise(rng: np.random.Generator, runs: int) -> Floats:
    """Independent from step to step."""
    return rng.standard_normal((runs, STEPS))


def growing_noise(rng: np.random.Generator, runs: int) -> Floats:
    """Thirty times as strong at the end as at the beginning."""
    return rng.standard_normal((runs, STEPS)) * GROWING


def bursts(rng: np.random.Generator, runs: int) -> Floats:
    """One mean, more and more skewed."""
    return rng.gamma(BURSTS, 1 / BURSTS, (runs, STEPS))


def walks(rng: np.random.Generator, runs: int) -> Floats:
    """Every run wanders."""
    return np.cumsum(white_noise(rng, runs), axis=1)


NULL: dict[str, Family] = {
    "innovation of one law": pixels_of_one_law,
    "white noise": white_noise,
    "noise growing 30-fold": growing_noise,
    "skewed bursts": bursts,
    "random walks": walks,
}


def planted(shape: Floats) -> Family:
    """Counts of 256 pixels."""
    return lambda rng, runs: rng.binomial(256, shape, (runs, STEPS)) / 256


def reported(family: Family, runs: int, times: int, rng: np.random.Generator) -> Floats:
    """Share of populations with a Mutation, a Refinement, and either."""
    widths, found = np.ones(STEPS), []
    for _ in range(times):
        curves = family(rng, runs)
        if runs == 1:
            tests = run_tests(curves, widths, 99, rng, level=LEVEL)[0]
        else:
            tests = population_tests(curves, widths, 99, rng)[0]
        rise, fall = (there for there, _ in tests.boundaries(LEVEL))
        found.append((rise, fall, rise or fall))
    return np.mean(found, axis=0)


def placed(
    runs: int, strength: float, times: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Of humps at places of their own: share found; near by one step, and covered, of these.

    Parameters
    ----------
    runs : int
        Of a population, whose hump all share; 1 for single runs.
    strength : float
        Share of pixels that move in the hump, where 0.9 % do elsewhere.
    times : int
        Populations.
    rng : numpy.random.Generator
    """
    widths = np.ones(STEPS)
    near, covered, found = [], [], []
    for _ in range(times):
        truth = np.array([rng.integers(5, 10), rng.integers(15, 20)])
        inside = (truth[0] <= PLACE) & (truth[1] > PLACE)
        curves = planted(np.where(inside, strength, 0.009))(rng, runs)
        single = runs == 1
        tests = (
            run_tests(curves, widths, 99, rng, level=LEVEL)[0]
            if single
            else population_tests(curves, widths, 99, rng)[0]
        )
        found.append(all(there for there, _ in tests.boundaries(LEVEL)))
        if not found[-1]:
            continue
        mean = curves.mean(axis=0, keepdims=True)
        best = _places(mean, widths)
        if single:
            split = partial(_places, widths=widths)
            draws = step_bootstrap(mean, best, split, widths, 199, rng)[..., 0]
        else:
            draws = _places(population_bootstrap(curves, widths, 199, rng), widths).T
        low, high = interval(draws, LEVEL / 2)
        near += (np.abs(best[:, 0] - truth) <= 1).tolist()
        covered += ((low <= truth) & (truth <= high)).tolist()
    return float(np.mean(found)), float(np.mean(near)), float(np.mean(covered))


def _places(curves: Floats, widths: Floats) -> Floats:
    """Both change points, shape (2, curve)."""
    found = segment(curves, widths)
    return np.stack([found.first, found.second])


def against_ruptures(rng: np.random.Generator, curves: int = 400) -> list[tuple[Any, ...]]:
    """Speed and error of both, on noisy humps of known places."""
    first, second = rng.integers(4, 9, curves), rng.integers(14, 20, curves)
    inside = (first[:, None] <= PLACE) & (second[:, None] > PLACE)
    every = np.where(inside, 1.0, 0.0) + 0.4 * rng.standard_normal((curves, STEPS))
    segment(every)  # compiled and in the cache
    begin = time.process_time()
    found = segment(every)
    own = (time.process_time() - begin) / curves
    rows = [
        ("exhaustive, all curves at once", own, _errors(found.first, found.second, first, second))
    ]
    if importlib.util.find_spec("ruptures") is None:
        return rows
    import ruptures

    for name in ("Dynp", "BottomUp", "Binseg"):
        begin = time.process_time()
        places = [
            getattr(ruptures, name)(model="l2", min_size=2, jump=1).fit(curve).predict(n_bkps=2)
            for curve in every
        ]
        each = (time.process_time() - begin) / curves
        one, two, _ = np.array(places).T
        rows.append((f"ruptures {name}", each, _errors(one, two, first, second)))
    return rows


def _errors(one: Any, two: Any, first: Any, second: Any) -> float:
    """Mean distance in steps of both boundaries; NaN counts as the whole curve."""
    away = np.abs(np.concatenate([one - first, two - second]))
    return float(np.nan_to_num(away, nan=STEPS).mean())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=400, help="populations a family")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| curves | 20 runs | 200 runs | one run |\n|---|---|---|---|")
    for name, family in NULL.items():
        rates = [reported(family, runs, arguments.times, rng)[2] for runs in (20, 200, 1)]
        print(f"| {name}: any boundary | " + " | ".join(f"{100 * r:.1f} %" for r in rates) + " |")
    for name, shape in (("hump: both boundaries", HUMP), ("rise: Mutation", RISE)):
        every = [reported(planted(shape), runs, arguments.times, rng) for runs in (20, 200, 1)]
        found = [min(r[:2]) if shape is HUMP else r[0] for r in every]
        print(f"| planted {name} | " + " | ".join(f"{100 * r:.1f} %" for r in found) + " |")
    every = [reported(planted(RISE), runs, arguments.times, rng)[1] for runs in (20, 200, 1)]
    print("| planted rise: a Refinement | " + " | ".join(f"{100 * r:.1f} %" for r in every) + " |")
    print("\n| change points | CPU ms a curve | error, steps |\n|---|---|---|")
    for name, each, error in against_ruptures(rng):
        print(f"| {name} | {1e3 * each:.3f} | {error:.2f} |")
    print("\n| planted humps | found | within one step | covered |\n|---|---|---|---|")
    for name, runs, strength in (
        ("20 runs", 20, 0.03),
        ("one run", 1, 0.06),
        ("one run, hard to see", 1, 0.026),
    ):
        shares = placed(runs, strength, arguments.times, rng)
        print(f"| {name} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |")


if __name__ == "__main__":
    main()
