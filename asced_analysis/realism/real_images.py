"""Real images: a folder of any sizes and formats, `.npz`, `.npy`, Zarr, or an array.

Each is cropped about its centre to the aspect ratio of the runs' images and scaled to their size
(Lanczos), grey or RGB as they are; transparent pixels lie on white, and EXIF turns are carried out.
The set is split by content into two halves, one for a teacher and one for a judge. Pictures of the
judged runs are none: they are left out (`without_runs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism.claims import Reference
from asced_analysis.realism.membership import digest, halves
from asced_analysis.realism.pictures import read_pictures
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from PIL import Image

MOST = 5000
FEWEST = 8  # four a half: precision and recall look at three neighbours
ROUNDED = 2.01 / 255  # in -1..1: 8 bits, rounded or cut off
AT_ONCE = 256
Role = Literal["teacher", "judge"]
Pictures = NDArray[np.float32]
Real = str | PathLike[str] | NDArray[Any]


@dataclass(frozen=True)
class RealImages:
    """Real images as a judge looks at them.

    Attributes
    ----------
    images : float32 array, shape (n, channel, y, x)
        In -1..1.
    source : str
        Name of the folder or file, without its path.
    """

    images: Pictures
    source: str

    def half(self, role: Role) -> tuple[Pictures, Reference]:
        """The teacher's or the judge's half, and how it is named."""
        chosen = self.images[halves(self.images)[role == "judge"]]
        source = f"the {role}'s half of the real images in {self.source}"
        return chosen, Reference("real", source, len(chosen))


def read_real(real: Real | RealImages, shape: Sequence[int], *, seed: int = 0) -> RealImages:
    """Read real images as the runs' images are.

    Parameters
    ----------
    real : path, array or RealImages
        A folder (with its subfolders), an ``.npz``, ``.npy`` or ``.zarr``, or an array of shape
        (n, y, x), (n, y, x, colour) or (n, channel, y, x): uint8, or floats in -1..1 or 0..1.
    shape : (channel, y, x)
        Of the runs' images, one channel or three.
    seed : int
        Of the choice of `MOST` where there are more.

    Raises
    ------
    InputError
        Where there are no images or fewer than `FEWEST`, where one cannot be read or is not finite.
    """
    if isinstance(real, RealImages):
        return real
    channels, height, width = (int(size) for size in shape)
    if channels not in (1, 3):
        raise InputError(
            f"the runs' images have {channels} channels, and real ones can only be grey or RGB: "
            "record the decoded `image` of latent models, or judge without real images"
        )
    if isinstance(real, (str, PathLike)):
        path = Path(real)
        if path.is_dir() and not _is_zarr(path):
            images = _read_folder(path, channels, (width, height), seed)
            return _checked(images, path.name or str(path))
        array, source = _read_array(path), path.name
    else:
        array, source = np.asarray(real), "an array"
    return _checked(_fit_array(array, channels, (width, height), source, seed), source)


def without_runs(
    images: Pictures, of: Reference, datasets: Sequence[xr.Dataset]
) -> tuple[Pictures, Reference]:
    """Real images less those that are pictures of the judged runs, such as their files of 8 bits.

    A run is at no distance from its own picture, and its corrected version at nearly none.

    Parameters
    ----------
    images : float32 array, shape (n, channel, y, x)
    of : Reference
        What they are.
    datasets : sequence of xarray.Dataset
        The runs, as `open_runs` gives them.

    Raises
    ------
    InputError
        Where fewer than half of `FEWEST` are left.
    """
    from scipy.spatial import cKDTree

    sketches = cKDTree(_sketch(images))
    own = np.zeros(len(images), np.bool_)
    for dataset in datasets:
        for begin in range(0, dataset.sizes["run"], AT_ONCE):
            seen = read_pictures(dataset, slice(begin, begin + AT_ONCE)).clip(-1, 1)
            near: Any = sketches.query_ball_point(_sketch(seen), ROUNDED, p=np.inf)
            for picture, places in zip(seen, near, strict=True):
                for place in places:
                    own[place] |= bool(np.abs(images[place] - picture).max() <= ROUNDED)
    if not own.any():
        return images, of
    left, out = images[~own], int(own.sum())
    if len(left) < FEWEST // 2:
        raise InputError(
            f"{of.source}: {out} of {len(images)} images are pictures of the judged runs, and no "
            f"image is judged against itself; give at least {FEWEST} real images from elsewhere, "
            "or judge without them"
        )
    source = f"{of.source} ({out} left out: pictures of the judged runs)"
    return left, replace(of, source=source, images=len(left))


def _sketch(images: Pictures) -> Pictures:
    """Means over four by four parts of each image, shape (n, 16 channels)."""
    parts = [
        part.mean((2, 3))
        for band in np.array_split(images, min(4, images.shape[2]), axis=2)
        for part in np.array_split(band, min(4, images.shape[3]), axis=3)
    ]
    return np.concatenate(parts, axis=1)


def _checked(images: Pictures, source: str) -> RealImages:
    different = len({digest(image) for image in images})
    if different < FEWEST:
        raise InputError(
            f"{source} holds {len(images)} image{'s' * (len(images) != 1)}"
            + (f", of which {different} differ" if different < len(images) else "")
            + f"; real images are split between teacher and judge, so at least {FEWEST} different "
            "ones are needed"
        )
    return RealImages(images, source)


def _few(count: int, seed: int) -> NDArray[np.intp]:
    return np.sort(np.random.default_rng(seed).permutation(count)[:MOST])


def _read_folder(folder: Path, channels: int, size: tuple[int, int], seed: int) -> Pictures:
    """Every image of a folder, in order of their names."""
    from PIL import Image, UnidentifiedImageError

    known = Image.registered_extensions()
    names = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in known and path.is_file() and not path.name.startswith(".")
    )
    if not names:
        raise InputError(
            f"there is no image in {folder}; give a folder of files that Pillow reads (png, jpg, "
            "webp, tif, ...), an .npz or a .zarr"
        )
    rows = []
    for place in _few(len(names), seed):
        try:
            with Image.open(names[place]) as picture:
                rows.append(_fit(_as_mode(picture, channels), size))
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            raise InputError(f"{names[place]} is no image that can be read: {error}") from error
    return np.stack(rows)


def _as_mode(picture: Image.Image, channels: int) -> Image.Image:
    """Turned as EXIF says, on white where transparent, grey or RGB."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):  # 16 bits and more
        values = np.asarray(picture, np.float64)
        top = 255.0 if values.max() <= 255 else 65535.0 if values.max() <= 65535 else values.max()
        picture = Image.fromarray((values / max(top, 1e-9) * 255).clip(0, 255).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        white = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, clear)
    return picture.convert("L" if channels == 1 else "RGB")


