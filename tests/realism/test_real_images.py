"""Real images of any size and format, and what is no set of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from asced_analysis.realism import patch_model
from asced_analysis.realism.claims import Reference
from asced_analysis.realism.judges import choose_judge
from asced_analysis.realism.real_images import read_real
from asced_stores.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of many sizes, modes and formats, one of them deeper down."""
    rng = np.random.default_rng(0)
    modes = ["RGB", "L", "RGBA", "P", "CMYK", "I;16"]
    for i in range(12):
        mode, size = modes[i % 6], (int(rng.integers(20, 90)), int(rng.integers(20, 90)))
        if mode == "I;16":
            picture = Image.fromarray(rng.integers(0, 65535, size, np.uint16))
        else:
            colours = rng.integers(0, 255, (*size, 3), np.uint8)
            picture = Image.fromarray(colours).convert(mode)
        suffix = {"CMYK": "jpg", "L": "webp"}.get(mode, "png")
        place = tmp_path / "more" if i == 5 else tmp_path
        place.mkdir(exist_ok=True)
        picture.save(place / f"{i:02}.{suffix}")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_anything(folder: Path, channels: int) -> None:
    found = read_real(folder, (channels, 16, 24))
    assert found.images.shape == (12, channels, 16, 24)
    assert found.images.min() >= -1
    assert found.images.max() <= 1
    assert (found.images.std((1, 2, 3)) > 0.05).all()
    assert found.source == folder.name
    halves = [found.half(role) for role in ("teacher", "judge")]
    assert sum(len(images) for images, _ in halves) == 12
    assert "teacher's half" in halves[0][1].source
    assert str(folder) not in str(halves[0][1])


def test_it_is_cropped_about_the_centre(tmp_path: Path) -> None:
    for i in range(8):
        wide = np.zeros((32, 96), np.uint8)
        wide[:, 32:64] = 200 + i
        Image.fromarray(wide).save(tmp_path / f"{i}.png")
    found = read_real(tmp_path, (1, 16, 16)).images
    np.testing.assert_allclose(found[:, 0, 8, 8], np.arange(200, 208) / 127.5 - 1, atol=1e-2)
    assert found.std((1, 2, 3)).max() < 0.05


def test_arrays_and_files_of_them(tmp_path: Path) -> None:
    import zarr

    rng = np.random.default_rng(0)
    eight = rng.integers(0, 255, (9, 16, 16, 3), np.uint8)
    expected = eight.transpose(0, 3, 1, 2) / np.float32(127.5) - 1
    unit = eight.transpose(0, 3, 1, 2) / np.float32(255)
    np.savez(tmp_path / "a.npz", images=eight, names=np.arange(9))
    np.save(tmp_path / "b.npy", eight)
    zarr.create_array(str(tmp_path / "c.zarr"), data=eight)
    zarr.open_group(str(tmp_path / "d.zarr"), mode="w").create_array("image", data=eight)
    paths = [tmp_path / name for name in ("a.npz", "b.npy", "c.zarr", "d.zarr")]
    for given in (eight, unit, expected, *paths):
        found = read_real(given, (3, 16, 16)).images
        np.testing.assert_allclose(found, expected, atol=1e-5)
    grey = read_real(eight, (1, 8, 8)).images
    assert grey.shape == (9, 1, 8, 8)


def test_what_is_no_set_of_real_images(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image in"):
        read_real(tmp_path / "empty", (1, 16, 16))
    with pytest.raises(InputError, match="no real images at"):
        read_real(tmp_path / "nowhere", (1, 16, 16))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name in ("cut.npz", "cut.npy", "other.zarr"):
        (tmp_path / name).write_bytes(b"PK\x03\x04nothing")
    for name in ("objects.npy", "cut.npz", "cut.npy", "other.zarr"):
        with pytest.raises(InputError, match=f"{name} can't be read"):
            read_real(tmp_path / name, (1, 16, 16))
    with pytest.raises(InputError, match=r"holds 1 image;.*at least 8 different"):
        read_real(np.zeros((1, 16, 16), np.uint8), (1, 16, 16))
    with pytest.raises(InputError, match="4 channels"):
        read_real(folder, (4, 16, 16))
    with pytest.raises(InputError, match="expected uint8"):
        read_real(np.full((9, 16, 16), 7.0), (1, 16, 16))
    bad = np.zeros((9, 16, 16), np.float32)
    bad[2, 3, 3] = np.nan
    with pytest.raises(InputError, match=r"real image 2 .* NaN"):
        read_real(bad, (1, 16, 16))
    with pytest.raises(InputError, match="has shape"):
        read_real(np.zeros((9, 5, 16, 16)), (3, 16, 16))
    copies = np.repeat(np.arange(2, dtype=np.uint8), [9, 1])[:, None, None] * np.eye(16, dtype=int)
    with pytest.raises(InputError, match=r"holds 10 images, of which 2 differ.*at least 8 differ"):
        read_real(copies.astype(np.uint8), (1, 16, 16))
    with pytest.raises(InputError, match="one flat colour"):
        patch_model(np.full((9, 1, 16, 16), -1, np.float32), of=Reference())
    (folder / "broken.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"broken\.png is no image"):
        read_real(folder, (1, 16, 16))


def test_latents_without_decoded_images_are_said_to_be_latents() -> None:
    rng = np.random.default_rng(0)

    def runs(channels: int, **attributes: Any) -> xr.Dataset:
        sample = rng.standard_normal((20, channels, 8, 8)).astype(np.float32)
        data = {"sample": (("run", "channel", "y", "x"), sample)}
        return xr.Dataset(data, {"run": np.arange(20)}, attributes)

    decoder = {"precision": {"unet": "float32", "vqvae": "float32"}}
    for latents in (runs(4), runs(3, compute=decoder)):
        source = choose_judge("patches", latents).reference.source
        assert f"(samples of {latents.sizes['channel']} channels, not decoded images)" in source
        with pytest.raises(InputError, match="record `image` as well"):
            choose_judge("patches", latents, real=np.zeros((9, 8, 8), np.uint8))
    assert choose_judge("patches", runs(3)).reference.source.endswith("recorded runs")
