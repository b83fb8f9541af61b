"""Controls: the same correction at the wrong place, everywhere, or of the wrong runs.

Fresh noise repairs by itself, so no correction is credited to its detector without them.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from asced_stores.errors import InputError

Control = Literal["shuffled", "foreground", "everywhere"]
CONTROLS: tuple[Control, ...] = get_args(Control)
IN_WORDS: dict[str, str] = {
    "shuffled": "another run's mask",
    "foreground": "random foreground",
    "everywhere": "the whole image",
}
"""What a control corrects, for people."""
Masks = NDArray[np.bool_]


def control_masks(
    control: Control,
    masks: Masks,
    flagged: NDArray[np.bool_],
    images: NDArray[np.floating[Any]],
    *,
    seed: int = 0,
    runs: NDArray[np.integer[Any]] | None = None,
) -> Masks:
    """Masks of a control, for the same flagged runs.

    Parameters
    ----------
    control : {"shuffled", "foreground", "everywhere"}
        Another flagged run's mask (areas are the same over all runs); random blobs of each mask's
        own area inside the run's foreground; the whole image.
    masks : bool array, shape (n, y, x)
    flagged : bool array, shape (n,)
        Runs that are not flagged get an empty mask.
    images : array, shape (n, channel, y, x)
        Predicted x0 or final samples: they say where the foreground is.
    seed : int
        Of the random choice.
    runs : int array, shape (n,), optional
        Numbers of the runs, so that a run's random places do not depend on its batch.

    Returns
    -------
    bool array, shape (n, y, x)
    """
    if control not in CONTROLS:
        raise InputError(f"unknown control {control!r}; choose one of {', '.join(CONTROLS)}")
    chosen = np.flatnonzero(flagged)
    out = np.zeros_like(masks)
    if control == "everywhere":
        out[chosen] = True
    elif control == "shuffled":
        out[chosen] = masks[_others(chosen, np.random.default_rng([seed, 1]))]
        if len(chosen) == 1:  # nobody else's mask: its own, half an image away
            rows, columns = masks.shape[1:]
            out[chosen] = np.roll(masks[chosen], (rows // 2, columns // 2), (1, 2))
    else:
        for index in chosen:
            number = int(index if runs is None else runs[index])
            rng = np.random.default_rng([seed, 2, number])
            out[index] = _blobs(int(masks[index].sum()), foreground(images[index]), rng)
    return out


def other_runs(
    flagged: NDArray[np.integer[Any]], everyone: NDArray[np.integer[Any]], *, seed: int = 0
) -> NDArray[np.int64]:
    """As many runs, but others: the control of a correction that takes whole runs.

    Parameters
    ----------
    flagged, everyone : int arrays
        Numbers of the runs that are corrected, and of all runs.
    seed : int
        Of the random choice.

    Returns
    -------
    int64 array
        In order; all others where there are fewer of them.

    Raises
    ------
    InputError
        When no run is left.
    """
    rest = np.setdiff1d(np.asarray(everyone, np.int64), flagged)
    if not len(rest):
        raise InputError("every run is corrected: there are no other runs to correct instead")
    return np.sort(np.random.default_rng([seed, 3]).permutation(rest)[: len(flagged)])


def _others(chosen: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """Give every chosen run the next one of a random ring: nobody keeps its own."""
    ring = rng.permutation(len(chosen))
    partner = np.empty_like(chosen)
    partner[ring] = chosen[np.roll(ring, -1)]
    return partner


def foreground(image: NDArray[np.floating[Any]], /) -> Masks:
    """Where an image (channel, y, x) differs from its border's median by over a tenth of its range.

    The whole image where that is less than a hundredth of it.
    """
    picture = np.asarray(image, np.float32).reshape(-1, *image.shape[-2:])
    border = np.concatenate(
        [picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]], axis=1
    )
    away = np.abs(picture - np.median(border, axis=1)[:, None, None]).max(0)
    inside = away > 0.1 * max(float(picture.max() - picture.min()), 1e-6)
    return inside if inside.mean() > 0.01 else np.ones_like(inside)


def _blobs(area: int, inside: Masks, rng: np.random.Generator) -> Masks:
    """Random blobs of exactly `area` pixels, inside the foreground as far as it reaches."""
    if area == 0:
        return np.zeros_like(inside)
    width = max(1.0, 0.25 * area**0.5)
    field = ndimage.gaussian_filter(rng.standard_normal(inside.shape), width, mode="wrap")
    field = field / field.std() + 1e3 * inside
    order = np.argsort(field, axis=None)[::-1][:area]
    out = np.zeros(inside.size, np.bool_)
    out[order] = True
    return out.reshape(inside.shape)