def _fit(picture: Image.Image, size: tuple[int, int]) -> Pictures:
    """Cropped about the centre, scaled, as (channel, y, x) in -1..1."""
    from PIL import Image, ImageOps

    fitted = picture
    if picture.size != size:
        fitted = ImageOps.fit(picture, size, Image.Resampling.LANCZOS, centering=(0.5, 0.5))
    array = np.asarray(fitted, np.float32)
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return array / np.float32(127.5) - np.float32(1)


def _is_zarr(path: Path) -> bool:
    return (path / "zarr.json").exists() or (path / ".zarray").exists() or path.suffix == ".zarr"


def _read_array(path: Path) -> NDArray[Any]:
    """The one array of images in a file."""
    if not path.exists():
        raise InputError(f"there are no real images at {path}; give a folder, .npz, .npy or .zarr")
    if not _is_zarr(path) and path.suffix not in (".npy", ".npz"):
        raise InputError(f"{path} is neither a folder nor .npz, .npy or .zarr")
    try:
        return _array_in(path)
    except InputError:
        raise
    except Exception as error:  # each library has its own for a file that is cut off or another's
        raise InputError(
            f"{path} can't be read ({error}); expected a file of one array of images, as "
            "numpy.savez or zarr writes it"
        ) from error


def _array_in(path: Path) -> NDArray[Any]:
    """The array called image, images or sample, or the only one of three or four dimensions."""
    if _is_zarr(path):
        import zarr

        node = zarr.open(str(path), mode="r")
        if isinstance(node, zarr.Array):
            return np.asarray(node[...])
        arrays = dict(node.arrays())
    else:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            arrays = {name: loaded[name] for name in loaded.files}
    for name in ("image", "images", "sample"):
        if name in arrays:
            return np.asarray(arrays[name][...])
    pictures = [name for name, array in arrays.items() if array.ndim in (3, 4)]
    if len(pictures) != 1:
        raise InputError(
            f"{path.name} holds {', '.join(arrays) or 'no array'}; call the one with the images "
            "'images'"
        )
    return np.asarray(arrays[pictures[0]][...])


def _fit_array(
    array: NDArray[Any], channels: int, size: tuple[int, int], source: str, seed: int
) -> Pictures:
    """An array of images as (n, channel, y, x) in -1..1, of the wanted size."""
    exact = array.ndim == 4 and array.shape[1:] == (channels, *size[::-1])
    if array.ndim == 3:
        array = array[..., None]
    elif exact or (
        array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[-1] not in (1, 3, 4)
    ):
        array = np.moveaxis(array, 1, -1)
    if array.ndim != 4 or array.shape[-1] not in (1, 3, 4):
        raise InputError(
            f"{source} has shape {array.shape}; expected (n, y, x), (n, y, x, colour) or "
            "(n, channel, y, x), grey or RGB"
        )
    array = array[_few(len(array), seed)][..., :3]
    if not len(array):
        raise InputError(f"{source} holds no image")
    if array.dtype == np.uint8:
        unit = array.astype(np.float32) / 255
    else:
        unit = array.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(unit).all((1, 2, 3)))
        if len(bad):
            raise InputError(f"real image {bad[0]} of {source} holds NaN or infinity; leave it out")
        low, high = float(unit.min()), float(unit.max())
        if low < -1.001 or high > 1.001:
            raise InputError(
                f"{source} reaches from {low:.3g} to {high:.3g}; expected uint8, -1..1 or 0..1"
            )
        unit = unit / 2 + 0.5 if low < 0 else unit
    if channels == 1 and unit.shape[-1] == 3:
        unit = unit @ np.array([[0.299], [0.587], [0.114]], np.float32)
    elif channels == 3 and unit.shape[-1] == 1:
        unit = unit.repeat(3, axis=-1)
    if unit.shape[1:3] != size[::-1]:
        unit = np.stack([_scaled(one, size) for one in unit])
    return np.ascontiguousarray(unit.transpose(0, 3, 1, 2) * 2 - 1, np.float32)


def _scaled(picture: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """One image (y, x, colour) in 0..1 at another size; floats keep their precision."""
    from PIL import Image, ImageOps

    bands = [
        np.asarray(ImageOps.fit(Image.fromarray(band), size, Image.Resampling.LANCZOS))
        for band in np.moveaxis(picture, -1, 0)
    ]
    return np.stack(bands, axis=-1).clip(0, 1)
