"""What a comparison leaves out, how it pairs runs, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from asced_analysis.statistics.comparison import compare
from asced_stores.errors import InputError


@pytest.fixture
def pair(planted_runs):
    """Two stores of the same twelve seeds; the second moves more."""
    first = planted_runs(runs=12, size=8, seed=4)
    return first, first.assign(eps=first["eps"] * np.float32(1.1))


def _singular(ds):
    """Zero terminal SNR: the first step is pure noise."""
    alpha, sigma, snr = (ds[name].values.copy() for name in ("alpha", "sigma", "log_snr"))
    alpha[0], sigma[0], snr[0] = 0.0, 1.0, -np.inf
    return ds.assign_coords(alpha=("step", alpha), sigma=("step", sigma), log_snr=("step", snr))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("paired", [False, True])
def test_runs_that_are_not_finite_are_left_out_and_counted(pair, paired, broken):
    first, second = pair[0].copy(deep=True), pair[1].copy(deep=True)
    first["eps"].values[2, 10:] = broken
    second["eps"].values[[5, 6], 12:, 0, 1, 1] = broken
    table = compare(first, second, tiles=2, levels=4, paired=paired)
    assert table.attrs["runs"] == ([9, 9] if paired else [11, 10])
    assert table.attrs["not_finite_runs"] == [1, 2]
    assert np.isfinite(table["ratio"]).all()
    first["eps"].values[4:, 10:] = broken
    with pytest.raises(InputError, match=r"expected at least 5 of each \(9 and 2 runs are not"):
        compare(first, second, tiles=2, levels=4, paired=paired)


def test_dropped_steps_are_named_for_each_store(pair):
    first, second = pair
    assert "dropped_steps" not in compare(first, second, tiles=0, levels=3).attrs
    for signal in ("innovation", "weighted_score"):
        table = compare(first, _singular(second), signal=signal, tiles=0, levels=3)
        assert table.attrs["dropped_steps"] == [[], [0]]
        assert table.attrs["note"].startswith("second store: steps [0] are left out")


def test_repeated_seeds_are_paired_by_prompt_and_label(pair):
    prompts = np.array(["a cat", "a dog"] * 6)
    seeds = np.repeat(np.arange(6), 2)
    first, second = (
        ds.assign_coords(seed=("run", seeds), prompt=("run", prompts), label=("run", seeds * 0))
        for ds in pair
    )
    order = np.random.default_rng(0).permutation(12)[:10]
    table = compare(first, second.isel(run=order), tiles=0, levels=3, paired=True)
    assert table.attrs["runs"] == [10, 10]
    assert table.attrs["unpaired_runs"] == [2, 0]
    assert (table["delta"] == 1).all()  # of every pair the second moves more: pairs are by seed
    np.testing.assert_allclose(table["ratio"], 1.1, rtol=1e-3)
    same = second.assign_coords(prompt=("run", np.full(12, "a cat")))
    with pytest.raises(InputError, match="the same seed, prompt and label"):
        compare(first, same, tiles=0, levels=3, paired=True)
    with pytest.raises(InputError, match="the same seed, prompt and label"):
        compare(first.drop_vars("prompt"), second, tiles=0, levels=3, paired=True)
    # other prompts with the same seeds are still pairs where the seeds alone tell runs apart
    other = pair[1].assign_coords(prompt=("run", prompts))
    assert compare(pair[0], other, tiles=0, levels=3, paired=True).attrs["runs"] == [12, 12]


def test_runs_without_seeds_are_not_paired(pair):
    first, second = pair
    absent = second.assign_coords(seed=("run", [-1] * 3 + list(range(3, 12))))
    with pytest.raises(InputError, match="3 of 12 runs of the second store have no seed"):
        compare(first, absent, tiles=0, levels=3, paired=True)
    with pytest.raises(InputError, match="the first store has none"):
        compare(first.drop_vars("seed"), second, tiles=0, levels=3, paired=True)
    assert compare(first, absent, tiles=0, levels=3).attrs["unpaired_runs"] == [0, 0]


@pytest.mark.parametrize("tiles", [9, -1, 2.0, "4"])
def test_tiles_that_do_not_fit_are_refused(pair, tiles):
    with pytest.raises(InputError, match="expected a whole number from 0 to 8"):
        compare(*pair, tiles=tiles, levels=3)


def test_numbers_may_be_numpys(pair):
    table = compare(*pair, tiles=np.int32(8), levels=np.int64(3))
    assert len(table) == 3 * 65
    assert table.attrs["tiles"] == 8


@pytest.mark.parametrize("levels", [0, -2, 2.5, [], [[0.0]], [0.0, np.nan]])
def test_levels_that_do_not_fit_are_refused(pair, levels):
    with pytest.raises(InputError, match="levels"):
        compare(*pair, tiles=0, levels=levels)
