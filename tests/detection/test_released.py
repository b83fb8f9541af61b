"""The released detector agrees with the authors' masks and with plain SciPy, on NumPy and torch."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage

from asced_analysis.detection import VARIANTS, released
from asced_stores.errors import InputError

HERE = Path(__file__).parent
GOLDEN = HERE.parents[2] / "shared" / "golden" / "released.npz"

_spec = importlib.util.spec_from_file_location("scipy_oracle", HERE / "scipy_oracle.py")
assert _spec is not None
assert _spec.loader is not None
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)


def wandering_pictures(
    seed: int, steps: int, channels: int, height: int, width: int, scale: float = 0.2
) -> npt.NDArray[np.float32]:
    """Noise that adds up over steps, some of it flat or with a flat part that jumps."""
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.normal(size=(steps, channels, height, width)) * scale, axis=0)
    if seed % 3 == 0:  # flat pictures: medians and MADs tie everywhere
        values = np.broadcast_to(values.mean(axis=(2, 3), keepdims=True), values.shape).copy()
    if seed % 2 == 0:
        values[:, :, : height // 2, : width // 2] += rng.normal(size=(steps, 1, 1, 1))
    return values.astype(np.float32)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the authors' masks are not at hand")
def test_matches_the_masks_of_the_authors_code() -> None:
    golden = np.load(GOLDEN)
    for index in range(sum(name.startswith("u8_") for name in golden.files)):
        x0 = (golden[f"u8_{index}"].astype(np.float32) + np.float32(0.25)) / np.float32(127.5)
        expected = golden[f"mask_{index}"]
        found = released.artifact_mask(x0 - np.float32(1))
        assert (found == expected).mean() >= 0.9999
        assert ndimage.label(found)[1] == ndimage.label(expected)[1]


@pytest.mark.parametrize("seed", range(12))
def test_matches_plain_scipy_on_any_shape(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    steps, channels = int(rng.integers(2, 6)), int(rng.choice([1, 3, 4]))
    height, width = (int(size) for size in rng.integers(3, 90, 2))
    x0 = wandering_pictures(seed, steps, channels, height, width, float(rng.choice([0.02, 0.3])))
    sizes: dict[str, Any] = {
        "min_area": int(rng.integers(0, 30)),
        "max_area": int(rng.integers(200, 2000)),
        "min_width": int(rng.integers(1, 6)),
        "mad_scale": float(rng.choice([1.0, 3.0])),
    }
    expected = oracle.artifact_mask(x0, **sizes)
    np.testing.assert_array_equal(released.artifact_mask(x0, **sizes), expected)
    on_torch = released.artifact_mask(torch.from_numpy(x0), **sizes)
    assert on_torch.dtype == torch.bool
    np.testing.assert_array_equal(on_torch.numpy(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_matches_plain_scipy_at_full_size(seed: int) -> None:
    x0 = wandering_pictures(seed + 1, 12, 3, 256, 256, 0.1)
    smooth = np.stack([[ndimage.gaussian_filter(c, 6) * 10 for c in step] for step in x0])
    found = released.artifact_mask(smooth.astype(np.float32))
    expected = oracle.artifact_mask(smooth.astype(np.float32))
    assert (found == expected).mean() >= 0.9999


def test_batch_axes_and_half_precision() -> None:
    runs = np.stack([wandering_pictures(seed, 4, 3, 24, 20) for seed in range(1, 7)])
    stacked = released.artifact_mask(runs.reshape(2, 3, *runs.shape[1:]), min_area=5, min_width=2)
    assert stacked.shape == (2, 3, 24, 20)
    single = [released.artifact_mask(run, min_area=5, min_width=2) for run in runs]
    np.testing.assert_array_equal(stacked.reshape(6, 24, 20), np.stack(single))
    assert any(mask.any() for mask in single)
    half = released.artifact_mask(runs.astype(np.float16), min_area=5, min_width=2)
    assert half.shape == (6, 24, 20)


def test_still_and_evenly_changing_pictures_are_calm() -> None:
    still = np.full((5, 3, 40, 40), 0.3, dtype=np.float32)
    assert not released.artifact_mask(still, min_area=0, min_width=1).any()
    brighter = still + np.linspace(0, 0.5, 5, dtype=np.float32)[:, None, None, None]
    assert not released.artifact_mask(brighter, min_area=0, min_width=1).any()
    assert released.artifact_mask(still[:0]).shape == (40, 40)


def test_the_picture_is_clipped_and_truncated() -> None:
    x0 = np.array([-3.0, -1.0, -0.9999, 0.0, 1.0, 7.0], dtype=np.float32)
    assert released.frame(x0).tolist() == [0, 0, 0, 127, 255, 255]


def test_mask_grows_by_a_square() -> None:
    mask = np.zeros((1, 31, 31), dtype=bool)
    mask[0, 15, 15] = True
    grown = released.grown(mask)
    assert grown.sum() == 121
    assert grown[0, 10:21, 10:21].all()


def test_sizes_scale_with_the_image() -> None:
    assert released.Parameters.for_size(256, 256) == released.Parameters()
    small = released.Parameters.for_size(32, 32)
    assert (small.min_area, small.min_width, small.blur) == (3, 2, 0.25)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_signal_of_every_variant_may_be_given_by_name(variant: str) -> None:
    mask = importlib.import_module(f"asced_analysis.detection.{variant}").artifact_mask
    signal = next(iter(inspect.signature(mask).parameters.values()))
    assert signal.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


@pytest.mark.parametrize(
    "bad", [{"mad_scale": -1.0}, {"min_area": 10, "max_area": 5}, {"min_width": 0}]
)
def test_impossible_parameters_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        released.artifact_mask(np.zeros((3, 1, 8, 8), dtype=np.float32), **bad)
    with pytest.raises(InputError, match="expected"):
        released.artifact_mask(np.zeros((8, 8), dtype=np.float32))
