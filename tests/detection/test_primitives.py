"""Exact medians, banded blurs, openings and components against plain definitions."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import array_api_strict
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from asced_analysis.detection import row_means
from asced_analysis.detection.blur import gaussian_blur
from asced_analysis.detection.components import (
    erode,
    grow,
    keep_components,
    label_components,
    nested_score,
)
from asced_analysis.detection.medians import median_and_mad, nonnegative_median
from asced_analysis.detection.opening import grey_opening


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.integers(4096, 4200),
        elements=st.sampled_from([0.0, 1e-30, 0.5, 0.5000001, 1.0, 3.0, 1e30]),
    )
)
def test_counted_median_is_exact_with_ties(values: npt.NDArray[np.float32]) -> None:
    assert nonnegative_median(values) == np.median(values)


@pytest.mark.parametrize("count", [1, 2, 5, 4096, 4097, 50_000])
def test_median_and_mad_agree_over_namespaces(count: int) -> None:
    values = np.random.default_rng(count).exponential(size=(3, count)).astype(np.float32)
    median, mad = median_and_mad(values)
    np.testing.assert_array_equal(median, np.median(values, axis=1))
    np.testing.assert_array_equal(mad, np.median(np.abs(values - median[:, None]), axis=1))
    for array in (torch.from_numpy(values), array_api_strict.asarray(values)):
        other, other_mad = median_and_mad(array)
        np.testing.assert_array_equal(np.asarray(other), median)
        np.testing.assert_array_equal(np.asarray(other_mad), mad)


def test_a_nan_shows_in_the_median() -> None:
    values = np.ones(5000, dtype=np.float32)
    values[7] = np.nan
    assert np.isnan(nonnegative_median(values))
    assert torch.isnan(nonnegative_median(torch.from_numpy(values)))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 130), (200, 33)])
@pytest.mark.parametrize("sigma", [0.0, 0.25, 2.0, 5.0])
def test_blur_is_scipys(shape: tuple[int, int], sigma: float) -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, *shape)).astype(np.float32)
    expected = values
    for axis in (-2, -1, -3):
        if sigma:
            expected = ndimage.gaussian_filter1d(expected, sigma, axis=axis)
    found = gaussian_blur(values, sigma, axes=(-2, -1, -3))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    on_torch = gaussian_blur(torch.from_numpy(values), sigma, axes=(-2, -1, -3))
    np.testing.assert_allclose(on_torch.numpy(), found, atol=1e-6)


def test_blur_keeps_a_constant_to_the_last_bit() -> None:
    values = np.full((3, 150, 150), 17.0, dtype=np.float32)
    assert (gaussian_blur(values, 2.0, axes=(-2, -1, -3)) == 17.0).all()


masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)))


@settings(max_examples=60, deadline=None)
@given(masks, st.integers(1, 5))
def test_erosion_and_growth_are_scipys(mask: npt.NDArray[np.bool_], width: int) -> None:
    square = np.ones((width, width))
    for layer, eroded in zip(mask, erode(mask, width), strict=True):
        np.testing.assert_array_equal(eroded, ndimage.binary_erosion(layer, square))
    grown = grow(torch.from_numpy(mask), width).numpy()
    for layer, big in zip(mask, grown, strict=True):
        expected = ndimage.binary_dilation(layer, np.ones((2 * width + 1, 2 * width + 1)))
        np.testing.assert_array_equal(big, expected)


def test_components_never_cross_images() -> None:
    mask = np.ones((3, 4, 4), dtype=bool)
    assert label_components(mask)[1] == 3
    diagonal = np.eye(4, dtype=bool)[None]
    assert label_components(diagonal)[1] == 4
    assert not keep_components(mask, min_area=16).any()
    assert keep_components(mask, min_area=15, max_area=17).all()
    assert not keep_components(mask, max_area=16).any()


statistics = hnp.arrays(
    np.float32, (2, 7, 9), elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0])
)


@settings(max_examples=60, deadline=None)
@given(statistics, st.integers(1, 4))
def test_opening_commutes_with_the_level(statistic: npt.NDArray[np.float32], width: int) -> None:
    opened = grey_opening(statistic, width)
    for level in (-2.0, -1.0, 0.0, 0.7, 2.0):
        for layer, above in zip(opened, statistic > level, strict=True):
            expected = ndimage.binary_opening(np.pad(above, width), np.ones((width, width)))[
                width:-width, width:-width
            ]
            np.testing.assert_array_equal(layer > level, expected)


@settings(max_examples=40, deadline=None)
@given(statistics, st.integers(0, 5), st.integers(1, 3))
def test_nested_score_is_the_largest_level_that_leaves_anything(
    statistic: npt.NDArray[np.float32], area: int, width: int
) -> None:
    sizes: dict[str, Any] = {"min_area": area, "min_width": width}
    scores = nested_score(statistic, **sizes)
    at = keep_components(statistic > scores[:, None, None], **sizes).any(axis=(1, 2))
    below = keep_components(statistic > scores[:, None, None] - 1e-3, **sizes).any(axis=(1, 2))
    assert not at.any()
    assert below.all()


@settings(max_examples=60, deadline=None)
@given(statistics, st.integers(0, 20), st.integers(1, 3), st.integers(1, 40))
def test_components_are_the_same_by_bands(
    statistic: npt.NDArray[np.float32], area: int, width: int, at_once: int
) -> None:
    """Joined at the seams, and levels found between those of a sample."""
    sizes: dict[str, Any] = {"min_area": area, "min_width": width}
    kept = keep_components(statistic > 0, max_area=30, **sizes)
    scores = nested_score(statistic, **sizes)
    with patch.object(row_means, "AT_ONCE", at_once):
        np.testing.assert_array_equal(keep_components(statistic > 0, max_area=30, **sizes), kept)
        np.testing.assert_array_equal(nested_score(statistic, **sizes), scores)


def test_large_noise_is_cleaned_up_by_bands() -> None:
    """Many components over many seams, at levels that differ from pixel to pixel."""
    noise = np.random.default_rng(0).normal(size=(1, 203, 149)).astype(np.float32)
    statistic = gaussian_blur(noise, 1.0)
    sizes: dict[str, Any] = {"min_area": 12, "min_width": 3}
    mask, score = keep_components(statistic > 0.1, **sizes), nested_score(statistic, **sizes)
    assert 0.1 < mask.mean() < 0.9
    with patch.object(row_means, "AT_ONCE", 1000):
        np.testing.assert_array_equal(keep_components(statistic > 0.1, **sizes), mask)
        np.testing.assert_array_equal(nested_score(statistic, **sizes), score)
