"""Counts of bit patterns against NumPy on the same numbers, with everything in memory."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asced_analysis.counts.bit_patterns import RELATIVE_ERROR, values_of
from asced_analysis.counts.histograms import Counts, join_counts, merge_counts
from asced_analysis.counts.tally import Tally, count
from asced_stores.errors import InputError

LEVELS = [0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0]

halves = hnp.arrays(
    np.float16,
    st.tuples(st.integers(1, 3), st.integers(1, 60)),
    elements=st.floats(width=16, allow_nan=False, allow_infinity=False),
)
singles = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 2), st.integers(1, 60)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False),
)


def deviation(values):
    wide = values.astype(np.float64)
    return np.median(np.abs(wide - np.median(wide, axis=-1, keepdims=True)), axis=-1)


@settings(max_examples=50, deadline=None)
@given(halves, st.booleans())
def test_quantiles_median_and_mad_of_fp16_numbers_are_exact(values, signed):
    wide = (values if signed else np.abs(values)).astype(np.float64)
    counts = count(values, "half", signed=signed)
    np.testing.assert_allclose(
        counts.quantile(LEVELS), np.quantile(wide, LEVELS, axis=-1), rtol=1e-12, atol=0
    )
    np.testing.assert_array_equal(counts.median(), np.median(wide, axis=-1))
    np.testing.assert_array_equal(counts.mad(), deviation(wide))
    np.testing.assert_allclose(counts.mean(), wide.mean(axis=-1), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(counts.finite, values.shape[1])


@settings(max_examples=50, deadline=None)
@given(singles, st.booleans())
def test_order_statistics_of_float32_numbers_keep_the_stated_error(values, signed):
    wide = np.sort((values if signed else np.abs(values)).astype(np.float64), axis=-1)
    n = wide.shape[1]
    exact = np.arange(n) / (n - 1) if n > 1 else np.array([0.0])
    found = count(values, "single", signed=signed).quantile(exact)
    # numbers below the smallest normal one share the bin of zero
    tiny = np.finfo(np.float32).tiny
    slack = tiny + 1e-15 * np.abs(wide).max(axis=-1, keepdims=True)  # of the ranks themselves
    assert np.all(np.abs(found.T - wide) <= RELATIVE_ERROR["single"] * np.abs(wide) + slack)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-6, 1e6), st.integers(2, 3000))
def test_smooth_populations_of_any_number_are_much_closer_than_the_bound(seed, scale, n):
    values = np.random.default_rng(seed).normal(0, scale, (2, n)).astype(np.float32)
    wide = np.abs(values).astype(np.float64)
    counts = count(values)
    np.testing.assert_allclose(counts.median(), np.median(wide, axis=-1), rtol=5e-4)
    # MAD: error of at most 2**-11 * (2 * median + MAD)
    bound = 2.0**-11 * (2 * np.median(wide, axis=-1) + deviation(wide))
    assert np.all(np.abs(counts.mad() - deviation(wide)) <= bound)


def test_mad_of_many_float32_numbers_agrees_to_a_thousandth():
    values = np.random.default_rng(1).gamma(0.5, 3.0, (3, 400_000)).astype(np.float32)
    np.testing.assert_allclose(count(values).mad(), deviation(values), rtol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.float32, (2, 30), elements=st.floats(width=32)),
    st.integers(0, 30),
    st.integers(0, 30),
    st.booleans(),
)
def test_counts_add_up_however_the_population_is_split(values, first, second, signed):
    cuts = sorted((first, second))
    parts = [count(part, signed=signed) for part in np.split(values, cuts, axis=1)]
    whole = count(values, signed=signed)
    for merged in (merge_counts(parts), parts[2] + parts[0] + parts[1]):
        np.testing.assert_array_equal(merged.finite, whole.finite)
        np.testing.assert_array_equal(merged.nan, whole.nan)
        np.testing.assert_array_equal(merged.infinite, whole.infinite)
        np.testing.assert_array_equal(merged.quantile(LEVELS), whole.quantile(LEVELS))
        np.testing.assert_array_equal(merged.mad(), whole.mad())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.integers(-40, 40), st.integers(1, 9)), min_size=1, max_size=4))
def test_counts_add_up_by_key_whatever_keys_there_are(parts):
    nothing = np.zeros(1, np.int64)

    def counts_of(found):
        keys = np.array(sorted(found), np.int64)
        table = np.array([[found[key] for key in keys]], np.int64)
        return Counts("half", keys, table, nothing, nothing)

    merged = merge_counts([counts_of(part) for part in parts])
    keys = sorted(set().union(*parts))
    assert merged.keys.tolist() == keys
    assert merged.table.tolist() == [[sum(part.get(key, 0) for part in parts) for key in keys]]


def test_merging_changes_none_of_its_parts():
    parts = [count(np.full((1, 3), value, np.float32)) for value in (1.0, 100.0)]
    before = [part.table.copy() for part in parts]
    merge_counts(parts)
    for part, table in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part.table, table)


def test_nan_and_infinity_are_counted_apart():
    values = np.array([[1, 2, np.nan, np.inf, -np.inf, 3]], np.float32)
    for kind in ("half", "single"):
        counts = count(values.astype(np.float16) if kind == "half" else values, kind)
        assert counts.nan.tolist() == [1]
        assert counts.infinite.tolist() == [2]
        assert counts.finite.tolist() == [3]
        np.testing.assert_allclose(counts.median(), [2], rtol=5e-4)


@pytest.mark.parametrize("kind", ["half", "single"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_groups_without_a_finite_value_have_no_quantile(kind, value):
    dtype = np.float16 if kind == "half" else np.float32
    counts = count(np.full((2, 4), value, dtype), kind)
    assert np.isnan(counts.median()).all()
    assert np.isnan(counts.mad()).all()
    assert np.isnan(counts.share_above(1.0)).all()


def test_a_tally_is_empty_after_it_was_finished():
    tally = Tally(2)
    tally.add(0, np.array([1, 1e-20, 1e20, 0, np.nan], np.float32))
    assert tally.finish().finite.tolist() == [4, 0]
    again = tally.finish()
    assert again.finite.sum() == again.nan.sum() == again.infinite.sum() == 0


def test_tails():
    values = np.arange(100, dtype=np.float16)[None]
    np.testing.assert_allclose(count(values, "half").share_above(89.5), [0.1])
    np.testing.assert_allclose(count(values, "half").share_above(99), [0])
    np.testing.assert_allclose(count(values.astype(np.float32)).share_above(89.5), [0.1])


@pytest.mark.parametrize("signed", [False, True])
def test_exact_zeros_are_zeros_of_float32_counts_too(signed):
    values = np.array([[0] * 6 + [1] * 4, [0] * 4 + [2] * 6], np.float32)
    counts = count(values, signed=signed)
    np.testing.assert_array_equal(counts.share_above(0), [0.4, 0.6])
    np.testing.assert_array_equal(counts.quantile([0.1, 0.5])[:, 0], [0, 0])
    np.testing.assert_allclose(counts.mad(), [0, 0], atol=1e-3)
    nothing = count(np.zeros((1, 5), np.float32), signed=signed)
    assert nothing.median() == nothing.mad() == nothing.mean() == 0


def test_counts_of_different_kinds_are_not_joined():
    half = count(np.ones((1, 2), np.float16), "half")
    single = count(np.ones((1, 2), np.float32))
    with pytest.raises(InputError, match="do not merge"):
        join_counts([half, single], (2,))


def test_groups_can_be_selected_and_pooled():
    values = np.arange(24, dtype=np.float16).reshape(4, 6)
    counts = count(values, "half")
    np.testing.assert_array_equal(counts.select([1, 3]).median(), [8.5, 20.5])
    assert counts.pooled().median() == 11.5


def test_every_half_is_its_own_key():
    keys = np.arange(0x7C00)
    np.testing.assert_array_equal(values_of(keys, "half"), keys.astype(np.uint16).view(np.float16))
    assert np.all(np.diff(values_of(keys, "single")) > 0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="nothing to merge"):
        merge_counts([])
    with pytest.raises(InputError, match="do not merge"):
        Counts.empty("half", (2,)) + Counts.empty("single", (2,))
    with pytest.raises(InputError, match="float16"):
        count(np.zeros((1, 2), np.float32), "half")
    with pytest.raises(InputError, match="from 0 to 1"):
        Counts.empty("half", (2,)).quantile(1.5)


@pytest.mark.parametrize("largest", [1, 42, 43, 300, 70_000, 2**33])
def test_counts_travel_small_and_arrive_as_they_were(largest):
    counts = count(np.array([[1.5, 1.5, 2e-9, 3e7, np.nan], [0, np.inf, 7, 7, 7]], np.float32))
    table = counts.table.astype(np.int64) * largest
    sent = Counts("single", counts.keys, table, counts.nan, counts.infinite)
    packed = pickle.dumps(sent)
    arrived = pickle.loads(packed)
    for name in ("keys", "table", "nan", "infinite"):
        np.testing.assert_array_equal(getattr(arrived, name), getattr(sent, name))
    assert arrived.table.dtype.kind == "i"
    np.testing.assert_array_equal(merge_counts([arrived, sent]).table, 2 * table)
    np.testing.assert_array_equal(merge_counts([arrived] * 3).finite, 3 * sent.finite)
    np.testing.assert_array_equal(arrived.pooled().finite, sent.pooled().finite)
    np.testing.assert_array_equal(arrived.median(), sent.median())
    assert sys.getsizeof(sent) >= table.nbytes
    if largest < 2**16:
        assert len(packed) < (table.nbytes + sent.keys.nbytes) / 2
    nothing = pickle.loads(pickle.dumps(Counts.empty("half", (2,))))
    assert nothing.finite.tolist() == [0, 0]


def test_empty_groups_beside_filled_ones_have_no_mad():
    tally = Tally(3)
    tally.add(1, np.array([1, 2, 4], np.float32))
    counts = tally.finish()
    np.testing.assert_array_equal(np.isnan(counts.mad()), [True, False, True])
    np.testing.assert_allclose(counts.mad()[1], 1, rtol=2e-3)
