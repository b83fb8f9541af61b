"""Pictures for a page: small PNGs as data URIs, a mask drawn as an outline, a figure rendered."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTLINE = (230, 97, 0)  # orange, told apart from blue and grey by every kind of colour vision


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image of shape (row, column, 1 | 3 | 4) or (row, column) as (row, column, 3)."""
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[-1] == 1:
        return np.repeat(image, 3, axis=-1)
    return image[..., :3]


def upscaled(array: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    """Repeat rows and columns of (row, column, ...) until the longer side reaches `size`."""
    factor = max(1, -(-size // max(array.shape[:2])))
    return array.repeat(factor, axis=0).repeat(factor, axis=1)


def with_outline(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], *, size: int = 160
) -> NDArray[np.uint8]:
    """Draw the border of a mask on an image.

    Parameters
    ----------
    image : uint8 array, shape (row, column[, colour])
    mask : bool array, shape (y, x)
        At the image's resolution or a fraction of it (latent models).
    size : int
        Least length of the longer side of the result, pixels.

    Returns
    -------
    uint8 array, shape (rows, columns, 3)
        The picture upscaled by a whole factor; the outline lies inside the mask.
    """
    picture = upscaled(as_rgb(image), size)
    rows = np.arange(picture.shape[0]) * mask.shape[0] // picture.shape[0]
    columns = np.arange(picture.shape[1]) * mask.shape[1] // picture.shape[1]
    large = np.pad(mask[np.ix_(rows, columns)], 2)
    inner = large.copy()
    for axis in (0, 1):
        for shift in (-2, -1, 1, 2):
            inner &= np.roll(large, shift, axis)
    border = (large & ~inner)[2:-2, 2:-2]
    picture = picture.copy()
    picture[border] = OUTLINE
    return np.asarray(picture, np.uint8)


def png_uri(picture: NDArray[np.uint8]) -> str:
    """Encode a picture of shape (row, column[, colour]) as a ``data:`` URI."""
    from PIL import Image

    grey = picture.ndim == 3 and picture.shape[-1] == 1
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if grey else picture).save(buffer, "PNG", optimize=True)
    return _uri("image/png", buffer.getvalue())


def figure_uri(figure: Figure) -> str:
    """Render a matplotlib figure as a PNG ``data:`` URI, and close it."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
    plt.close(figure)
    return _uri("image/png", buffer.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
