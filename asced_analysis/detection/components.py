"""Connected components of masks: labelling, clean-up by size, growing.

Labelling is the one primitive that runs on the host for every namespace (SciPy): masks are small,
and a GPU has nothing to win there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import array_api_compat
import numpy as np

AT_ONCE = 1 << 16
"""Labels that are used as indices at once."""


def label_components(mask: Any, /) -> tuple[np.ndarray[Any, np.dtype[np.int32]], int]:
    """Label the 4-connected components of a stack of masks, never across images.

    Parameters
    ----------
    mask : array, bool, shape (..., y, x)

    Returns
    -------
    labels : ndarray, int32, shape of `mask`
        0 is background; labels are unique over the whole stack.
    count : int
    """
    from scipy import ndimage

    host = np.asarray(_to_host(mask))
    cross = ndimage.generate_binary_structure(2, 1)
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = cross
    labels = np.empty(host.shape, dtype=np.int32)
    count = ndimage.label(
        host.reshape(-1, *host.shape[-2:]),
        structure=structure,
        output=labels.reshape(-1, *host.shape[-2:]),
    )
    return labels, int(count)


def keep_components(
    mask: Any, /, *, min_area: float = 0, max_area: float | None = None, min_width: int = 1
) -> Any:
    """Keep the 4-connected components of a plausible size.

    Parameters
    ----------
    mask : array, bool, shape (..., y, x)
    min_area, max_area : float, pixels
        A component stays where ``min_area < area < max_area`` (no upper bound where None).
    min_width : int, pixels
        A component stays where an erosion by a square of this side leaves at least one pixel;
        what lies outside the image counts as background.

    Returns
    -------
    array, bool, shape of `mask`
        In the namespace and on the device of `mask`.
    """
    labels, count = label_components(mask)
    if count == 0:
        return mask
    area = np.zeros(count + 1, np.int64)
    for part in _pieces(labels):
        area += np.bincount(part, minlength=count + 1)
    keep = area > min_area
    if max_area is not None:
        keep &= area < max_area
    if min_width > 1:
        core = erode(np.asarray(_to_host(mask)), min_width)
        wide = np.zeros(count + 1, dtype=bool)
        wide[labels[core]] = True
        keep &= wide
    keep[0] = False
    kept = np.empty(labels.shape, bool)
    for part, place in zip(_pieces(labels), _pieces(kept), strict=True):
        place[:] = keep[part]
    return _like(kept, mask)


def _pieces(values: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Elements of a C-contiguous array, so many at a time: eight bytes each as indices."""
    flat = values.reshape(-1)
    return (flat[at : at + AT_ONCE] for at in range(0, flat.size, AT_ONCE))


def erode(mask: Any, width: int) -> Any:
    """Erode by a square: a pixel stays where its whole `width` x `width` square is set.

    Parameters
    ----------
    mask : array, bool, shape (..., y, x)
    width : int, pixels
        For an even width the square reaches one pixel further up and left, as in SciPy.

    Returns
    -------
    array, bool, shape of `mask`
    """
    return _window(mask, width, every=True)


def grow(mask: Any, pixels: int) -> Any:
    """Grow a mask by some pixels on every side (a square of side ``2 * pixels + 1``).

    Parameters
    ----------
    mask : array, bool, shape (..., y, x)
    pixels : int

    Returns
    -------
    array, bool, shape of `mask`
    """
    return mask if pixels <= 0 else _window(mask, 2 * pixels + 1, every=False)


def nested_score(
    statistic: Any, /, *, min_area: float = 0, min_width: int = 1
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Largest level at which the cleaned-up mask ``statistic > level`` is not empty.

    Parameters
    ----------
    statistic : array, shape (batch, y, x)
        Finite values.
    min_area, min_width : pixels
        As in `keep_components`; there is no upper bound on the area, so masks shrink as the level
        grows and the score is well defined.

    Returns
    -------
    ndarray, float64, shape (batch,)
        The mask is empty at this level and not empty just below it; -inf where no level leaves
        anything. Found by bisection over each image's own sorted values, so it is exact.
    """
    host = np.asarray(_to_host(statistic))
    batch = host.shape[0]
    ordered = np.sort(host.reshape(batch, -1), axis=1)
    # invariant: the mask at ordered[high] is empty, the one at ordered[low] is not (-1: below all)
    low = np.full(batch, -1)
    high = np.full(batch, ordered.shape[1] - 1)
    whole = keep_components(
        np.ones((1, *host.shape[1:]), bool), min_area=min_area, min_width=min_width
    )
    while bool((high - low > 1).any()):
        middle = np.maximum((low + high) // 2, 0)
        level = ordered[np.arange(batch), middle]
        kept = keep_components(
            host > level[:, None, None], min_area=min_area, min_width=min_width
        ).any(axis=(1, 2))
        low = np.where(kept, middle, low)
        high = np.where(kept, high, np.minimum(middle, high))
    score = ordered[np.arange(batch), high].astype(np.float64)
    # at the smallest value itself the whole image may still stand just below it
    return score if bool(whole.any()) else np.full(batch, -np.inf)


def _window(mask: Any, width: int, *, every: bool) -> Any:
    """All (or any) of a centred square window, outside counting as background; separable."""
    if width <= 1:
        return mask
    xp = array_api_compat.array_namespace(mask)
    before = width // 2
    for axis in (-2, -1):
        size = mask.shape[axis]
        result = None
        for offset in range(-before, width - before):
            moved = _shift(xp, mask, offset, axis, size)
            result = moved if result is None else (result & moved if every else result | moved)
        mask = result
    return mask


def _shift(xp: Any, mask: Any, offset: int, axis: int, size: int) -> Any:
    """Element ``i + offset`` of an axis at place i, False beyond the border."""
    offset = max(-size, min(size, offset))
    if offset == 0:
        return mask
    shape = list(mask.shape)
    shape[axis] = abs(offset)
    empty = xp.zeros(tuple(shape), dtype=mask.dtype, device=array_api_compat.device(mask))
    if axis == -1:
        kept = mask[..., offset:] if offset > 0 else mask[..., : size + offset]
    else:
        kept = mask[..., offset:, :] if offset > 0 else mask[..., : size + offset, :]
    return xp.concat([kept, empty] if offset > 0 else [empty, kept], axis=axis)


def _to_host(values: Any) -> Any:
    """Values as something NumPy understands."""
    if array_api_compat.is_torch_array(values):
        return values.detach().cpu().numpy()
    return values


def _like(host: Any, like: Any) -> Any:
    """A host array in the namespace and on the device of another array."""
    if array_api_compat.is_numpy_array(like):
        return host
    xp = array_api_compat.array_namespace(like)
    return xp.asarray(host, device=array_api_compat.device(like))
