"""Fashion-MNIST from the IDX files of Debian's package ``dataset-fashion-mnist`` (MIT licence)."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DEFAULT_FOLDER = Path("/usr/share/datasets/fashion-mnist")
LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one gzipped IDX file of unsigned bytes."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is no IDX file of unsigned bytes")
    ndim = data[3]
    shape = np.frombuffer(data, ">i4", ndim, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def load_fashion_mnist(
    split: Literal["train", "test"], folder: Path | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images padded to 32x32 in -1..1, and their labels.

    Parameters
    ----------
    split : {"train", "test"}
        60,000 training or 10,000 test images.
    folder : Path, optional
        Where the four IDX files lie; by default ``$FASHION_MNIST`` or Debian's place.

    Returns
    -------
    images : float32 array, shape (n, 1, 32, 32)
        In -1..1; the border of two pixels is -1, as the background is.
    labels : int64 array, shape (n,)

    Raises
    ------
    FileNotFoundError
        When the files are not there; the message says how to get them.
    """
    folder = folder or Path(os.environ.get("FASHION_MNIST", DEFAULT_FOLDER))
    stem = {"train": "train", "test": "t10k"}[split]
    image_file = folder / f"{stem}-images-idx3-ubyte.gz"
    if not image_file.exists():
        raise FileNotFoundError(
            f"{image_file} not found: install Debian's package dataset-fashion-mnist, or set "
            "FASHION_MNIST to a folder with the four IDX files of Fashion-MNIST"
        )
    raw = _read_idx(image_file)
    labels = _read_idx(folder / f"{stem}-labels-idx1-ubyte.gz").astype(np.int64)
    images = np.full((len(raw), 1, 32, 32), -1.0, np.float32)
    images[:, 0, 2:30, 2:30] = raw.astype(np.float32) / 127.5 - 1.0
    return images, labels
