"""The pictures that judges look at: decoded images for latent models, else the samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

Pictures = NDArray[np.float32]
DECODERS = {"vae", "vqvae", "movq"}


def judged_variable(dataset: xr.Dataset) -> str:
    """``image`` for latent models whose decoded image was recorded, else ``sample``.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `open_runs` gives it.
    """
    if "image" not in dataset or "sample" not in dataset:
        return "image" if "image" in dataset else "sample"
    sample, image = dataset["sample"].sizes, dataset["image"].sizes
    if "frame" in sample:
        return "sample"
    same = (image["row"], image["column"]) == (sample["y"], sample["x"])
    return "sample" if same and sample["channel"] == image["colour"] else "image"


def undecoded(dataset: xr.Dataset) -> str | None:
    """What is judged where it is no picture: samples of a latent model without decoded images.

    Three channels may be latents too, where the recording names an autoencoder among its parts.
    """
    if judged_variable(dataset) == "image":
        return None
    channels = int(dataset["sample"].sizes["channel"])
    parts = (dataset.attrs.get("compute") or {}).get("precision", {})
    if channels in (1, 3) and not DECODERS & set(parts):
        return None
    return f"samples of {channels} channels, not decoded images"


def picture_shape(dataset: xr.Dataset) -> tuple[int, int, int]:
    """(channel, y, x) of the pictures that are judged."""
    sizes = dataset[judged_variable(dataset)].sizes
    if "colour" in sizes:
        return int(sizes["colour"]), int(sizes["row"]), int(sizes["column"])
    return int(sizes["channel"]) * int(sizes.get("frame", 1)), int(sizes["y"]), int(sizes["x"])


def read_pictures(dataset: xr.Dataset, positions: NDArray[np.intp] | slice) -> Pictures:
    """Pictures of some runs, by their places along the run dimension.

    Returns
    -------
    float32 array, shape (n, channel, y, x)
        In -1..1, where the data has a range of its own by that range.
    """
    name = judged_variable(dataset)
    part = dataset[name].isel(run=positions)
    if name == "image":
        return from_image(np.asarray(part.transpose("run", "row", "column", "colour").values))
    return as_pictures(np.asarray(part.values), dataset.attrs)


def from_image(image: NDArray[np.uint8]) -> Pictures:
    """8-bit images (n, row, column, colour) as pictures."""
    return np.ascontiguousarray(image.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1)


def as_pictures(samples: NDArray[Any], attributes: Mapping[str, Any] | None = None) -> Pictures:
    """Samples as (n, channel, y, x) in -1..1; a video's frames are stacked as channels.

    Parameters
    ----------
    samples : array, shape (n, [frame,] channel, y, x)
    attributes : mapping, optional
        Of their store: ``value_range``, where it is not -1..1.
    """
    samples = np.asarray(samples, np.float32)
    if samples.ndim != 4:
        samples = samples.reshape(len(samples), -1, *samples.shape[-2:])
    found = (attributes or {}).get("value_range")
    if found is None:
        return samples
    low, high = (float(limit) for limit in found)
    if (low, high) == (-1.0, 1.0) or high <= low:
        return samples
    return np.asarray((samples - low) * np.float32(2 / (high - low)) - 1, np.float32)
