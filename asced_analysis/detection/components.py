"""Connected components of masks: labelling, clean-up by size, growing.

Labelling is the one primitive that runs on the host for every namespace (SciPy): masks are small,
and a GPU has nothing to win there. Large images are labelled by bands of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
import numpy.typing as npt

from asced_analysis.detection import row_means

Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


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
    host = np.asarray(_to_host(mask))
    kept = np.empty(host.shape, bool)
    stacks = kept.reshape(-1, *host.shape[-2:])
    for which, bands in _bands_of(host, _Sizes(min_area, max_area, min_width)):
        bands.fill(stacks[which])
    return _like(kept, mask)


@dataclass(frozen=True)
class _Sizes:
    """Which components stay (see `keep_components`)."""

    min_area: float
    max_area: float | None
    min_width: int

    def plausible(self, area: npt.NDArray[np.integer], wide: Mask) -> Mask:
        """Those of such areas, of which a pixel outlives the erosion."""
        keep: Mask = wide & (area > self.min_area)
        return keep if self.max_area is None else keep & (area < self.max_area)


def _bands_of(masks: Mask, sizes: _Sizes) -> Iterator[tuple[slice, _Bands]]:
    """Small images some at a time, large ones each by bands of its rows: they stay in the cache."""
    height, width = masks.shape[-2:]
    images = masks.reshape(-1, height, width)
    rows = list(row_means.bands(height, width))
    for some in row_means.bands(len(images), height * width):
        yield some, _Bands(images[some], rows, sizes)


class _Bands:
    """Components of an image, or of some that are one band, shape (image, y, x).

    A band decides on those that lie in it; those that a seam cuts are joined over all bands.
    """

    def __init__(self, images: Mask, rows: list[slice], sizes: _Sizes) -> None:
        self._images, self._rows, self._sizes = images, rows, sizes
        self._cut: list[tuple[Labels, npt.NDArray[np.int64], Mask]] = []
        self._pairs: list[npt.NDArray[np.int64]] = []

    def fill(self, kept: Mask) -> None:
        """Write the pixels of components that stay."""
        for rows, labels, keep in self._decided():
            np.take(keep, labels, out=kept[:, rows], mode="clip")
        for rows, chosen in zip(self._rows, self._joined(), strict=True):
            if chosen.size:
                labels, count = label_components(self._images[:, rows])
                keep = np.zeros(count + 1, bool)
                keep[chosen] = True
                kept[:, rows] |= np.take(keep, labels, mode="clip")

    def any(self) -> Mask:
        """Whether a component of each image stays; looked for until one is found."""
        found = np.zeros(len(self._images), bool)
        for _, labels, keep in self._decided():
            one = len(found) == 1  # then no label is of another image
            staying = keep if one else np.take(keep, labels, mode="clip")
            found |= staying.reshape(len(found), -1).any(axis=1)
            if len(self._rows) > 1 and found.all():
                return found
        found |= any(chosen.size for chosen in self._joined())
        return found

    def _decided(self) -> Iterator[tuple[slice, Labels, Mask]]:
        """Rows, their labels, and which of these stay whatever lies in other bands."""
        above = None
        for place, rows in enumerate(self._rows):
            labels, count = label_components(self._images[:, rows])
            area = np.bincount(labels.reshape(-1), minlength=count + 1)
            wide = self._wide(rows, labels, count)
            seams = [-1] * (place + 1 < len(self._rows)) + [0] * (place > 0)
            cut = np.unique(labels[:, seams])
            cut = cut[cut > 0]
            if above is not None:
                self._pair(above, labels[0, 0], cut)
            self._cut.append((cut, area[cut], wide[cut]))
            above = labels[0, -1].copy()
            keep = self._sizes.plausible(area, wide)
            keep[0] = False
            keep[cut] = False
            yield rows, labels, keep

    def _wide(self, rows: slice, labels: Labels, count: int) -> Mask:
        """Of which labels a pixel outlives the erosion."""
        width = self._sizes.min_width
        if width <= 1:
            return np.ones(count + 1, bool)
        top = max(0, rows.start - width)
        core = erode(self._images[:, top : rows.stop + width], width)
        wide = np.zeros(count + 1, bool)
        wide[labels[core[:, rows.start - top : rows.stop - top]]] = True
        return wide

    def _pair(self, above: Labels, below: Labels, cut: Labels) -> None:
        """Note which labels touch across a seam, by their numbers among all that are cut."""
        touching = (above > 0) & (below > 0)
        last = self._cut[-1][0]
        start = sum(len(one) for one, *_ in self._cut)
        upper = np.searchsorted(last, above[touching]) + (start - last.size)
        lower = np.searchsorted(cut, below[touching]) + start
        self._pairs.append(np.unique(np.stack([upper, lower]), axis=1))

    def _joined(self) -> list[Labels]:
        """Of each band the labels cut by a seam that stay, once all bands are decided on."""
        if not self._pairs:
            return [np.zeros(0, np.int32) for _ in self._rows]
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        labels, areas, wides = zip(*self._cut, strict=True)
        pairs, area = np.concatenate(self._pairs, axis=1), np.concatenate(areas)
        ones = np.ones(pairs.shape[1], np.int8)
        graph = coo_array((ones, tuple(pairs)), shape=(area.size, area.size))
        count, whole = connected_components(graph, directed=False)
        total, wide = np.zeros(count, np.int64), np.zeros(count, bool)
        np.add.at(total, whole, area)
        np.logical_or.at(wide, whole, np.concatenate(wides))
        keep = self._sizes.plausible(total, wide)[whole]
        edges = np.cumsum([len(one) for one in labels])[:-1]
        parts = zip(labels, np.split(keep, edges), strict=True)
        return [one[stays] for one, stays in parts]


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
    batch, height, width = host.shape
    sizes = _Sizes(min_area, None, min_width)
    # at the smallest value itself the whole image may still stand just below it
    if not (height * width > min_area and min(height, width) >= min_width):
        return np.full(batch, -np.inf)
    flat = host.reshape(batch, -1)
    stride = max(1, flat.shape[1] // row_means.AT_ONCE) | 1  # an odd one visits every column
    levels = np.sort(flat[:, ::stride], axis=1)
    levels[:, -1] = flat.max(axis=1)
    places = _first_empty(host, levels, sizes)
    score = levels[np.arange(batch), places]
    for image in range(batch if stride > 1 else 0):  # between two of the values in order
        low = levels[image, places[image] - 1] if places[image] else -np.inf
        between = np.append(np.unique(_inside(flat[image], low, score[image])), score[image])
        (place,) = _first_empty(host[image : image + 1], between[np.newaxis], sizes)
        score[image] = between[place]
    return score.astype(np.float64)


def _first_empty(statistic: Any, levels: Any, sizes: _Sizes) -> npt.NDArray[np.intp]:
    """Where levels in order, shape (image, level), begin to leave nothing; their last does."""
    batch, count = levels.shape
    # invariant: the mask at level `high` is empty, the one at `low` is not (-1: below all)
    low, high = np.full(batch, -1), np.full(batch, count - 1)
    while bool((high - low > 1).any()):
        middle = np.maximum((low + high) // 2, 0)
        mask = statistic > levels[np.arange(batch), middle][:, None, None]
        kept = np.concatenate([bands.any() for _, bands in _bands_of(mask, sizes)])
        low = np.where(kept, middle, low)
        high = np.where(kept, high, np.minimum(middle, high))
    return high


def _inside(values: Any, low: Any, high: Any) -> Any:
    """Values between two others, without these."""
    parts = (values[at : at + row_means.AT_ONCE] for at in range(0, len(values), row_means.AT_ONCE))
    return np.concatenate([part[(part > low) & (part < high)] for part in parts])


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
